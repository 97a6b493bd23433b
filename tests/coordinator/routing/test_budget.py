from __future__ import annotations

from collections.abc import Iterable

import msgspec
import numpy as np
import pytest

from coordinator.routing.budget import BINS, DAY_S, HOURS, BudgetLoop, BudgetState, ShareLoop, price_steps
from coordinator.routing.policy import PoolTerms

ONE = (PoolTerms(name="a"),)
TWO = (PoolTerms(name="a", price=1.0, strength=0.8), PoolTerms(name="b", price=4.0, strength=1.0))


class Clock:
    def __init__(self) -> None:
        self.at_s = 0.0

    def __call__(self) -> float:
        return self.at_s


def turns_of(day: int, *, count: int = 3000, seed: int = 0) -> Iterable[tuple[float, float]]:
    """Yield times and gains: nothing at night, twice as much in the evening."""
    rng = np.random.default_rng((seed, day))
    seconds = np.sort(np.concatenate([rng.uniform(8, 18, count // 2), rng.uniform(18, 23, count - count // 2)]) * 3600)
    yield from zip((day * DAY_S + seconds).tolist(), rng.beta(1, 4, count).tolist(), strict=True)


def play(loop: BudgetLoop, clock: Clock, turns: Iterable[tuple[float, float]], *, paid: float = 1.0) -> float:
    """Buy what is worth its price; return the gain. Of each purchase ``paid`` is charged."""
    gained = 0.0
    for at_s, gain in turns:
        clock.at_s = at_s
        loop.observe(gain)
        if gain > loop.price:
            loop.buy(1.0)
            loop.charge(paid)
            gained += gain
    return gained


@pytest.mark.parametrize("paid", [1.0, 0.5, 0.8])
def test_days_are_paid_for_within_two_percent_even_when_some_purchases_are_free(paid: float) -> None:
    clock = Clock()
    loop = BudgetLoop(600.0, ONE, now=clock)
    errors = []
    for day in range(5):
        play(loop, clock, turns_of(day), paid=paid)
        errors.append(loop.spent / 600 - 1)
    assert max(map(abs, errors[1:])) <= 0.02
    assert abs(errors[0]) <= 0.1  # the first day is planned by hours that were guessed


def test_what_is_bought_is_nearly_the_best_there_was() -> None:
    clock = Clock()
    loop = BudgetLoop(600.0, ONE, now=clock)
    for day in range(4):
        gained = play(loop, clock, turns_of(day))
    best = sum(sorted((gain for _, gain in turns_of(3)), reverse=True)[:600])
    assert gained >= 0.95 * best


def test_money_is_left_for_the_end_of_a_busy_day() -> None:
    clock = Clock()
    loop = BudgetLoop(600.0, ONE, now=clock)
    for day in range(3):
        play(loop, clock, turns_of(day))
    spent_by_ten = 0.0
    for at_s, gain in turns_of(3, count=6000):
        play(loop, clock, [(at_s, gain)])
        if at_s % DAY_S < 22 * 3600:
            spent_by_ten = loop.spent
    assert loop.spent - spent_by_ten > 15
    assert loop.spent <= 612


def test_a_day_with_too_little_to_buy_costs_nothing_more() -> None:
    clock = Clock()
    loop = BudgetLoop(600.0, ONE, now=clock)
    play(loop, clock, turns_of(0))
    play(loop, clock, turns_of(1, count=200))
    assert loop.price == 0.0
    assert loop.spent <= 200


def test_a_restart_forgets_nothing() -> None:
    clock, loops = Clock(), []
    straight = BudgetLoop(600.0, ONE, now=clock)
    day = list(turns_of(0))
    play(straight, clock, day[:1500])
    kept = msgspec.json.decode(msgspec.json.encode(straight.state), type=BudgetState)
    resumed = BudgetLoop(600.0, ONE, state=kept, now=clock)
    for loop in (straight, resumed):
        play(loop, clock, day[1500:])
        loops.append((loop.spent, loop.price))
    assert loops[0][0] == pytest.approx(loops[1][0], abs=6)
    assert loops[0][1] == pytest.approx(loops[1][1], abs=0.02)


def test_the_state_is_a_copy() -> None:
    loop = BudgetLoop(10.0, ONE, now=Clock())
    kept = loop.state
    loop.observe(0.5)
    loop.charge(1.0)
    assert kept == msgspec.structs.replace(BudgetLoop(10.0, ONE, now=Clock()).state)


def test_a_node_that_begins_in_the_evening_gets_the_evenings_money() -> None:
    clock = Clock()
    loop = BudgetLoop(600.0, ONE, now=clock)
    evening = [(at_s, gain) for at_s, gain in turns_of(0) if at_s >= 20 * 3600]
    play(loop, clock, evening)
    assert 100 < loop.spent < 300


def test_midnight_is_where_the_policy_says() -> None:
    clock = Clock()
    loop = BudgetLoop(600.0, ONE, utc_offset_h=8, now=clock)
    clock.at_s = 15.9 * 3600
    loop.charge(5.0)
    assert loop.spent == 5.0
    clock.at_s = 16.1 * 3600
    assert loop.spent == 0.0


def test_a_clock_that_goes_back_begins_no_new_day() -> None:
    clock = Clock()
    loop = BudgetLoop(600.0, ONE, now=clock)
    clock.at_s = 5 * DAY_S
    loop.charge(5.0)
    clock.at_s = 3 * DAY_S
    loop.observe(0.5)
    assert loop.spent == 5.0


def test_with_the_money_gone_nothing_is_worth_its_price() -> None:
    loop = BudgetLoop(10.0, TWO, now=Clock())
    loop.charge(1000.0)
    loop.observe(0.5)
    assert max(pool.strength - loop.price * pool.price for pool in TWO) < 0


def test_expected_gains_set_the_first_price() -> None:
    def first_price(expected: list[float]) -> float:
        loop = BudgetLoop(600.0, ONE, expected=expected, now=Clock())
        loop.observe(-1.0)
        return loop.price

    low = [1.0] * 50 + [0.0] * (BINS - 49)
    high = [0.0] * 150 + [1.0] * 50 + [0.0] * (BINS - 199)
    assert first_price(low) < 0.2
    assert first_price(high) > 0.6


def test_a_state_that_does_not_fit_begins_anew() -> None:
    loop = BudgetLoop(10.0, ONE, state=BudgetState(spent=3.0, day=0, gains=[1.0], hours=[1.0], seen=[2.0]), now=Clock())
    assert loop.spent == 3.0
    assert (len(loop.state.gains), len(loop.state.hours), len(loop.state.seen)) == (BINS + 1, HOURS, HOURS)


@pytest.mark.parametrize(
    ("pools", "steps"),
    [
        (ONE, [(1.0, 1.0)]),
        (TWO, [(0.8, 1.0), (pytest.approx(0.2 / 3), 3.0)]),
        ((PoolTerms(name="weak", price=4.0, strength=0.5), PoolTerms(name="a")), [(1.0, 1.0)]),
        ((PoolTerms(name="bad", price=2.0, strength=0.3), PoolTerms(name="b", price=4.0, strength=1.0)), [(0.25, 4.0)]),
    ],
)
def test_steps_are_those_of_the_pools_worth_asking(
    pools: tuple[PoolTerms, ...], steps: list[tuple[float, float]]
) -> None:
    assert price_steps(pools) == steps


def test_a_share_is_met_whatever_the_scores_are_like() -> None:
    rng, loop = np.random.default_rng(2), ShareLoop(0.2)
    sent = 0
    for number, score in enumerate(rng.beta(5, 2, 20_000)):
        loop.observe()
        if score >= loop.threshold:
            loop.charge()
            sent += number >= 5000
    assert sent / 15_000 == pytest.approx(0.2, abs=0.01)


def test_a_threshold_stays_within_bounds() -> None:
    loop = ShareLoop(0.5)
    for _ in range(10_000):
        loop.observe()
    assert loop.threshold == 0.0
    for _ in range(10_000):
        loop.charge()
    assert loop.threshold == 1.0
