"""From a daily budget to a moving price of the cloud: a closed loop without a cliff at the day's end.

The best use of a day's money is one price all day long: whatever gains more than its price is bought. The loop therefore plans the rest
of the day again and again: so much gain is still to be had (by the hours of earlier days and by how much there was lately), so it is spread
(by the turns seen lately), so much money is left; the price is the one at which they would spend just that. What was planned wrongly is
thereby put right by the turns that follow. The plan looks an hour into tomorrow, so the last minutes neither burn nor starve.
Hours are counted by gain rather than by turns: an evening of homework costs more than a morning of commands.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from itertools import accumulate

import msgspec

from coordinator.routing.policy import PoolTerms

HOURS = 24
DAY_S = 86_400
BINS = 250
"""Of gains from 0 to 1; a turn without gain is never bought and falls into none."""
MEMORY_TURNS = 5000
"""Turns after which one counts a third in what gains are expected: some hours of a full node. A guess."""
PLAN_TURNS = 32
"""A new plan after so many turns, or the time below."""
PLAN_S = 20.0
LEARNING = 0.3
"""Weight of the day that ended in the hours and the gain expected. A guess."""
TRUST = 0.02
"""How much of a day must have been seen lately before it counts as much as earlier days. A guess."""
LATELY_S = 7200.0
"""After which a turn counts a third in how today compares. A guess between noise and a surge heard of too late."""
FIRST_SHARE = 0.3
"""Of turns sent, from which the first day's turns are guessed: what the threshold 0.7 would send."""
QUIET_NIGHT = (
    *(0.6, 0.3, 0.2, 0.15, 0.15, 0.3, 1.2, 3.0, 4.0, 4.0, 4.0, 4.5),
    *(5.0, 4.5, 4.0, 4.0, 4.5, 5.5, 7.0, 8.5, 9.0, 8.5, 5.5, 2.5),
)
"""Gain in each hour before any day was seen: a quiet night and an evening peak. A guess."""

_LEAST_HOUR = 1e-4
_PRIOR_TURNS = 200.0
"""Weight of the expected gains a loop begins with, in turns. A guess."""
_PAID_PRIOR = 50.0
_PAID_MEMORY = 2000.0
_PAID_LIMITS = (0.05, 3.0)
_STEPS = 18


class BudgetState(msgspec.Struct, kw_only=True):
    """What a loop must remember over a restart; a few kilobytes of JSON."""

    day: int = -1
    """Days since 1970 by the budget's midnight; -1 before the first turn."""
    begun: float = 0.0
    """Share of the day's gain that had passed when the first day began; 0 on later days."""
    spent: float = 0.0
    """Today, in the unit of the budget."""
    price: float = 0.0
    """Gain that one unit of money must bring."""
    seen: list[float] = []
    """Gain that the cloud could have brought in each hour of today."""
    hours: list[float] = []
    """Share of a day's gain expected in each hour."""
    offered: float = 0.0
    """Gain expected in a day, 0 when unknown."""
    at_s: float = 0.0
    """Second of the day up to which the next two go."""
    came: float = 0.0
    """Gain lately, older turns counting less."""
    due: float = 0.0
    """Share of a day's gain expected in the same time, counted likewise."""
    gains: list[float] = []
    """Weights of the turns lately, by gain; the last one is of turns without."""
    bought: float = 0.0
    """Money lately decided to be spent."""
    paid: float = 0.0
    """What of it was really spent."""


