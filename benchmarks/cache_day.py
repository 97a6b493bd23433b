"""How often a fleet's caches would hit on a simulated day: three tiers with preloading, against LRU, none of it, and the best there can be.

Traffic is made up (``cache_day_traffic`` says how) and seeded; near tiers, shelf, forecast and plan are the real ones. Time is virtual.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from rich.table import Table

from benchmarks.cache_day_fleet import KEY_BYTES, KINDS, Foresight, Outcome, Setup, foresee, made_before, run
from benchmarks.cache_day_traffic import ANSWER_BYTES, HOUR_S, HOURS, SPEECH_BYTES, Fleet, Traffic, traffic_of
from benchmarks.report import table_of
from coordinator.cache.memory import MAX_BYTES
from coordinator.preloading.shelf import ENTRY_BYTES

QUICK = Fleet(intents=500, edges=4, groups=2, devices=20, days=4)
"""Small enough for a test."""
NEAR_SHARES = (0.01, 0.05, 0.10)
"""Near tiers by the share of the intents that they hold."""
SENSITIVE = ((1.0, 10.0), (0.7, 40.0), (1.2, 40.0))
"""Other fleets: alpha, and asks a device and day."""
SENSITIVE_SHARE = 0.05
FEW_DAYS = 3
"""Through which near tiers are simulated where it is about the three tiers together."""
MORE_SEEDS = 4
"""Other days of the same fleet on which it is counted what was made in vain: one day makes about a hundred contents."""
UPGRADE_HOUR = 5
"""Before the morning's peak."""
DAY_S, WEEK_S = 86_400.0, 7 * 86_400.0


def measure(*, seed: int = 1, fleet: Fleet | None = None, is_sensitive: bool = True) -> dict[str, Any]:
    """Return ``day`` and ``preload`` as the tables show them, with all that was assumed; ``is_sensitive`` measures other fleets too."""
    fleet = fleet or Fleet()
    traffic = traffic_of(fleet, seed)
    foresight = foresee(traffic)
    main = Setup(near_bytes=MAX_BYTES)
    outcomes = {
        "hit_rate": run(traffic, foresight, main),
        "lru": run(traffic, foresight, msgspec.structs.replace(main, policy="lru")),
        "no_preload": run(traffic, foresight, msgspec.structs.replace(main, preloads=False)),
        "lru_no_preload": run(traffic, foresight, msgspec.structs.replace(main, preloads=False, policy="lru")),
    }
    best = outcomes["hit_rate"]
    node = near_size(traffic, best, outcomes["no_preload"], outcomes["lru_no_preload"], MAX_BYTES)
    by_seed = {of: wasted_of(fleet, of) for of in range(seed + 1, seed + MORE_SEEDS + 1)} if is_sensitive else {}
    sizes, other = [*near_sizes(traffic, foresight), node], others(traffic, foresight, main)
    results: dict[str, Any] = {
        "assumed": assumed(traffic, seed),
        "day": {
            **{name: round(outcome.rate(), 4) for name, outcome in outcomes.items()},
            "l1_lru_alone": round(outcomes["lru_no_preload"].rate(tier="near"), 4),
            **bounds(traffic, main.store_ttl_s),
            "tiers": {tier: round(best.rate(tier=tier), 4) for tier in ("near", "redis", "store")},
            "kinds": {kind: _of_kind(best, kind) for kind in KINDS},
            "in_bytes": {name: round(outcome.rate(in_bytes=True), 4) for name, outcome in outcomes.items()},
            "others": {"main": {**_rates(best, outcomes["no_preload"]), **wasted(best)}, **other},
        },
        "preload": {
            **wasted_of_all([*by_seed.values(), wasted(best), *other.values()]),
            "wasted_by_seed": {seed: wasted_of_all([wasted(best), *other.values()])["wasted"]}
            | {of: row["wasted"] for of, row in by_seed.items()},
            "worth_points": node["worth_points"],
            "least_worth_points": min(size["worth_points"] for size in sizes),
            "near_sizes": sizes,
            "reliability": [tuple(round(value, 4) for value in tenth) for tenth in foresight.reliability],
        },
    }
    if is_sensitive:
        results["day"]["sensitivity"] = sensitivity(fleet, seed)
    return results


