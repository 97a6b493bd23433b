from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.preloading.plan import Candidate, Costs, plan

COSTS = Costs(make_s=2.0, wait_s=1.0, idle_share=0.5, far_s=0.004, load_s=0.0002)


def candidate(
    name: str = "a", probability: float = 0.95, *, size: int = 1000, stored: bool = False, near: bool = False
):
    return Candidate(content=name, probability=probability, expected=3, size_bytes=size, is_stored=stored, is_near=near)


@pytest.mark.parametrize(
    ("wanted", "costs", "action", "why"),
    [
        (candidate(), COSTS, "make", "saves"),
        (candidate(probability=0.8), COSTS, None, "not sure enough"),
        (candidate(probability=0.1), COSTS, None, "doing nothing is cheaper"),
        (candidate(probability=0.99), Costs(make_s=2, wait_s=0, idle_share=1), None, "doing nothing is cheaper"),
        (
            candidate(probability=0.9),
            Costs(make_s=2, wait_s=0, idle_share=1, cloud_price=0.001, second_price=0.001),
            "make",
            "",
        ),
        (candidate(probability=0.5, stored=True), COSTS, "load", "saves"),
        (candidate(probability=0.02, stored=True), COSTS, None, "doing nothing is cheaper"),
        (candidate(probability=0.5, size=10_000, stored=True), COSTS, None, "doing nothing is cheaper"),
    ],
)
def test_candidate_is_chosen_only_if_it_pays(wanted: Candidate, costs: Costs, action, why: str) -> None:
    found = plan([wanted], budget_s=100, near_bytes=5_000, costs=costs)
    choice = (found.chosen or found.refused)[0]
    assert (choice.action if found.chosen else None) == action
    assert why in choice.why


def test_nothing_is_planned_for_nothing() -> None:
    assert plan([], budget_s=100, near_bytes=100).chosen == ()


def test_plan_without_saving_is_empty_and_worth_nothing() -> None:
    found = plan([candidate(str(n), 0.3) for n in range(5)], budget_s=100, near_bytes=10_000, costs=COSTS)
    assert (found.chosen, found.worth_s, len(found.refused)) == ((), 0, 5)


def test_content_that_is_near_and_stored_is_left_alone_but_takes_room() -> None:
    held = candidate("held", 0.9, stored=True, near=True)
    poorer = candidate("poorer", 0.5, stored=True)
    assert plan([held, poorer], budget_s=1, near_bytes=1_000, costs=COSTS).chosen == ()
    assert [choice.content for choice in plan([held, poorer], budget_s=1, near_bytes=2_000, costs=COSTS).chosen] == [
        "poorer"
    ]


def test_what_it_pushes_out_is_part_of_the_cost() -> None:
    held = [candidate(f"held-{n}", 0.3, stored=True, near=True) for n in range(3)]
    better = candidate("better", 0.9, stored=True)
    found = plan([*held, better], budget_s=1, near_bytes=3_000, costs=COSTS)
    assert found.chosen[0].cost_s == pytest.approx(0.3 * COSTS.far_s + COSTS.load_s * COSTS.idle_share)


def test_no_idle_time_is_told_as_the_reason() -> None:
    found = plan([candidate("a"), candidate("b")], budget_s=3, near_bytes=0, costs=COSTS)
    assert [choice.content for choice in found.chosen] == ["a"]
    assert "no idle time left" in found.refused[0].why


candidates = st.lists(
    st.builds(
        Candidate,
        content=st.uuids().map(str),
        probability=st.floats(0, 1),
        expected=st.floats(0, 100),
        size_bytes=st.integers(1, 100_000),
        is_stored=st.booleans(),
        is_near=st.booleans(),
    ),
    max_size=30,
)


@given(candidates, st.floats(0, 20), st.floats(0, 20), st.integers(0, 500_000))
def test_plan_keeps_its_budget_and_more_never_makes_it_worse(wanted, budget_s: float, more_s: float, room: int) -> None:
    less = plan(wanted, budget_s=budget_s, near_bytes=room)
    more = plan(wanted, budget_s=budget_s + more_s, near_bytes=room)
    assert less.spent_s <= budget_s + 1e-9
    assert more.worth_s >= less.worth_s - 1e-9
    assert all(choice.worth_s > 0 for choice in less.chosen)
    names = [choice.content for choice in less.chosen + less.refused]
    left_out = [each.content for each in wanted if each.is_near and each.is_stored]
    assert sorted(names + left_out) == sorted(each.content for each in wanted)


@given(candidates)
def test_plan_travels_as_json(wanted) -> None:
    found = plan(wanted, budget_s=5, near_bytes=100_000)
    assert msgspec.json.decode(msgspec.json.encode(found), type=type(found)) == found
