from __future__ import annotations

from collections.abc import Iterator

import pytest

from coordinator.routing.policy import Policy, PoolTerms
from coordinator.routing.replay import ChangedTurn, replay
from coordinator.routing.router import Router
from coordinator.turns import RoutingDecision, Tier, TurnRecord

HARD = "请详细分析电动汽车和燃油汽车的优缺点，比较它们的区别，并解释为什么"
POOLS = (PoolTerms(name="small", price=1.0, strength=0.8), PoolTerms(name="large", price=4.0, vision=True))


def turn(
    turn_id: str,
    heard: str,
    tier: Tier,
    reason: str = "complex",
    *,
    pool: str = "",
    session: str = "s",
    answer: str = "",
) -> TurnRecord:
    return TurnRecord(
        turn_id=turn_id,
        session_id=session,
        device_id="d",
        edge_id="e",
        outcome="answered",
        heard=heard,
        answer=answer,
        decisions=(RoutingDecision(turn_id=turn_id, tier=tier, reason=reason, pool=pool),),
    )


def router(threshold: float = 0.7, **more: object) -> Router:
    return Router(Policy(threshold=threshold, pools=POOLS, **more), None, now=lambda: 0.0)


def test_turns_that_go_elsewhere_are_named_with_both_reasons_and_what_they_cost() -> None:
    records = [
        turn("t1", "你好", Tier.CLOUD, pool="large"),
        turn("t2", "你好", Tier.EDGE, "below-threshold"),
        turn("t3", HARD, Tier.EDGE, "below-threshold", session="z"),
        turn("t4", HARD, Tier.CLOUD, pool="small", session="y"),
    ]
    found = replay(records, router())
    assert [(change.turn_id, change.was, change.now) for change in found.changed] == [
        ("t1", "cloud/large", "edge"),
        ("t3", "edge", "cloud/small"),
    ]
    assert (found.turns, found.cloud_share_before, found.cloud_share_after) == (4, 0.5, 0.5)
    assert (found.price_before, found.price_after) == (5.0, 2.0)
    assert found.reasons == {"below-threshold": 2, "complex": 2}
    first = found.changed[0]
    assert isinstance(first, ChangedTurn)
    assert (first.was_reason, first.now_reason, first.threshold) == ("complex", "below-threshold", 0.7)


def test_the_same_policy_changes_nothing() -> None:
    records = [turn("t1", HARD, Tier.CLOUD, pool="small"), turn("t2", "关灯", Tier.EDGE, "device-command")]
    assert replay(records, router()).changed == ()


def test_what_was_not_decided_or_comes_from_the_cache_is_counted_apart() -> None:
    silent = TurnRecord(turn_id="t", session_id="s", device_id="d", edge_id="e", outcome="silent")
    found = replay([silent, turn("t2", HARD, Tier.CACHE, "remembered")], router())
    assert (found.turns, found.skipped, found.remembered, found.price_after) == (0, 1, 1, 0.0)


@pytest.mark.parametrize(
    ("reason", "now_reason", "now"),
    [
        ("private", "private", "edge"),
        ("picture", "picture", "cloud/large"),
        ("cloud-unreachable", "cloud-unreachable", "edge"),
        ("pools-closed", "pools-closed", "edge"),
    ],
)
def test_what_a_record_tells_of_its_turn_still_holds(reason: str, now_reason: str, now: str) -> None:
    was = Tier.CLOUD if reason == "picture" else Tier.EDGE
    found = replay([turn("t1", HARD, was, reason, pool="large" if was is Tier.CLOUD else "")], router(0.0))
    assert found.reasons == {now_reason: 1}
    assert found.changed == ()
    assert found.cloud_share_after == (now != "edge")


def test_earlier_turns_of_the_same_session_make_the_dialogue() -> None:
    asked = "它为什么好"
    alone = replay([turn("t9", asked, Tier.EDGE)], router(0.3))
    past = [turn(f"t{number}", f"第{number}个问题", Tier.EDGE, answer="好") for number in range(8)]
    after = replay([*past, turn("t9", asked, Tier.EDGE)], router(0.3))
    others = [turn(f"t{number}", "你好", Tier.EDGE, session="other") for number in range(8)]
    between = replay([*others, turn("t9", asked, Tier.EDGE)], router(0.3))
    assert alone.changed == ()
    assert between.changed == ()
    assert [change.turn_id for change in after.changed] == ["t9"]


def test_pools_the_new_policy_does_not_name_are_told() -> None:
    found = replay([turn("t1", HARD, Tier.CLOUD, pool="old")], router())
    assert (found.unpriced, found.price_before) == (1, 0.0)
    assert found.changed[0].was == "cloud/old"


def test_a_budget_is_spent_on_the_clock_of_the_records() -> None:
    clock_s = 0.0

    def in_their_time() -> Iterator[TurnRecord]:
        nonlocal clock_s
        for number in range(2000):
            clock_s = 30.0 * number
            yield turn(f"t{number}", HARD, Tier.CLOUD, pool="small", session=f"s{number}")

    new = Router(Policy(budget_per_day=50.0, utc_offset_h=0.0), None, now=lambda: clock_s)
    found = replay(in_their_time(), new)
    assert found.price_after <= 51
    assert found.reasons["budget"] > 1000
