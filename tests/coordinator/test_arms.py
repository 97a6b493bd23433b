from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.arms import arm_figures, wilson
from coordinator.turns import Marks, RoutingDecision, Tier, TurnRecord


def turn(
    arm: str, *tiers: Tier, device: str = "d", outcome: str = "answered", first_ms: float | None = 400
) -> TurnRecord:
    decisions = tuple(RoutingDecision(turn_id="t", tier=tier, reason="x", arm=arm) for tier in tiers)
    marks = Marks(endpoint_wait_ms=100, first_audio_ms=first_ms)
    return TurnRecord(
        turn_id="t", session_id="s", device_id=device, edge_id="e", outcome=outcome, decisions=decisions, marks=marks
    )


def test_the_turns_of_each_arm_are_counted_apart() -> None:
    turns = [
        turn("b", Tier.CLOUD, first_ms=900),
        turn("b", Tier.CLOUD, Tier.EDGE, device="d2", first_ms=1900),
        turn("b", Tier.EDGE, outcome="interrupted", first_ms=None),
        turn("b", Tier.CLOUD, outcome="failed", first_ms=None),
        turn("a", Tier.CACHE),
        turn("a"),
    ]
    a, b = arm_figures(turns)
    assert (a.arm, a.turns, a.devices, a.first_audio_p50_ms, a.first_audio_p95_ms) == ("a", 1, 1, 500, 500)
    assert (a.cloud.share, a.fell_back.share) == (0, 0)
    assert (b.arm, b.turns, b.devices, b.first_audio_p50_ms, b.first_audio_p95_ms) == ("b", 4, 2, 1000, 2000)
    assert (b.cloud.share, b.fell_back.share, b.interrupted.share, b.failed.share) == (0.5, 0.25, 0.25, 0.25)


def test_without_sound_there_are_no_times_and_without_turns_no_arms() -> None:
    (figures,) = arm_figures([turn("", Tier.EDGE, first_ms=None)])
    assert (figures.first_audio_p50_ms, figures.first_audio_p95_ms) == (None, None)
    assert arm_figures([turn("a")]) == ()


@pytest.mark.parametrize(
    ("count", "total", "low", "high"),
    [(0, 10, 0.0, 0.2775), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0), (1, 1, 0.2065, 1.0)],
)
def test_the_interval_is_wilsons(count: int, total: int, low: float, high: float) -> None:
    found = wilson(count, total)
    assert (found.share, found.low, found.high) == pytest.approx((count / total, low, high), abs=1e-4)


@given(st.integers(1, 500).flatmap(lambda total: st.tuples(st.integers(0, total), st.just(total))))
def test_a_share_at_either_end_of_the_interval_would_be_1_96_deviations_away(counted: tuple[int, int]) -> None:
    found = wilson(*counted)
    assert 0 <= found.low <= found.share + 1e-12
    assert found.share - 1e-12 <= found.high <= 1
    for end in (found.low, found.high):
        deviation = math.sqrt(end * (1 - end) / counted[1])
        assert abs(found.share - end) == pytest.approx(1.959964 * deviation, abs=1e-6)
