from __future__ import annotations

from collections.abc import Callable

import pytest
from prometheus_client import CollectorRegistry

from coordinator.metrics import Metrics
from coordinator.turns import Marks, RoutingDecision, Tier, TurnRecord
from edge.brain.observer import BrainObserver
from edge.gateway.observer import GatewayObserver
from edge.observers import BrainMetrics, GatewayMetrics

RECORD = TurnRecord(
    turn_id="t",
    session_id="s",
    device_id="d",
    edge_id="e",
    outcome="answered",
    decisions=(
        RoutingDecision(turn_id="t", tier=Tier.CLOUD, reason="complex"),
        RoutingDecision(turn_id="t", tier=Tier.EDGE, reason="cloud-unreachable"),
    ),
    marks=Marks(endpoint_wait_ms=600, first_audio_ms=400),
)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


@pytest.mark.parametrize(
    ("tell", "sample", "labels", "value"),
    [
        (lambda it: it.devices(7), "active_devices", {}, 7),
        (lambda it: it.refused("full"), "voice_device_violations_total", {"code": "full"}, 1),
        (lambda it: it.violation("bad-frame"), "voice_device_violations_total", {"code": "bad-frame"}, 1),
        (lambda it: it.ended("idle"), "voice_sessions_ended_total", {"reason": "idle"}, 1),
        (lambda it: it.dropped("stale"), "voice_dropped_total", {"kind": "stale"}, 1),
        (lambda it: it.gap_seconds(0.25), "voice_gap_seconds_sum", {}, 0.25),
    ],
)
def test_what_the_gateway_tells_is_counted(
    metrics: Metrics, tell: Callable[[GatewayObserver], None], sample: str, labels: dict[str, str], value: float
) -> None:
    tell(GatewayMetrics(metrics))
    assert metrics.registry.get_sample_value(sample, labels) == value


@pytest.mark.parametrize(
    ("tell", "sample", "labels", "value"),
    [
        (lambda it: it.sessions(3), "voice_brain_sessions", {}, 3),
        (lambda it: it.stage_seconds("asr", 0.5), "voice_stage_seconds_sum", {"stage": "asr"}, 0.5),
        (
            lambda it: it.error("turn", "tts-failed"),
            "model_inference_errors_total",
            {"stage": "turn", "code": "tts-failed"},
            1,
        ),
        (lambda it: it.turn_ended(RECORD), "voice_turns_total", {"outcome": "answered", "tier": "edge"}, 1),
        (lambda it: it.turn_ended(RECORD), "voice_first_audio_seconds_sum", {"tier": "edge"}, 1.0),
        (
            lambda it: it.turn_ended(RECORD),
            "http_request_duration_seconds_count",
            {"handler": "voice-turn", "method": "TURN", "status": "answered"},
            1,
        ),
    ],
)
def test_what_the_brain_tells_is_counted(
    metrics: Metrics, tell: Callable[[BrainObserver], None], sample: str, labels: dict[str, str], value: float
) -> None:
    tell(BrainMetrics(metrics))
    assert metrics.registry.get_sample_value(sample, labels) == value
