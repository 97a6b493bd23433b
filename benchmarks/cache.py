"""The cache on real Redis and real S3: a look-up in each tier, a whole spoken answer, a herd, broken servers, a simulated day of a fleet.

``python -m benchmarks cache``. Servers are started and stopped by it. Models and voices are scripted, and so the times are what the cache and
the encoding of new speech take, not what an answer takes. On the day preloading is compared with doing nothing; its traffic is made up.
"""

from __future__ import annotations

import asyncio
import shlex
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from benchmarks import cache_day, cache_faults, cache_meaning, cache_tiers, cache_turns
from benchmarks.report import report_of, show, write_json
from manifests import servers
from manifests.processes import children

SEED = 1
"""Of the simulated day."""
QUICK = {"l1": 200, "l2": 20, "l3": 20}
HITS, QUICK_HITS = 300, 10
FAULT_TURNS, QUICK_FAULT_TURNS = 60, 6
QUICK_FAULTS = {name: cache_faults.FAULTS[name] for name in ("none", "redis killed", "s3 objects cut short")}


def command(
    *,
    json: Annotated[Path | None, typer.Option(help="Write the report there.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the simulated day.")] = SEED,
    quick: Annotated[bool, typer.Option(help="A dry run of half a minute; its figures say nothing.")] = False,
) -> None:
    """Measure the cache: tiers, spoken answers, a herd, faults."""
    console = Console()
    started_at = datetime.now(UTC)
    results = asyncio.run(measured(quick=quick, seed=seed))
    report = report_of(
        "cache",
        shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        engines="scripted",
        results=results,
        started_at=started_at,
    )
    show(console, report, tables_of(results))
    if json is not None:
        write_json(report, json)


async def measured(*, quick: bool = False, seed: int = SEED) -> dict[str, Any]:
    """Return the report's results; starts its own servers on free ports and stops them."""
    hits = QUICK_HITS if quick else HITS
    with tempfile.TemporaryDirectory(prefix="cache-") as name:
        folder = Path(name)
        (folder / "tiers").mkdir()
        tiers = await _tiers(folder / "tiers", quick=quick)
        (folder / "turns").mkdir()
        async with cache_faults.site(folder / "turns") as here:
            by_tier = {
                "l1": await cache_turns.audio_hits(None, hits),
                "l2": await cache_turns.audio_hits(here.direct, hits),
                "l3": await cache_turns.audio_hits(here.store, hits),
            }
            herd = await cache_turns.herd((here.direct, here.store))
        (folder / "faults").mkdir()
        faults = await (
            cache_faults.measure(folder / "faults", QUICK_FAULT_TURNS, QUICK_FAULTS)
            if quick
            else cache_faults.measure(folder / "faults", FAULT_TURNS)
        )
    semantic = await asyncio.to_thread(cache_meaning.measure)
    fleet = cache_day.QUICK if quick else None
    day = await asyncio.to_thread(cache_day.measure, seed=seed, fleet=fleet, is_sensitive=not quick)
    slowest = max(by_tier.values(), key=lambda marks: marks["p95"])
    return {
        "tiers": tiers,
        "audio_hit_ms": {"p50": slowest["p50"], "p95": slowest["p95"], "by_tier": by_tier},
        "herd": herd,
        "faults": faults,
        "semantic": semantic,
        **day,
    }


async def _tiers(folder: Path, *, quick: bool) -> dict[str, Any]:
    async with children(folder) as group:
        redis_url = await servers.redis(group, lambda _line: None)
        s3 = await servers.seaweedfs(group, folder, lambda _line: None)
        await _once_it_can(s3)
        return await cache_tiers.measure(
            redis_url,
            s3["url"],
            access_key=s3["access_key"],
            secret_key=s3["secret_key"],
            rounds=QUICK if quick else cache_tiers.ROUNDS,
        )


async def _once_it_can(s3: dict[str, str]) -> None:
    from coordinator.cache.object_store import ObjectStoreTier

    async with ObjectStoreTier.connect(
        s3["url"], "benchmark", access_key=s3["access_key"], secret_key=s3["secret_key"], timeout_s=5.0
    ) as tier:
        await cache_faults.once_it_can(tier)


def tables_of(results: dict[str, Any]) -> list[Table]:
    """Return the results as tables for people."""
    tiers = Table(
        "tier", "value", "hit p50 ms", "hit p99 ms", "miss p50 ms", "miss p99 ms", title="a look-up in one tier"
    )
    for tier, figures in results["tiers"].items():
        for kind in ("speech", "answer"):
            marks = [figures[kind][which][share] for which in ("hit_ms", "miss_ms") for share in ("p50", "p99")]
            tiers.add_row(
                tier, "24 kB of speech" if kind == "speech" else "an answer", *(f"{mark:.4f}" for mark in marks)
            )
    spoken = Table(
        "known in", "p50 ms", "p95 ms", "p99 ms", "from sound", "right", title="from a transcript to the first packet"
    )
    for tier, marks in results["audio_hit_ms"]["by_tier"].items():
        spoken.add_row(
            tier,
            *(f"{marks[share]:.2f}" for share in ("p50", "p95", "p99")),
            f"{marks['from_sound']} of {marks['n']}",
            f"{marks['right']} of {marks['n']}",
        )
    herd = Table("devices", "answered", "model calls", "syntheses", title="the same new question at once")
    herd.add_row(
        *(str(results["herd"][name]) for name in ("devices", "answered", "model_calls")),
        f"{results['herd']['syntheses']} of {results['herd']['sentences_in_the_answer']} sentences",
    )
    faults = Table(
        "fault", "turns", "answered", "right", "from sound", "added p50 ms", "p95", "most", title="turns while it lasts"
    )
    for fault, figures in results["faults"].items():
        counts = (figures[name] for name in ("turns", "answered", "right", "from_sound"))
        added = (f"{figures['added_ms'][share]:.1f}" for share in ("p50", "p95", "p100"))
        faults.add_row(fault, *map(str, counts), *added)
    words = Table(
        "pairs", "wrong", "wrong at most", "hit", "likeness alone: wrong", title="the same question in other words"
    )
    for split, figures in results["semantic"]["splits"].items():
        shares = (figures["wrong"]["share"], figures["wrong"]["high"], figures["hit"]["share"])
        words.add_row(
            split, *(f"{share:.1%}" for share in shares), f"{figures['likeness_alone']['wrong']['share']:.1%}"
        )
    return [tiers, spoken, herd, faults, words, *cache_day.tables(results)]
