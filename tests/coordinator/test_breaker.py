from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.breaker import Breaker, Outcome, State


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def breaker(clock: Clock, seed: int = 1) -> Breaker:
    return Breaker(now=clock, dice=random.Random(seed))


def call(of: Breaker, outcome: Outcome) -> None:
    begun = of.begin()
    assert begun is not None
    begun.ended(outcome)


def opened(clock: Clock, outcome: Outcome = Outcome.BAD) -> Breaker:
    made = breaker(clock)
    for _ in range(5):
        call(made, outcome)
    return made


def closed_for_s(of: Breaker, clock: Clock) -> float:
    """Return how long it stays open, to 10 ms, and leave it half-open."""
    began_s = clock.now_s
    while of.state is State.OPEN:
        assert not of.takes_calls
        assert of.begin() is None
        clock.now_s += 0.01
    return clock.now_s - began_s


def test_the_fifth_failure_in_a_row_opens_it() -> None:
    clock = Clock()
    made = breaker(clock)
    for count in range(1, 5):
        call(made, Outcome.BAD)
        assert (made.state, made.failures_in_row) == (State.CLOSED, count)
    call(made, Outcome.BAD)
    assert (made.state, made.opened) == (State.OPEN, 1)


def test_an_answer_in_between_begins_the_count_anew_and_a_barge_in_does_not() -> None:
    made = breaker(Clock())
    for _ in range(4):
        call(made, Outcome.BAD)
    call(made, Outcome.GOOD)
    for outcome in (Outcome.BAD, Outcome.NEITHER) * 4:
        call(made, outcome)
    assert made.state is State.CLOSED
    call(made, Outcome.BAD)
    assert made.state is State.OPEN


def test_half_open_lets_one_call_through() -> None:
    clock = Clock()
    made = opened(clock)
    assert closed_for_s(made, clock) == pytest.approx(1.0, rel=0.2, abs=0.011)
    assert made.state is State.HALF_OPEN
    probe = made.begin()
    assert probe is not None
    assert probe.is_probe
    assert not made.takes_calls
    assert made.begin() is None
    probe.ended(Outcome.GOOD)
    assert (made.state, made.failures_in_row, made.opened) == (State.CLOSED, 0, 1)


def test_a_probe_that_nobody_waited_for_leaves_room_for_the_next() -> None:
    clock = Clock()
    made = opened(clock)
    closed_for_s(made, clock)
    call(made, Outcome.NEITHER)
    assert made.state is State.HALF_OPEN
    call(made, Outcome.GOOD)
    assert made.state is State.CLOSED


def test_each_probe_that_fails_doubles_the_time_up_to_a_limit_with_jitter() -> None:
    clock = Clock()
    made = opened(clock)
    times = [closed_for_s(made, clock)]
    for _ in range(8):
        call(made, Outcome.BAD)
        times.append(closed_for_s(made, clock))
    for open_s, expected_s in zip(times, (1, 2, 4, 8, 16, 30, 30, 30, 30), strict=True):
        assert 0.8 * expected_s - 0.011 <= open_s <= 1.2 * expected_s + 0.011
    assert len({round(open_s, 1) for open_s in times[-4:]}) > 1, "edges do not come back at once"
    call(made, Outcome.GOOD)
    for _ in range(5):
        call(made, Outcome.BAD)
    assert closed_for_s(made, clock) <= 1.22, "it begins with the shortest time again"
    assert made.opened == 2


def test_a_full_pool_is_left_alone_for_the_shortest_time_only() -> None:
    clock = Clock()
    made = opened(clock, Outcome.FULL)
    for _ in range(6):
        assert closed_for_s(made, clock) <= 1.22
        call(made, Outcome.FULL)
    assert made.state is State.OPEN


def test_outcomes_of_calls_begun_before_it_changed_say_nothing() -> None:
    clock = Clock()
    made = breaker(clock)
    late = [made.begin() for _ in range(3)]
    for _ in range(5):
        call(made, Outcome.BAD)
    for begun, outcome in zip(late, (Outcome.GOOD, Outcome.BAD, Outcome.NEITHER), strict=True):
        assert begun is not None
        begun.ended(outcome)
        assert made.state is State.OPEN
    assert closed_for_s(made, clock) <= 1.22


def test_only_the_first_outcome_of_a_call_counts() -> None:
    made = breaker(Clock())
    begun = made.begin()
    assert begun is not None
    begun.ended(Outcome.BAD)
    for _ in range(9):
        begun.ended(Outcome.BAD)
    assert made.failures_in_row == 1


@given(st.lists(st.tuples(st.sampled_from(list(Outcome)), st.integers(0, 40)), max_size=200))
def test_whatever_comes_it_asks_again_within_its_longest_time(steps: list[tuple[Outcome, int]]) -> None:
    clock = Clock()
    made = breaker(clock)
    for outcome, pause_s in steps:
        if (begun := made.begin()) is not None:
            begun.ended(outcome)
        clock.now_s += pause_s
    clock.now_s += 36.1
    assert made.takes_calls