class BudgetLoop:
    """The moving price of one node's budget; ``now`` is seconds since 1970. Not thread-safe."""

    def __init__(
        self,
        budget: float,
        pools: Sequence[PoolTerms],
        *,
        utc_offset_h: float = 0.0,
        expected: Sequence[float] = (),
        state: BudgetState | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Begin or go on; ``budget`` is above 0, ``expected`` the shares of ``BINS`` gains and, last, of none at all."""
        self._budget = budget
        self._steps = price_steps(pools)
        self._cheapest = min(pool.price for pool in pools)
        self._dearest = self._steps[0][0] * (1 + 1e-6)
        self._offset_s = utc_offset_h * 3600
        self._now = now
        self._state = _complete(state or BudgetState(), expected)
        self._increment = 1.0
        self._since_plan = 0
        self._planned_s = -PLAN_S

    @property
    def price(self) -> float:
        """Gain that one unit of money must bring now."""
        return self._state.price

    @property
    def spent(self) -> float:
        """Money spent since midnight."""
        self._turn_day()
        return self._state.spent

    @property
    def state(self) -> BudgetState:
        """What to keep for a restart; a copy."""
        state = self._state
        gains = [round(weight / self._increment, 3) for weight in state.gains]
        return msgspec.structs.replace(state, gains=gains, seen=list(state.seen), hours=list(state.hours))

    def observe(self, gain: float) -> None:
        """Count a turn that may be sent, with what the cloud would gain on it; plan anew when it is time."""
        self._turn_day()
        state, now_s = self._state, self._now()
        self._increment *= 1 + 1 / MEMORY_TURNS
        if self._increment > 1e6:  # noqa: PLR2004 - long before floats lose digits
            state.gains[:] = [weight / self._increment for weight in state.gains]
            self._increment = 1.0
        state.gains[min(int(gain * BINS), BINS - 1) if gain > 0 else BINS] += self._increment
        state.seen[int(self._second_of_day() // 3600)] += max(gain, 0.0)
        state.came += max(gain, 0.0)
        self._since_plan += 1
        if self._since_plan >= PLAN_TURNS or not 0 <= now_s - self._planned_s < PLAN_S:
            self._plan()

    def buy(self, price: float) -> None:
        """Count a turn that was sent at this price; whether it is paid for is heard later."""
        self._state.bought += price

    def charge(self, price: float) -> None:
        """Count money really spent."""
        self._turn_day()
        state = self._state
        state.spent += price
        state.paid += price
        if state.bought > _PAID_MEMORY * self._cheapest:
            state.bought, state.paid = state.bought / 2, state.paid / 2

    def _plan(self) -> None:
        self._since_plan, self._planned_s = 0, self._now()
        state = self._state
        passed = self._catch_up()
        turns, offer = sum(state.gains), _offer(state.gains)
        usual = state.offered or self._budget / (FIRST_SHARE * self._cheapest) * offer / turns
        weight = TRUST * usual if state.offered else min(TRUST * usual, 50 * offer / turns)
        busy = (state.came + weight) / (state.due * usual + weight)
        to_come = usual * (busy * (1 - passed) + state.hours[0])
        left = self._budget * (1 - state.begun + state.hours[0]) - state.spent
        prior = _PAID_PRIOR * self._cheapest
        paid = min(max((state.paid + prior) / (state.bought + prior), _PAID_LIMITS[0]), _PAID_LIMITS[1])
        state.price = self._price_for(left / paid * offer / max(to_come, 1e-9))

    def _catch_up(self) -> float:
        """Let what came and what was due fade up to now; return the share of the day's gain that should have come by now."""
        state, second = self._state, self._second_of_day()
        passed = _passed(state.hours, second)
        fading = math.exp(-max(second - state.at_s, 0.0) / LATELY_S)
        state.came *= fading
        state.due = (state.due + max(passed - _passed(state.hours, state.at_s), 0.0)) * fading
        state.at_s = second
        return passed

    def _price_for(self, wanted: float) -> float:
        """Return the least price at which the turns seen lately would not have spent more than ``wanted``."""
        if wanted <= 0:
            return self._dearest
        above = [*accumulate(reversed(self._state.gains[:BINS]), initial=0.0)][::-1]
        low, high = 0.0, self._dearest
        for _ in range(_STEPS):
            middle = (low + high) / 2
            low, high = (middle, high) if self._spend(middle, above) > wanted else (low, middle)
        return high if low else 0.0

    def _spend(self, price: float, above: Sequence[float]) -> float:
        """Return the money spent at this price on turns of which so many lie ``above`` each bin's lower end."""
        total = 0.0
        for ratio, extra in self._steps:
            at = price / ratio * BINS
            if at < BINS:
                lower = int(at)
                total += extra * (above[lower] + (at - lower) * (above[lower + 1] - above[lower]))
        return total

    def _turn_day(self) -> None:
        """Begin a new day at midnight; a clock that goes back begins none."""
        day = int((self._now() + self._offset_s) // DAY_S)
        state = self._state
        if day <= state.day:
            return
        if state.day < 0:
            state.begun = _passed(state.hours, self._second_of_day())
            state.at_s = self._second_of_day()
        else:
            _learn(state)
            state.begun, state.spent, state.seen = 0.0, 0.0, [0.0] * HOURS
            state.at_s = 0.0
        state.day = day
        self._since_plan = PLAN_TURNS

    def _second_of_day(self) -> float:
        return (self._now() + self._offset_s) % DAY_S


class ShareLoop:
    """The threshold that makes so many of all turns cloud answers, moved by each turn and each answer paid for."""

    STEP = 0.002
    """Some 500 turns until a wrong threshold is right again, and it then wavers by about 0.015. A guess between the two."""

    def __init__(self, share: float, threshold: float | None = None) -> None:
        """Begin where a calibrated score would send this share; ``share`` is above 0."""
        self._share = share
        self.threshold = 1 - share if threshold is None else threshold
        """In [0, 1]."""

    def observe(self) -> None:
        """Count a turn during which the cloud could be asked."""
        self.threshold = max(self.threshold - self.STEP * self._share, 0.0)

    def charge(self) -> None:
        """Count a cloud answer."""
        self.threshold = min(self.threshold + self.STEP, 1.0)


def price_steps(pools: Sequence[PoolTerms]) -> list[tuple[float, float]]:
    """Return, falling, each ratio of price to gain below which a dearer pool is the best choice, and how much dearer it is."""
    steps: list[tuple[float, float]] = []
    price, strength = 0.0, 0.0
    while dearer := [pool for pool in pools if pool.price > price and pool.strength > strength]:
        best = max(dearer, key=lambda pool: ((pool.strength - strength) / (pool.price - price), pool.price))
        steps.append(((best.strength - strength) / (best.price - price), best.price - price))
        price, strength = best.price, best.strength
    return steps


def _complete(state: BudgetState, expected: Sequence[float]) -> BudgetState:
    """Return a state of one's own whose lists have the lengths that are needed; what does not fit begins anew."""
    gains = list(state.gains)
    if len(gains) != BINS + 1 or sum(gains) <= 0:
        shares = list(expected) if len(expected) == BINS + 1 else [1.0] * (BINS + 1)
        gains = [_PRIOR_TURNS * share / sum(shares) for share in shares]
    return msgspec.structs.replace(
        state,
        seen=list(state.seen) if len(state.seen) == HOURS else [0.0] * HOURS,
        hours=_shares(state.hours if len(state.hours) == HOURS else QUIET_NIGHT),
        gains=gains,
    )


def _offer(gains: Sequence[float]) -> float:
    """Return the gain of all turns counted, at least a little."""
    return sum(weight * (index + 0.5) for index, weight in enumerate(gains[:BINS])) / BINS + 1e-6


def _shares(hours: Sequence[float]) -> list[float]:
    floored = [max(hour, _LEAST_HOUR * sum(hours)) for hour in hours]
    return [hour / sum(floored) for hour in floored]


def _passed(hours: Sequence[float], second: float) -> float:
    """Return the share of a day's gain that comes before this second of it."""
    hour, rest = divmod(second / 3600, 1)
    return sum(hours[: int(hour)]) + rest * hours[min(int(hour), HOURS - 1)]


def _learn(state: BudgetState) -> None:
    """Take what was seen of the day that ended into what is expected of the next."""
    total = sum(state.seen)
    if not total:
        return
    whole = total / max(1 - state.begun, 0.05)
    if not state.begun:
        weight = LEARNING if state.offered else 1 - LEARNING
        state.hours = _shares(
            [(1 - weight) * hour + weight * seen / total for hour, seen in zip(state.hours, state.seen, strict=True)]
        )
    state.offered = (1 - LEARNING) * state.offered + LEARNING * whole if state.offered else whole
