from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.hedge import KEPT, LEAST, MOST_SAVED, FirstTokens, HedgeBudget


def test_a_p95_needs_twenty_first_tokens() -> None:
    tokens = FirstTokens()
    for number in range(LEAST - 1):
        tokens.add(number / 10)
        assert tokens.p95_s is None
    tokens.add(9.0)
    assert tokens.p95_s == 1.8, "19 of 20 did not exceed it"


def test_only_the_latest_first_tokens_count() -> None:
    tokens = FirstTokens()
    for waited_s in [9.0] * 50 + [0.5] * KEPT:
        tokens.add(waited_s)
    assert tokens.p95_s == 0.5


@pytest.mark.parametrize(("share", "firsts", "most"), [(0.0, 1000, 0), (0.1, 1000, 100), (0.5, 10, 5), (1.0, 3, 3)])
def test_second_calls_are_the_stated_share_when_all_are_wanted(share: float, firsts: int, most: int) -> None:
    budget = HedgeBudget()
    for _ in range(firsts):
        budget.earn(share)
        budget.spend()
    assert (budget.firsts, budget.seconds) == (firsts, most)


def test_what_was_saved_in_a_calm_time_is_not_spent_all_at_once() -> None:
    budget = HedgeBudget()
    for _ in range(1000):
        budget.earn(0.1)
    assert sum(budget.spend() for _ in range(1000)) == MOST_SAVED


@given(st.floats(0, 0.5), st.lists(st.booleans(), max_size=400))
def test_there_are_never_more_second_calls_than_the_share(share: float, wanted: list[bool]) -> None:
    budget = HedgeBudget()
    for wants in wanted:
        budget.earn(share)
        if wants:
            budget.spend()
        assert budget.seconds <= share * budget.firsts + 1e-6
