from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.ejection import (
    EJECT_S,
    FAILURES,
    FORGET_S,
    MAX_EJECT_S,
    MAX_EJECTED_SHARE,
    Standing,
    failed,
    may_eject,
    succeeded,
)


def after_failures(count: int, standing: Standing | None = None, now_s: float = 0.0) -> Standing:
    standing = standing or Standing()
    for _ in range(count):
        standing = failed(standing, now_s, ejected=0, size=10)
    return standing


def test_five_failures_in_a_row_eject() -> None:
    assert not after_failures(FAILURES - 1).is_ejected(0.0)
    ejected = after_failures(FAILURES)
    assert ejected.is_ejected(0.0)
    assert ejected.is_ejected(EJECT_S - 0.01)
    assert not ejected.is_ejected(EJECT_S)


def test_a_success_between_begins_the_count_anew() -> None:
    standing = succeeded(after_failures(FAILURES - 1), 1.0)
    assert not after_failures(FAILURES - 1, standing, 2.0).is_ejected(2.0)


def test_one_failure_after_coming_back_ejects_for_twice_as_long_up_to_a_limit() -> None:
    standing, now_s, lasted = after_failures(FAILURES), 0.0, []
    for _ in range(9):
        lasted.append(standing.until_s - now_s)
        now_s = standing.until_s
        standing = failed(standing, now_s, ejected=0, size=10)
    assert lasted == [2.0, 4.0, 8.0, 16.0, 32.0, 64.0, MAX_EJECT_S, MAX_EJECT_S, MAX_EJECT_S]


def test_a_success_after_coming_back_needs_five_failures_again_but_keeps_the_doubled_time() -> None:
    back_s = after_failures(FAILURES).until_s
    good = succeeded(after_failures(FAILURES), back_s)
    assert not after_failures(FAILURES - 1, good, back_s).is_ejected(back_s)
    assert after_failures(FAILURES, good, back_s).until_s == back_s + 2 * EJECT_S


@pytest.mark.parametrize("with_success", [True, False])
def test_good_behaviour_for_a_minute_is_forgotten(with_success: bool) -> None:
    standing = after_failures(FAILURES)
    late_s = standing.until_s + FORGET_S
    if with_success:
        assert succeeded(standing, late_s) == Standing()
    assert failed(standing, late_s, ejected=0, size=10).until_s == late_s + EJECT_S


def test_failures_of_requests_sent_before_do_not_prolong_an_ejection() -> None:
    standing = after_failures(FAILURES)
    assert after_failures(7, standing, 1.0) == standing


@pytest.mark.parametrize(
    ("ejected", "size", "expected"),
    [(0, 1, False), (0, 3, False), (0, 4, True), (1, 4, False), (1, 7, True), (2, 10, True), (3, 10, False), (5, 20, True), (6, 20, False)],
)  # fmt: skip
def test_never_more_than_three_tenths_of_a_pool_are_left_out(ejected: int, size: int, expected: bool) -> None:
    assert may_eject(ejected, size) is expected


def test_what_may_not_be_ejected_keeps_its_count_and_is_when_there_is_room() -> None:
    standing = Standing()
    for _ in range(20):
        standing = failed(standing, 0.0, ejected=3, size=10)
    assert not standing.is_ejected(0.0)
    assert standing.failures == 20
    assert failed(standing, 0.0, ejected=2, size=10).is_ejected(0.0)


@given(st.integers(1, 40), st.lists(st.tuples(st.integers(0, 39), st.booleans(), st.floats(0, 30)), max_size=200))
def test_no_history_ejects_more_than_the_share(size: int, history: list[tuple[int, bool, float]]) -> None:
    standings = [Standing() for _ in range(size)]
    now_s = 0.0
    for number, is_good, later_s in history:
        now_s += later_s if later_s > 20 else 0.0
        index = number % size
        ejected = sum(each.is_ejected(now_s) for other, each in enumerate(standings) if other != index)
        was = standings[index]
        standings[index] = succeeded(was, now_s) if is_good else failed(was, now_s, ejected=ejected, size=size)
        assert sum(each.is_ejected(now_s) for each in standings) <= MAX_EJECTED_SHARE * size