def bounds(traffic: Traffic, ttl_s: float) -> dict[str, float]:
    """Return the best that can be, as shares of the last day's lookups.

    ``bound``: only the first ask of a content in all the simulated days is a miss. No cache can be better that makes nothing nobody ever
    asked for, however large it is, however long it keeps and however well it foresees.
    ``bound_ttl``: the same within ``ttl_s`` of when it was made: the best without making anything ahead.
    ``bound_clairvoyant``: only the first asks of contents that came up on the last day itself are misses; the older ones nobody ever asked
    for were made by somebody who knew the future.
    """
    start_s = (traffic.fleet.days - 1) * HOURS * HOUR_S
    last = traffic.at_s >= start_s
    contents, first = np.unique(traffic.content, return_index=True)
    is_first = np.zeros(len(traffic.at_s), bool)
    is_first[first] = True
    is_new = traffic.born_s[traffic.content] >= start_s
    made = made_before(traffic, ttl_s)
    made[np.setdiff1d(np.arange(len(made)), contents)] = -np.inf
    misses = 0
    for at_s, content in zip(traffic.at_s.tolist(), traffic.content.tolist(), strict=True):
        if at_s >= made[content] + ttl_s:
            made[content] = at_s
            misses += at_s >= start_s
    asks = max(int(last.sum()), 1)
    return {
        "bound": round(1 - float((is_first & last).sum()) / asks, 4),
        "bound_ttl": round(1 - misses / asks, 4),
        "bound_clairvoyant": round(1 - float((is_first & last & is_new).sum()) / asks, 4),
    }


def near_sizes(traffic: Traffic, foresight: Foresight) -> list[dict[str, Any]]:
    """Return what hits in near tiers of NEAR_SHARES, with and without preloading, and by which eviction."""
    rows = []
    for share in NEAR_SHARES:
        near_bytes = int(share * traffic.fleet.intents * _content_bytes(traffic))
        setup = Setup(near_bytes=near_bytes)
        with_it = run(traffic, foresight, setup)
        without = run(traffic, foresight, msgspec.structs.replace(setup, preloads=False))
        lru = run(traffic, foresight, msgspec.structs.replace(setup, preloads=False, policy="lru"))
        rows.append(near_size(traffic, with_it, without, lru, near_bytes))
    return rows


def near_size(traffic: Traffic, with_it: Outcome, without: Outcome, lru: Outcome, near_bytes: int) -> dict[str, Any]:
    """Return the figures of the near tier alone; ``lru`` is without preloading."""
    points = {
        name: round(
            100 * (with_it.rate(tier="near", in_bytes=in_bytes) - without.rate(tier="near", in_bytes=in_bytes)), 2
        )
        for name, in_bytes in (("worth_points", False), ("worth_points_in_bytes", True))
    }
    return {
        "near_mib": round(near_bytes / 2**20, 1),
        "share": round(near_bytes / _content_bytes(traffic) / traffic.fleet.intents, 3),
        "preload": round(with_it.rate(tier="near"), 4),
        "no_preload": round(without.rate(tier="near"), 4),
        "lru": round(lru.rate(tier="near"), 4),
        **points,
        "loaded": with_it.loaded,
        "loaded_never_asked": round(with_it.loaded_never / max(with_it.loaded, 1), 4),
    }


def _content_bytes(traffic: Traffic) -> float:
    """Return what an answer and its speech take in a near tier, on average."""
    return float((traffic.answer_bytes + traffic.speech_bytes).mean()) + 2 * (ENTRY_BYTES + KEY_BYTES)


def others(traffic: Traffic, foresight: Foresight, main: Setup) -> dict[str, dict[str, Any]]:
    """Return what the same day shows in other setups, with and without preloading."""
    return {name: _with_and_without(traffic, foresight, setup) for name, setup in other_setups(main).items()}


def other_setups(main: Setup) -> dict[str, Setup]:
    """Return other times to live, and a new voice in the morning."""
    change = msgspec.structs.replace
    return {
        "times to live of the seeds": change(
            main, near_ttl_s=300.0, redis_ttl_s=3600.0, store_ttl_s=86_400.0, near_days=FEW_DAYS
        ),
        "store keeps a week": change(main, store_ttl_s=WEEK_S, near_days=FEW_DAYS),
        "near tier keeps a day": change(main, near_ttl_s=DAY_S, near_days=FEW_DAYS),
        "new voice at 5:00": change(main, upgrade_hour=UPGRADE_HOUR, near_days=FEW_DAYS),
    }


def wasted_of(fleet: Fleet, seed: int) -> dict[str, Any]:
    """Return what another day's setups made ahead, and how much of it in vain."""
    traffic = traffic_of(fleet, seed)
    foresight = foresee(traffic)
    main = Setup(near_bytes=MAX_BYTES, near_days=FEW_DAYS)
    return wasted_of_all([wasted(run(traffic, foresight, setup)) for setup in (main, *other_setups(main).values())])


