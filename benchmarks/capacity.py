"""How many devices one edge node carries: real-time devices from a process of their own against a node started for the purpose.

The method of the published comparison of servers under load: 60 ms frames in real time, 1.8 s of speech, 700 ms of silence end it,
devices begin 50 ms apart, two turns each, times from the last audible frame. Every answer is another text, so no cache helps. The
single device is measured in the same run. With real engines 16 devices think 25 s between their turns, which is as many turns a second
as 150 devices with 12 turns an hour; recognition is a twin of SenseVoice with random weights, the language model Qwen-1.8B's pace and no
more, so it says the same whatever is asked: another text each time, in Mandarin or English, or always the same, from the cache. The
generator shares the machine and says how late its own loop was: above 20 ms the figures are its own and not the node's.
"""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console

from benchmarks import capacity_node
from benchmarks.capacity_results import (
    REAL_TARGETS,
    SCRIPTED_TARGETS,
    against_single,
    broken,
    cost_of_a_turn,
    devices_carried,
    figures,
    next_devices,
    promised_row,
    ratio,
    table_of_rows,
    tables_of,
)
from benchmarks.engine_asr import made_twin, twin_dir
from benchmarks.engines import measured as measured_part
from benchmarks.load import LoadPlan
from benchmarks.load_sound import scripted_sound, spoken_sound
from benchmarks.plot import plot as draw
from benchmarks.report import Engines, Report, report_of, show, write_json
from benchmarks.targets import judged, table_of_targets
from models.errors import ConfigError

SINGLE_TURNS = 8
"""Turns of the single device: the middle of so many stands still."""
QUIET_S = 10.0
"""How long devices stream silence to show what that costs."""
MAX_TABLE_DEVICES = 2_000
"""Where the table ends at the latest."""

END_SILENCE = {"EDGE_END_SILENCE_MS": "700"}
SCRIPTED_ENV: Mapping[str, str] = {"EDGE_ENGINES": "scripted", **END_SILENCE}
QWEN_FIRST_TOKEN_S, QWEN_TOKEN_S = 0.362, 0.0529
"""Pace of a Qwen1.5-1.8B-Chat with random weights, alone on two cores, 207 tokens of prompt of which the system prompt is kept:
``python -m benchmarks.engine_llm --pace --model FILE --threads 2`` on a file of ``python -m models.factory.qwen_twin``."""
REAL_ENV: Mapping[str, str] = {
    "EDGE_ENGINES": "real",
    "EDGE_ANSWER_CACHE": "false",
    "EDGE_ASR_MODEL": str(twin_dir()),
    "EDGE_LLM_MODEL": "scripted",
    "EDGE_SCRIPTED_FIRST_TOKEN_S": str(QWEN_FIRST_TOKEN_S),
    "EDGE_SCRIPTED_TOKEN_S": str(QWEN_TOKEN_S),
    **END_SILENCE,
}
"""Voice detection and speech are real, recognition is the cost of the real thing without its sense, the language model is a delay."""

ANSWERS: Mapping[str, str] = {
    "fresh": "这是第{count}个回答。它有两句话。",
    "english": "This is answer number {count}. It has two sentences.",
    "same": "这是一个回答。它有两句话。",
}
"""What the scripted language model says beside real engines: speech is made for every turn, or taken from the cache."""
REAL_DEVICES, REAL_PAUSE_S, REAL_TURNS = 16, 25.0, 3
"""About as many turns a second as 150 devices with 12 turns an hour. Longer pauses would end the sessions."""


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What to measure."""

    engines: Engines
    devices: int
    turns: int
    seconds: float = 0.0
    pause_s: float = 0.0
    processes: int = 1
    answers: str = "fresh"
    """One of ANSWERS; scripted engines have their own."""
    env: dict[str, str] = {}
    """Of the edge, over what its kind of engines asks for."""

    @property
    def settings(self) -> dict[str, str]:
        """The edge's environment."""
        if self.engines == "scripted":
            return {**SCRIPTED_ENV, **self.env}
        return {**REAL_ENV, "EDGE_SCRIPTED_ANSWER": ANSWERS[self.answers], **self.env}


