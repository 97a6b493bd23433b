"""What a fleet asks for in some simulated days: Zipf, a daily rhythm, regions with tastes of their own, and new things every day; seeded."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

HOURS = 24
HOUR_S = 3600.0
RHYTHM = (1, 1, 1, 1, 1, 3, 12, 22, 16, 10, 9, 10, 14, 12, 9, 9, 12, 18, 26, 30, 28, 20, 10, 4)
"""Asks by hour of the day, relative: nights hardly any, peaks before school and after supper. A guess, as all of this is; no log of a fleet is public."""
SHARED = 0.7
"""Share of a region's asks that follow the popularity all have in common; the rest follow its own order of the same contents."""
BOUND_TO_HOURS = 0.2
"""Share of contents asked MORE as often in five hours of the day and LESS in the others: recipes, songs for the night."""
MORE, LESS = 4.0, 0.4
REACH = 2
"""Hours before and after the middle one of the five."""
HOT_NEW = 0.05
"""Share of the new contents that enter among the HOT most asked ones: what is talked about."""
HOT = 100
ANSWER_BYTES, ANSWER_SPREAD = 300.0, 0.5
"""Mean, and the sigma of its logarithm."""
SPEECH_BYTES, SPEECH_SPREAD = 24_000.0, 0.6
"""Six seconds of Opus at 32 kbit/s, from one to thirty."""

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]


class Fleet(msgspec.Struct, frozen=True, kw_only=True):
    """Who asks, how often, and for what."""

    intents: int = 10_000
    alpha: float = 1.0
    groups: int = 5
    edges: int = 20
    devices: int = 50
    """At each edge."""
    asks: float = 40.0
    """Of a device and day. A guess: a toy or a loudspeaker in a family, two or three talks a day."""
    cacheable: float = 0.45
    """Share of them that depends on nothing but the words. A guess; the others are never looked up."""
    new: float = 0.02
    """Share of the intents that others take the place of, each day."""
    days: int = 9
    """The last one is measured."""


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """Lookups in the order of time: ``at_s`` from midnight of the first day, ``edge`` and ``content`` as numbers."""

    fleet: Fleet
    at_s: Floats
    edge: Ints
    content: Ints
    born_s: Floats
    """When each content came up; 0 for those of the beginning."""
    answer_bytes: Ints
    speech_bytes: Ints


def traffic_of(fleet: Fleet, seed: int) -> Traffic:
    """Return the days' lookups; the same for the same fleet and seed."""
    dice = np.random.default_rng(seed)
    zipf = np.arange(1, fleet.intents + 1) ** -fleet.alpha
    zipf /= zipf.sum()
    tastes = [SHARED * zipf + (1 - SHARED) * zipf[dice.permutation(fleet.intents)] for _ in range(fleet.groups)]
    by_hour = _habits(fleet, dice)
    current = np.arange(fleet.intents)
    born = [np.zeros(fleet.intents)]
    parts: list[tuple[Floats, Ints, Ints]] = []
    known = fleet.intents
    for day in range(fleet.days):
        slots = _replaced(fleet, dice)
        since = np.full(fleet.intents, np.inf)
        since[slots] = np.sort(day * HOURS * HOUR_S + dice.uniform(0, HOURS * HOUR_S, len(slots)))
        after = current.copy()
        after[slots] = known + np.arange(len(slots))
        born.append(since[slots])
        known += len(slots)
        for hour in range(HOURS):
            for group, taste in enumerate(tastes):
                at_s, edge, slot = _hour(fleet, dice, day * HOURS + hour, group, taste * by_hour[:, hour])
                parts.append((at_s, edge, np.where(at_s >= since[slot], after[slot], current[slot])))
        current = after
    at_s, edge, content = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(at_s, kind="stable")
    return Traffic(
        fleet=fleet,
        at_s=at_s[order],
        edge=edge[order],
        content=content[order],
        born_s=np.concatenate(born),
        answer_bytes=_sizes(dice, known, ANSWER_BYTES, ANSWER_SPREAD, 20),
        speech_bytes=_sizes(dice, known, SPEECH_BYTES, SPEECH_SPREAD, 1000),
    )


def _hour(fleet: Fleet, dice: np.random.Generator, hour: int, group: int, weights: Floats) -> tuple[Floats, Ints, Ints]:
    """Return time, edge and slot of one group's lookups in one hour."""
    edges = np.arange(group, fleet.edges, fleet.groups)
    mean = len(edges) * fleet.devices * fleet.asks * fleet.cacheable * RHYTHM[hour % HOURS] / sum(RHYTHM)
    count = int(dice.poisson(mean))
    summed = np.cumsum(weights)
    slot = np.searchsorted(summed, dice.uniform(0, summed[-1], count), side="right").clip(max=fleet.intents - 1)
    return (hour + dice.uniform(0, 1, count)) * HOUR_S, dice.choice(edges, count), slot


def _habits(fleet: Fleet, dice: np.random.Generator) -> Floats:
    """Return (intents, 24): by what each one's popularity is multiplied at each hour; busy hours weigh the same on the whole."""
    habits = np.ones((fleet.intents, HOURS))
    bound = dice.random(fleet.intents) < BOUND_TO_HOURS
    middle = dice.integers(6, HOURS, fleet.intents)
    apart = np.abs((np.arange(HOURS) - middle[:, None] + 12) % HOURS - 12)
    habits[bound] = np.where(apart[bound] <= REACH, MORE, LESS)
    rhythm = np.array(RHYTHM) / sum(RHYTHM)
    return np.asarray(habits / (habits @ rhythm)[:, None])


def _replaced(fleet: Fleet, dice: np.random.Generator) -> Ints:
    count = round(fleet.intents * fleet.new)
    hot = dice.choice(min(HOT, fleet.intents), round(count * HOT_NEW), replace=False)
    slots = np.concatenate([hot, dice.choice(fleet.intents, count - len(hot), replace=False)])
    return np.asarray(dice.permutation(np.unique(slots)))


def _sizes(dice: np.random.Generator, count: int, mean: float, spread: float, step: int) -> Ints:
    """Return lognormal sizes in bytes, rounded up to ``step``, so that values may be shared."""
    sizes: Any = dice.lognormal(np.log(mean) - spread**2 / 2, spread, count)
    return np.asarray(np.ceil(sizes / step) * step, np.int64)