def sensitivity(fleet: Fleet, seed: int) -> list[dict[str, Any]]:
    """Return the main figures for fleets that ask less and more, and for flatter and steeper popularity."""
    rows = []
    for alpha, asks in SENSITIVE:
        traffic = traffic_of(msgspec.structs.replace(fleet, alpha=alpha, asks=asks), seed)
        room = int(SENSITIVE_SHARE * fleet.intents * (ANSWER_BYTES + SPEECH_BYTES + 2 * ENTRY_BYTES))
        setup = Setup(near_bytes=room, near_days=FEW_DAYS)
        found = _with_and_without(traffic, foresee(traffic), setup)
        rows.append({"alpha": alpha, "asks": asks, **bounds(traffic, setup.store_ttl_s), **found})
    return rows


def wasted(outcome: Outcome) -> dict[str, Any]:
    """Return how many answers were made ahead, and how many of them nobody asked for: in the hour they were made for, and at all."""
    return {
        "made": outcome.made,
        "made_not_in_hour": outcome.made_not_in_hour,
        "made_never_asked": outcome.made_never,
    }


def wasted_of_all(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the same of all setups together, since each makes few, and the shares; None for the share of nothing."""
    sums = {name: sum(row[name] for row in rows) for name in ("made", "made_not_in_hour", "made_never_asked")}
    made = sums["made"]
    return {
        **sums,
        "wasted": round(sums["made_not_in_hour"] / made, 4) if made else None,
        "never_asked": round(sums["made_never_asked"] / made, 4) if made else None,
    }


def assumed(traffic: Traffic, seed: int) -> dict[str, Any]:
    """Return the workload in figures."""
    last = traffic.at_s >= (traffic.fleet.days - 1) * HOURS * HOUR_S
    return {
        "seed": seed,
        **msgspec.to_builtins(traffic.fleet),
        "not_cacheable": round(1 - traffic.fleet.cacheable, 4),
        "asks_on_the_last_day": int(last.sum()),
        "different_on_the_last_day": len(np.unique(traffic.content[last])),
        "near_mib": round(MAX_BYTES / 2**20, 1),
    }


def tables(results: Mapping[str, Any]) -> Sequence[Table]:
    """Return the results for people."""
    day, preload, given = results["day"], results["preload"], results["assumed"]
    title = (
        f"A day of {given['edges']} edges x {given['devices']} devices, {given['intents']} intents, alpha {given['alpha']:g}, "
        f"{given['asks']:g} asks a device and day, {given['not_cacheable']:.0%} of them not cacheable and not counted"
    )
    names = ("hit_rate", "lru", "no_preload", "l1_lru_alone", "bound", "bound_ttl", "bound_clairvoyant")
    found = [table_of(title, ("what", "hits"), [(name, f"{day[name]:.1%}") for name in names])]
    columns = ("near_mib", "share", "preload", "no_preload", "lru", "worth_points", "loaded", "loaded_never_asked")
    rows = [tuple(f"{row[name]:g}" for name in columns) for row in preload["near_sizes"]]
    found.append(table_of("Hits in the near tier alone", columns, rows))
    outer = ("preload", "no_preload", "near_preload", "near_no_preload", "made", "made_not_in_hour", "made_never_asked")
    rows = [(name, *(f"{row[column]:g}" for column in outer)) for name, row in day["others"].items()]
    found.append(table_of("Three tiers, and what was made ahead", ("setup", *outer), rows))
    if "sensitivity" in day:
        wide = (
            "alpha",
            "asks",
            "preload",
            "no_preload",
            "bound",
            "near_preload",
            "near_no_preload",
            "made",
            "made_not_in_hour",
        )
        rows = [tuple(f"{row[name]:g}" for name in wide) for row in day["sensitivity"]]
        found.append(table_of(f"Other fleets, a near tier of {SENSITIVE_SHARE:.0%} of the intents", wide, rows))
    return found


def _of_kind(outcome: Outcome, kind: str) -> dict[str, float]:
    return {
        "hit_rate": round(outcome.rate(kind=kind), 4),
        "in_bytes": round(outcome.rate(kind=kind, in_bytes=True), 4),
        "near": round(outcome.rate(kind=kind, tier="near"), 4),
    }


def _with_and_without(traffic: Traffic, foresight: Foresight, setup: Setup) -> dict[str, Any]:
    with_it = run(traffic, foresight, setup)
    without = run(traffic, foresight, msgspec.structs.replace(setup, preloads=False))
    return {**_rates(with_it, without), **wasted(with_it)}


def _rates(with_it: Outcome, without: Outcome) -> dict[str, float]:
    return {
        "preload": round(with_it.rate(), 4),
        "no_preload": round(without.rate(), 4),
        "near_preload": round(with_it.rate(tier="near"), 4),
        "near_no_preload": round(without.rate(tier="near"), 4),
    }