def command(
    *,
    json: Annotated[Path | None, typer.Option(help="Write the report there.")] = None,
    devices: Annotated[
        int | None, typer.Option(min=1, max=60_000, help=f"Devices at once; 150, or {REAL_DEVICES} with real engines.")
    ] = None,
    engines: Annotated[str, typer.Option(help="scripted (planned delays) or real.")] = "scripted",
    answers: Annotated[
        str,
        typer.Option(help="With real engines: fresh (Mandarin made for each turn), english (the same), same (cached)."),
    ] = "fresh",
    turns: Annotated[
        int | None, typer.Option(min=1, help=f"Turns of every device, at least; 2, or {REAL_TURNS} with real engines.")
    ] = None,
    seconds: Annotated[float, typer.Option(min=0, help="Hold turns back to back for so long instead.")] = 0.0,
    pause_s: Annotated[
        float | None,
        typer.Option(
            "--pause-s", min=0, help=f"Mean silence before each question; 0, or {REAL_PAUSE_S:g} with real engines."
        ),
    ] = None,
    processes: Annotated[
        int, typer.Option(min=1, max=2, help="1: python -m edge; 2: gateway and brain over NATS.")
    ] = 1,
    table: Annotated[
        bool, typer.Option("--table", help="Growing loads until the node breaks, instead of one.")
    ] = False,
    plot: Annotated[Path | None, typer.Option(help="With --table: draw it there, .svg or .png.")] = None,
    env: Annotated[list[str] | None, typer.Option(help="NAME=VALUE for the edge; may be repeated.")] = None,
) -> None:
    """Put many devices on one edge node and measure what each of them sees."""
    if plot is not None and not table:
        raise typer.BadParameter("--plot draws what --table measures")
    console, started_at = Console(), datetime.now(UTC)
    usual = _usual(engines, answers)
    options = msgspec.structs.replace(
        usual,
        devices=devices or usual.devices,
        turns=turns or usual.turns,
        seconds=seconds,
        pause_s=usual.pause_s if pause_s is None else pause_s,
        processes=processes,
        env=settings_of(env or []),
    )
    results, told = _results(options, console, table=table)
    line = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
    report = report_of("capacity", line, engines=options.engines, results=results, started_at=started_at, errors=told)
    _write(report, console, json, plot)
    if report.errors:
        raise typer.Exit(1)


def _usual(engines: str, answers: str) -> Options:
    """Return what is measured when nothing else is asked for; raise BadParameter."""
    if answers not in ANSWERS:
        raise typer.BadParameter(f"answers are {', '.join(ANSWERS)}")
    if engines == "scripted":
        return Options(engines="scripted", devices=150, turns=2)
    if engines == "real":
        return Options(engines="real", devices=REAL_DEVICES, turns=REAL_TURNS, pause_s=REAL_PAUSE_S, answers=answers)
    raise typer.BadParameter("engines are scripted or real")


def _results(options: Options, console: Console, *, table: bool) -> tuple[dict[str, Any], list[str]]:
    """Measure; return the results beside their targets, and what went wrong."""
    results, told = asyncio.run(_table(options, console) if table else _one(options, console))
    if options.engines == "real" and not table:
        results["audio"] = measured_part("audio", quick=False)
    judged_on = promised_row(results["rows"]) if table else results
    targets = SCRIPTED_TARGETS if options.engines == "scripted" else REAL_TARGETS
    return {**results, "targets": judged(targets, judged_on)}, told


def _write(report: Report, console: Console, json: Path | None, plot: Path | None) -> None:
    """Show the report, and write and draw it where that is wanted."""
    results = report.results
    tables = [table_of_rows(results["rows"])] if "rows" in results else tables_of(results)
    show(console, report, [*tables, table_of_targets(results["targets"])])
    if plot is not None:
        title = f"One edge node, {report.engines} engines, {report.machine.cores} cores with the devices"
        draw(results["rows"], plot, title=title)
    if json is not None:
        write_json(report, json)


