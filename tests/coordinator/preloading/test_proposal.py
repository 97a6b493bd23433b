from __future__ import annotations

from coordinator.preloading.foreseen import Content
from coordinator.preloading.plan import Plan
from coordinator.preloading.proposal import fitting, to_load, to_make
from tests.coordinator.preloading.test_reports import content

CONTENTS = [
    Content(content(str(number)), chance, fleet, 1.0, "zh x")
    for number, (chance, fleet) in enumerate([(0.1, 0.95), (0.9, 0.99), (0.5, 0.7), (0.02, 0.6)])
]


def keys(plan: Plan) -> list[str]:
    return [choice.content for choice in plan.chosen]


def test_a_shelf_is_filled_with_the_likeliest() -> None:
    wanted = fitting(CONTENTS, shelf_bytes=250, size_bytes=100)
    assert [each.at_edge for each in wanted] == [0.9, 0.5]


def test_what_is_near_is_not_loaded_again_and_what_does_not_pay_is_not_loaded() -> None:
    plan = to_load(CONTENTS, {content("1")}, shelf_bytes=400, size_bytes=100)
    assert keys(plan) == [content("2"), content("0")]
    assert [choice.content for choice in plan.refused] == [content("3")]
    assert "doing nothing is cheaper" in plan.refused[0].why


def test_what_nobody_has_is_made_where_it_is_sure_for_the_fleet_or_for_the_edge_alone() -> None:
    assert set(keys(to_make(CONTENTS, (), budget_s=60, shares=True))) == {content("0"), content("1")}
    assert keys(to_make(CONTENTS, (), budget_s=60, shares=False)) == [content("1")]
    assert keys(to_make(CONTENTS, {content("1")}, budget_s=60, shares=True)) == [content("0")]


def test_nothing_is_made_without_time_and_everything_says_why() -> None:
    plan = to_make(CONTENTS, (), budget_s=0, shares=True)
    assert keys(plan) == []
    assert (
        sorted(choice.why.split(":")[0] for choice in plan.refused)
        == ["no idle time left"] * 2 + ["not sure enough"] * 2
    )
