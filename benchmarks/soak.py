"""What wears a node down: garbage, thousands of turns, and interruptions at random moments; crashes, leaks and stuck sessions are counted.

Four parts, one after another, each with its product in processes of its own: binary frames and texts of garbage (``soak_mill``), turns on
a node whose memory is watched (``soak_turns`` says what is shorter there than in life), and barge-ins (``soak_barge``). The same seed
sends the same garbage and draws the same moments.
"""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from benchmarks import soak_barge, soak_turns
from benchmarks.report import report_of, show, table_of, write_json
from benchmarks.soak_grind import grind
from benchmarks.soak_mill import Kind
from benchmarks.targets import Target, judged, table_of_targets
from models.errors import ConfigError

TARGETS = (
    Target(key="frames.crashes", at="most", limit=0, what="frames of garbage: crashes"),
    Target(key="frames.unexpected_errors", at="most", limit=0, what="frames of garbage: unexpected errors"),
    Target(key="frames.rss_slope_mib_per_million", at="most", limit=1, what="frames of garbage: MiB a million"),
    Target(key="messages.crashes", at="most", limit=0, what="texts of garbage: crashes"),
    Target(key="messages.unexpected_errors", at="most", limit=0, what="texts of garbage: unexpected errors"),
    Target(key="messages.rss_slope_mib_per_million", at="most", limit=5, what="texts of garbage: MiB a million"),
    Target(key="turns.failed", at="most", limit=0, what="turns: failed"),
    Target(key="turns.rss_slope_mib_per_1000_turns", at="most", limit=0.1, what="turns: MiB a thousand"),
    Target(key="turns.tasks_left", at="most", limit=0, what="turns: tasks left"),
    Target(key="turns.fds_left", at="most", limit=0, what="turns: descriptors left"),
    Target(key="barge_ins.stuck", at="most", limit=0, what="barge-ins: stuck sessions"),
    Target(key="barge_ins.stale_packets", at="most", limit=0, what="barge-ins: stale packets heard"),
    Target(key="barge_ins.aborts_without_stop", at="most", limit=0, what="barge-ins: aborts without tts/stop"),
    Target(key="barge_ins.stop_ms.p95", at="most", limit=100, what="barge-ins: abort to tts/stop, p95 ms"),
)
"""Slopes are guesses at what nobody could tell from the noise of an allocator: a day of 150 devices at 12 turns an hour is 43,200 turns,
or 4 MiB."""
QUICK = {"frames": 100_000, "messages": 20_000, "turns": 500, "barge_ins": 50}
SLOPE_FROM = {"frames": 1_000_000, "messages": 200_000, "turns": 5_000}
"""Shorter runs are all beginning, in which memory grows: their slopes are told and not judged."""
INTERRUPTED_STATUS = 130
"""What a shell gives a program that Ctrl-C ended."""

