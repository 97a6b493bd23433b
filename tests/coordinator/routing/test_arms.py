from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from coordinator.routing.arms import FIRST_TOKEN_BOUNDS_MS, ArmTally, arm_of, observe_arms
from coordinator.routing.policy import Arm, Changes
from coordinator.turns import Marks, RoutingDecision, Tier, TurnRecord

ARMS = (Arm(name="a", share=0.2), Arm(name="b", share=0.3))


def decided(tier: Tier, arm: str = "a") -> RoutingDecision:
    return RoutingDecision(turn_id="t", tier=tier, reason="r", arm=arm)


def turn(*decisions: RoutingDecision, outcome: str = "answered", first_token_ms: float | None = None) -> TurnRecord:
    return TurnRecord(
        turn_id="t",
        session_id="s",
        device_id="d",
        edge_id="e",
        outcome=outcome,
        decisions=decisions,
        marks=Marks(first_token_ms=first_token_ms),
    )


def name_of(device_id: str, arms: Sequence[Arm]) -> str:
    arm = arm_of(device_id, arms)
    return arm.name if arm else ""


def test_devices_are_split_by_the_shares() -> None:
    names = [name_of(f"aa:bb:{number}", ARMS) for number in range(20_000)]
    shares = {name: names.count(name) / len(names) for name in ("a", "b", "")}
    assert shares == pytest.approx({"a": 0.2, "b": 0.3, "": 0.5}, abs=0.015)


def test_a_device_keeps_its_arm_when_what_the_arm_does_changes() -> None:
    changed = tuple(msgspec.structs.replace(arm, changes=Changes(doubt=True)) for arm in ARMS)
    devices = [str(number) for number in range(200)]
    assert [name_of(device, ARMS) for device in devices] == [name_of(device, changed) for device in devices]


def test_the_split_is_the_same_on_every_machine() -> None:
    found = [name_of(device, ARMS) for device in ("aa:01", "aa:02", "aa:03", "aa:04", "aa:05")]
    assert found == ["", "b", "", "", "b"]


def test_no_arms_hold_no_device_and_full_shares_hold_all() -> None:
    assert arm_of("d", ()) is None
    assert {arm_of(str(number), (Arm(name="x", share=1.0),)) for number in range(100)} == {Arm(name="x", share=1.0)}


def test_figures_are_gathered_by_arm() -> None:
    tallies: dict[str, ArmTally] = {}
    for finished in (
        turn(decided(Tier.CLOUD), first_token_ms=100.0),
        turn(decided(Tier.CLOUD), decided(Tier.EDGE), first_token_ms=20_000.0),
        turn(decided(Tier.CACHE)),
        turn(decided(Tier.EDGE), decided(Tier.CLOUD), outcome="interrupted"),
        turn(decided(Tier.EDGE, "b"), outcome="failed"),
        turn(),
    ):
        observe_arms(tallies, finished)
    first = tallies["a"]
    assert (first.turns, first.cloud, first.remembered, first.fell_back) == (4, 2, 1, 1)
    assert (first.interrupted, first.failed, first.first_tokens, first.first_token_ms) == (1, 0, 2, 20_100.0)
    assert first.first_token_counts == [1] + [0] * (len(FIRST_TOKEN_BOUNDS_MS) - 1) + [1]
    assert tallies["b"] == ArmTally(turns=1, failed=1)
    assert set(tallies) == {"a", "b"}
