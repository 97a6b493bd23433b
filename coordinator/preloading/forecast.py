"""What each group will ask for in the next hour, from what it asked at this hour on earlier days and lately, and what all groups ask; pure.

A group's asks are taken to come by chance at a rate of their own for each content: its share of the group's asks times the asks of such an
hour. A share seen seldom leans on a wider one: this hour's on the day's, the group's on all groups', until it has evidence of its own.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from coordinator.preloading.usage import HOURS, GroupUsage, Usage

GROUP_PRIOR_ASKS = 300.0
"""Asks of all groups that a group's own habits are weighed against. A guess, as are the next three."""
HOUR_PRIOR_ASKS = 300.0
"""Asks of the whole day that an hour's own habits are weighed against."""
RECENT_PRIOR_ASKS = 2.0
"""Asks as expected that those of the last hours are weighed against, per content."""
BUSY_PRIOR_ASKS = 20.0
"""Asks as expected that those of the last hours are weighed against, for a group as a whole."""
UNSURE_ASKS = 2.0
"""How far a rate may be from the forecast one: the shape of a gamma spread around it grows by one with each ask it stands on."""
QUIET_ASKS = 0.3
"""Fewer faded asks: nobody asked for three hours."""
HABIT_TRUST = 0.5
"""Of contents nobody had that were forecast above 0.8, half came true when they were quiet, nine of ten when they were not: topics die
(simulated days of ten seeds, not those of the published figures)."""
BINS = 10
BIN_PRIOR = 50.0
"""Forecasts that a bin's past must outweigh before it corrects as much as it leaves."""

Floats = npt.NDArray[np.float64]


class GroupForecast:
    """One group's next hour: for each content of the usage, in its order."""

    def __init__(self, expected: Floats, evidence: Floats, calibration: Calibration | None = None) -> None:
        self.expected = expected
        """Asks, 0 or more."""
        self._evidence = evidence
        self._calibration = calibration

    def probability(self, share: float = 1.0) -> Floats:
        """Return P(asked at least once, by those who make ``share`` of the group's asks), 0 to 1."""
        raw = self.raw(share)
        return raw if self._calibration is None else self._calibration.corrected(raw)

    def raw(self, share: float = 1.0) -> Floats:
        """Return the same before it is corrected: what a Calibration learns from."""
        return probability_of(self.expected * share, self._evidence)


class Calibration:
    """Corrects probabilities by how often what was given such a one came true; forgets slowly."""

    def __init__(self, fades: float = 0.98) -> None:
        """``fades`` is what earlier outcomes weigh at each ``learn``, 0 to 1."""
        self._fades = fades
        self._counts = np.zeros(BINS)
        self._given = np.zeros(BINS)
        self._true = np.zeros(BINS)

    def learn(self, given: Floats, came_true: npt.NDArray[np.bool_]) -> None:
        """Take over forecasts as ``probability_of`` gives them, each with its outcome."""
        bins = np.minimum((given * BINS).astype(np.intp), BINS - 1)
        for past, values in ((self._counts, np.ones_like(given)), (self._given, given), (self._true, came_true)):
            past[:] = past * self._fades + np.bincount(bins, weights=values, minlength=BINS)

    def corrected(self, given: Floats) -> Floats:
        """Return the probabilities as experience has them: 0 to 1, in the same order; unchanged without any."""
        middles = (np.arange(BINS) + 0.5) / BINS
        at = np.where(self._counts > 0, self._given / np.maximum(self._counts, 1e-9), middles)
        to = np.maximum.accumulate((self._true + BIN_PRIOR * at) / (self._counts + BIN_PRIOR))
        corrected: Floats = np.clip(np.interp(given, [0.0, *at, 1.0], [0.0, *to, max(1.0, float(to[-1]))]), 0.0, 1.0)
        return corrected


def forecast(usage: Usage, hour: int, calibrations: dict[str, Calibration] | None = None) -> dict[str, GroupForecast]:
    """Return what each group will ask for in ``hour``, the one after those reported; ``calibrations`` are by group."""
    held = len(usage.contents)
    totals = {name: group.by_hour[:held].sum(axis=1, dtype=np.float64) for name, group in usage.groups.items()}
    everybody = sum(totals.values(), np.zeros(held))
    wide = everybody / max(everybody.sum(), 1.0)
    trend = _trend(recent_of(usage), wide)
    known = calibrations or {}
    return {
        name: _of_group(group, held, hour, totals[name], wide, trend, known.get(name))
        for name, group in usage.groups.items()
    }


def recent_of(usage: Usage) -> Floats:
    """Return the asks of all groups in the last hours, faded, by content."""
    held = len(usage.contents)
    return sum((group.recent[:held].astype(np.float64) for group in usage.groups.values()), np.zeros(held))


def trusted(probability: Floats, recent: Floats) -> Floats:
    """Return probabilities to make something by: those that habit alone speaks for count ``HABIT_TRUST`` of what they say."""
    return np.where(recent < QUIET_ASKS, HABIT_TRUST * probability, probability)


def probability_of(expected: Floats, evidence: Floats) -> Floats:
    """Return P(at least one ask) when the rate is as likely above ``expected`` as ``evidence`` asks allow."""
    shape = UNSURE_ASKS + evidence
    never: Floats = np.power(1.0 + expected / shape, -shape)
    return 1.0 - never


def _of_group(
    group: GroupUsage, held: int, hour: int, total: Floats, wide: Floats, trend: Floats, calibration: Calibration | None
) -> GroupForecast:
    share = (total + GROUP_PRIOR_ASKS * wide) / (total.sum() + GROUP_PRIOR_ASKS)
    around = [(hour + off) % HOURS for off in (-1, 0, 1)]
    near = group.by_hour[:held, around].sum(axis=1, dtype=np.float64)
    now = (near + HOUR_PRIOR_ASKS * share) / (near.sum() + HOUR_PRIOR_ASKS)
    recent = group.recent[:held].astype(np.float64)
    own = _trend(recent, share * trend)
    now = now * trend * own
    return GroupForecast(_asks(group, held, hour) * now / max(now.sum(), 1.0), total + recent, calibration)


def _trend(recent: Floats, share: Floats) -> Floats:
    """Return by how much more each content is asked lately than its share says."""
    trend: Floats = (recent + RECENT_PRIOR_ASKS) / (share * recent.sum() + RECENT_PRIOR_ASKS)
    return trend


def _asks(group: GroupUsage, held: int, hour: int) -> float:
    """Return how much the group will ask in all: as at this hour on other days, more when the last hours were busier than theirs."""
    sums = group.by_hour[:held].sum(axis=0, dtype=np.float64)
    weights = group.weights.astype(np.float64)
    seen = weights > 0
    mean = float(sums[seen].sum() / max(weights[seen].sum(), 1e-9))
    usual = np.where(seen, sums / np.maximum(weights, 1e-9), mean)
    before = usual[[(hour - back) % HOURS for back in (1, 2, 3)]] @ np.array([1.0, 0.7, 0.49])
    lately = float(group.recent[:held].sum(dtype=np.float64))
    busier = (lately + BUSY_PRIOR_ASKS) / (float(before) / 0.66 + BUSY_PRIOR_ASKS)
    return float(usual[hour % HOURS]) * float(np.clip(busier, 0.5, 2.0))