Tell = Callable[[int], None]


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How much of each; 0 leaves a part out."""

    frames: int
    messages: int
    turns: int
    barge_ins: int
    seed: int


def command(
    *,
    json: Annotated[Path | None, typer.Option(help="Write the report there.")] = None,
    frames: Annotated[int, typer.Option(min=0, help="Binary frames of garbage.")] = 10_000_000,
    messages: Annotated[int, typer.Option(min=0, help="Texts of garbage.")] = 1_000_000,
    turns: Annotated[int, typer.Option(min=0, help="Turns on one node.")] = 20_000,
    barge_ins: Annotated[int, typer.Option("--barge-ins", min=0, help="Interruptions at random moments.")] = 1_000,
    seed: Annotated[int, typer.Option(help="Of all dice.")] = 1,
    quick: Annotated[bool, typer.Option("--quick", help="Much less of everything: a look, no proof.")] = False,
) -> None:
    """Wear the product down for some minutes; 0 leaves a part out."""
    console, started_at = Console(), datetime.now(UTC)
    options = Options(frames=frames, messages=messages, turns=turns, barge_ins=barge_ins, seed=seed)
    if quick:
        wanted = msgspec.structs.asdict(options)
        options = msgspec.structs.replace(options, **{name: min(wanted[name], most) for name, most in QUICK.items()})
    try:
        results, errors = soaked(options, console)
    except KeyboardInterrupt:
        console.print("stopped: nothing was written")
        raise typer.Exit(INTERRUPTED_STATUS) from None
    results["targets"], results["quick"] = judged(targets_of(options), results), quick
    line = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
    report = report_of("soak", line, engines="scripted", results=results, started_at=started_at, errors=errors)
    show(console, report, [*tables_of(results), table_of_targets(results["targets"])])
    if json is not None:
        write_json(report, json)
    if errors:
        raise typer.Exit(1)


def targets_of(options: Options) -> list[Target]:
    """Return the promises that a run of these lengths can keep or miss."""
    amounts: dict[str, int] = msgspec.structs.asdict(options)
    found = []
    for target in TARGETS:
        part, _, figure = target.key.partition(".")
        least = SLOPE_FROM.get(part, 1) if "_slope_" in figure else 1
        if amounts[part] >= least:
            found.append(target)
    return found


def soaked(options: Options, console: Console) -> tuple[dict[str, Any], list[str]]:
    """Run every part that is wanted and return the results and what went wrong in words; Ctrl-C ends all processes. Blocks."""
    bar = Progress(
        TextColumn("{task.description:<9}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
    )
    with bar:
        return asyncio.run(_soak(options, bar))


async def _soak(options: Options, bar: Progress) -> tuple[dict[str, Any], list[str]]:
    results: dict[str, Any] = {}
    errors: list[str] = []

    def part(name: str, total: int) -> Tell:
        task = bar.add_task(name, total=total)
        return lambda done: bar.update(task, completed=min(done, total))

    kinds: dict[Kind, int] = {"frames": options.frames, "messages": options.messages}
    for kind, count in kinds.items():
        if count:
            ground = await grind(kind, count, options.seed, progress=part(kind, count))
            results[kind] = ground.results()
            errors += ground.told
    parts = {"turns": (options.turns, _turns), "barge_ins": (options.barge_ins, _barge_ins)}
    for name, (count, work) in parts.items():
        if count:
            try:
                results[name], told = await work(count, options.seed, part(name.replace("_", "-"), count))
                errors += told
            except ConfigError as error:
                errors.append(f"{name}: {error}")
    return results, errors


async def _turns(count: int, _seed: int, tell: Tell) -> tuple[dict[str, Any], list[str]]:
    devices = min(soak_turns.DEVICES, count)
    async with soak_turns.node_process(devices) as node:
        held = await soak_turns.hold_turns(node, count, devices, tell)
    return held.results(), list(held.load.told)


async def _barge_ins(count: int, seed: int, tell: Tell) -> tuple[dict[str, Any], list[str]]:
    async with soak_turns.node_process(2 * soak_barge.DEVICES) as node:
        base = node.latest
        barged = await soak_barge.barge_in(node.url, count, seed, progress=tell)
        left = await node.until_idle(base)
    more = {"tasks_left": left.tasks - base.tasks, "sessions_left": left.sessions}
    return {**barged.results(), **more}, barged.told


def tables_of(results: Mapping[str, Any]) -> list[Table]:
    """Return the figures for people."""
    tables = []
    garbage = [(kind, results[kind]) for kind in ("frames", "messages") if kind in results]
    if garbage:
        columns = ("", "sent", "per s", "crashes", "errors", "MiB", "at end", "per million")
        keys = ("sent", "per_second", "crashes", "unexpected_errors", "rss_mib_start", "rss_mib_end")
        rows = [
            (kind, *(found[key] for key in keys), _fine(found["rss_slope_mib_per_million"])) for kind, found in garbage
        ]
        tables.append(table_of("Garbage", columns, rows))
    if "turns" in results:
        found = results["turns"]
        columns = ("answered", "failed", "per s", "MiB", "at end", "per 1000", "tasks left", "fds left")
        figures = [
            found[key]
            for key in ("answered", "failed", "turns_per_second", "rss_mib_start", "rss_mib_end", "tasks_left")
        ]
        figures.insert(5, _fine(found["rss_slope_mib_per_1000_turns"]))
        tables.append(table_of("Turns", columns, [(*figures, found["fds_left"])]))
    if "barge_ins" in results:
        tables.append(_table_of_barge_ins(results["barge_ins"]))
    return tables


def _table_of_barge_ins(found: Mapping[str, Any]) -> Table:
    columns = ("tried", "stuck", "stale", "no stop", "ms p50", "p95", "most", "when")
    when = ", ".join(f"{moment} {count}" for moment, count in found["moments"].items())
    stops = [_fine(found["stop_ms"][name]) for name in ("p50", "p95", "max")]
    counts = [found[key] for key in ("tried", "stuck", "stale_packets", "aborts_without_stop")]
    return table_of("Barge-ins", columns, [(*counts, *stops, when)])


def _fine(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}"