def settings_of(pairs: Sequence[str]) -> dict[str, str]:
    """Return NAME=VALUE pairs as a mapping; raise ConfigError for anything else."""
    named = [pair.partition("=") for pair in pairs]
    for name, equals, _ in named:
        if not equals or not name.startswith("EDGE_"):
            raise ConfigError(f"--env takes EDGE_NAME=VALUE, not {name!r}")
    return {name: value for name, _, value in named}


async def _one(options: Options, console: Console) -> tuple[dict[str, Any], list[str]]:
    """Measure the single device, then all, then all in silence, on one node; return the results and what went wrong."""
    base = await _plan(options, console)
    async with capacity_node.node(processes=options.processes, devices=options.devices, env=options.settings) as node:
        _tell(console, "one device alone")
        base = msgspec.structs.replace(base, url=node.url)
        alone = await capacity_node.measure(
            node,
            msgspec.structs.replace(base, devices=1, turns=max(SINGLE_TURNS, options.turns), seconds=0.0, pause_s=0.0),
        )
        _tell(console, f"{options.devices} devices")
        loaded = await capacity_node.measure(node, base)
        _tell(console, f"{options.devices} devices in silence")
        quiet = await capacity_node.measure(node, msgspec.structs.replace(base, speaks=False, seconds=QUIET_S))
    results: dict[str, Any] = {"devices": options.devices, "processes": options.processes, "settings": options.settings}
    results |= against_single(figures(loaded), figures(alone))
    results["quiet"] = {"cpu_cores": round(quiet.cpu_s / quiet.wall_s, 3), "errors": sum(quiet.load.faults.values())}
    if cost := cost_of_a_turn(loaded, options.devices):
        results["carries"] = devices_carried(*cost, quiet.cpu_s / quiet.wall_s / options.devices)
    return results, [*alone.load.told, *loaded.load.told, *quiet.load.told]


async def _table(options: Options, console: Console) -> tuple[dict[str, Any], list[str]]:
    """Measure growing loads, each on a node of its own, until one breaks it; only what breaks below the promise is an error."""
    base = await _plan(options, console)
    rows: list[dict[str, Any]] = []
    while not rows or not (rows[-1]["broken"] or rows[-1]["devices"] >= MAX_TABLE_DEVICES):
        devices = next_devices([row["devices"] for row in rows])
        turns = max(SINGLE_TURNS, options.turns) if devices == 1 else options.turns
        plan = msgspec.structs.replace(
            base, devices=devices, turns=turns, seconds=0.0 if devices == 1 else options.seconds
        )
        async with capacity_node.node(processes=options.processes, devices=devices, env=options.settings) as node:
            measured = await capacity_node.measure(node, msgspec.structs.replace(plan, url=node.url))
        row = {"devices": devices, **figures(measured)}
        single = rows[0] if rows else row
        rows.append({**row, "ratio_p95_over_single_p50": ratio(row, single), "broken": broken(row, single)})
        _tell(console, _line(rows[-1]))
        if not row["generator"]["is_valid"]:
            _tell(console, "the generator is slower than the node from here on: this machine cannot tell more")
            break
    carried = [row["devices"] for row in rows if not row["broken"]]
    results = {
        "processes": options.processes,
        "settings": options.settings,
        "rows": rows,
        "carried": max(carried, default=0),
    }
    return results, []


async def _plan(options: Options, console: Console) -> LoadPlan:
    """Return the plan without an address; makes the sound, and the twin when it is missing."""
    sound = scripted_sound() if options.engines == "scripted" else await spoken_sound()
    if options.settings.get("EDGE_ASR_MODEL") == str(twin_dir()):
        made_twin(partial(_tell, console))
    return LoadPlan(
        devices=options.devices, turns=options.turns, seconds=options.seconds, pause_s=options.pause_s, sound=sound
    )


def _line(row: Mapping[str, Any]) -> str:
    audio = row["first_audio_ms"]
    told = f"{row['devices']} devices: first audio {audio['p50']} / {audio['p95']} ms, {row['server_cpu_cores']} cores"
    return f"{told}, breaks: {row['broken']}" if row["broken"] else told


def _tell(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False)
