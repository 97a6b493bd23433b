"""The road to the cloud: requests a second, what it adds to a first token, and how fast a cancel reaches the upstream.

A hub, a leaf, ``python -m cloud`` workers and a stub upstream run as processes of their own; the edge is this one. Four rates are told apart:

    requests    full requests with 8-token answers from the stub upstream, tokens at once; "paced" has them 5 ms apart
    turns       the same through the edge's hierarchy: decided, asked for, given out in clauses
    control     requests answered by a worker without any upstream, one token: the road and its door alone
    frames      frames of an answer from a worker to the edge, nothing asked in between
"""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.bus_load import Rate, added_ms, cancels, frames_per_s, full_answer, prompt_of, rate_of
from benchmarks.bus_loop import loop_factory
from benchmarks.bus_site import EDGE, POOL, STUB_POOL, Site, site
from benchmarks.report import report_of, show, table_of, write_json
from cloud.upstream import OpenAIUpstream
from coordinator.cache.answers import AnswerCache
from coordinator.cache.ladder import Ladder
from coordinator.hierarchy import Hierarchy
from coordinator.remote import RemoteCompleter
from coordinator.routing.policy import Policy, PoolTerms
from coordinator.routing.router import Router
from models.scripted import ScriptedCompleter

TOKENS = 8
ASKERS = 64
"""Requests at once: what one edge of 150 devices asks for when four in ten speak at the same time."""
TARGETS = {"requests_per_s": 1500.0, "added_p50_ms": 2.0, "cancel_p95_ms": 100.0, "tokens_after_cancel": 0.02}


class Effort(msgspec.Struct, frozen=True, kw_only=True):
    """How long to measure."""

    seconds: float = 8.0
    pairs: int = 400
    cancels: int = 400
    frame_rounds: int = 5


QUICK = Effort(seconds=1.5, pairs=40, cancels=40, frame_rounds=1)


def command(
    *,
    json: Annotated[Path | None, typer.Option(help="Write the report there.")] = None,
    quick: Annotated[bool, typer.Option(help="A dry run of a few seconds.")] = False,
    workers: Annotated[int, typer.Option(min=1, max=16, help="Cloud workers.")] = 1,
    askers: Annotated[int, typer.Option(min=1, max=512, help="Requests at once.")] = ASKERS,
) -> None:
    """Measure the road between an edge and the cloud's workers."""
    console = Console()
    started_at = datetime.now(UTC)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        results = runner.run(measured(QUICK if quick else Effort(), workers=workers, askers=askers))
    report = report_of(
        "bus",
        shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        engines="scripted",
        results=results,
        started_at=started_at,
    )
    show(console, report, tables_of(results))
    if json is not None:
        write_json(report, json)


async def measured(effort: Effort, *, workers: int, askers: int) -> dict[str, Any]:
    """Start a site, measure everything on it, one thing after another, and stop it."""
    async with site(workers) as here, OpenAIUpstream.connect(here.upstream_url, POOL) as direct:
        road = RemoteCompleter(here.edge, POOL, EDGE, asker=here.asker)
        stub = RemoteCompleter(here.edge, STUB_POOL, EDGE, asker=here.asker)
        added = await added_ms(road, direct, effort.pairs)
        ended = await cancels(here, road, effort.cancels, at_once=8)
        rates = {}
        for name, once in {
            "requests": full_answer(road, prompt_of(f"{TOKENS} 0 0 -"), TOKENS),
            "paced": full_answer(road, prompt_of(f"{TOKENS} 20 5 -"), TOKENS),
            "turns": full_answer(hierarchy(road), prompt_of(f"{TOKENS} 0 0 -"), TOKENS),
            "control": full_answer(stub, prompt_of("1 0 0 -"), 1),
            "direct": full_answer(direct, prompt_of(f"{TOKENS} 0 0 -"), TOKENS),
        }.items():
            rates[name] = await rate_of(here, once, askers=askers, seconds=effort.seconds)
        frames = await frames_per_s(here, STUB_POOL, effort.frame_rounds)
        return results_of(here, rates, added, ended, frames) | {"workers": workers, "askers": askers}


def hierarchy(road: RemoteCompleter) -> Hierarchy:
    """Return an edge's hierarchy whose one pool lies at the end of the road; nothing is remembered."""
    terms = PoolTerms(name=POOL, strength=1.0)
    policy = Policy(threshold=0.0, first_token_ms=5000, pools=(terms,))
    return Hierarchy(ScriptedCompleter(), {POOL: road}, AnswerCache(Ladder()), Router(policy, None))


def results_of(
    here: Site, rates: dict[str, Rate], added: dict[str, Any], ended: dict[str, Any], frames: float
) -> dict[str, Any]:
    """Return the report's results."""
    return {
        "requests_per_s": rates["requests"].per_s,
        "paced_requests_per_s": rates["paced"].per_s,
        "turns_per_s": rates["turns"].per_s,
        "control_requests_per_s": rates["control"].per_s,
        "direct_requests_per_s": rates["direct"].per_s,
        "frames_per_s": frames,
        "added_ms": added,
        **ended,
        "rates": {name: msgspec.to_builtins(rate) for name, rate in rates.items()},
        "left_open": here.asker.waiting,
        "targets": TARGETS,
    }


def tables_of(results: dict[str, Any]) -> list[Table]:
    """Return the promise beside what was measured, and the rates with the CPU of one by process."""
    promised: list[tuple[str, float, float | None, Callable[[float, float], bool]]] = [
        (
            "full requests/s",
            TARGETS["requests_per_s"],
            results["requests_per_s"],
            lambda value, target: value >= target,
        ),
        ("added to the first token, p50 ms", TARGETS["added_p50_ms"], results["added_ms"]["p50"], _at_most),
        ("cancel to closed stream, p95 ms", TARGETS["cancel_p95_ms"], results["cancel_ms"]["p95"], _at_most),
        ("tokens after cancel", TARGETS["tokens_after_cancel"], results["tokens_after_cancel"], _at_most),
    ]
    promise = [
        [what, f"{target:g}", "-" if value is None else f"{value:g}", _verdict(value, target, is_met)]
        for what, target, value, is_met in promised
    ]
    names = list(dict.fromkeys(name for rate in results["rates"].values() for name in rate["cpu_us"]))
    rates = [
        [kind, f"{rate['per_s']:.0f}", f"{rate['cores']:.2f}", f"{rate['failed']}"]
        + [f"{rate['cpu_us'].get(name, 0):.0f}" for name in names]
        for kind, rate in results["rates"].items()
    ]
    rates.append(["frames", f"{results['frames_per_s']:.0f}", "-", "-", *("-" for _ in names)])
    return [
        table_of("The road, promised and measured", ("what", "promised", "measured", "kept"), promise),
        table_of("Rates, and CPU µs of one by process", ("what", "a second", "cores", "failed", *names), rates),
    ]


def _at_most(value: float, target: float) -> bool:
    return value <= target


def _verdict(value: float | None, target: float, is_met: Callable[[float, float], bool]) -> str:
    return "yes" if value is not None and is_met(value, target) else "no"
