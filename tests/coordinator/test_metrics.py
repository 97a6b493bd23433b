from __future__ import annotations

import re

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from coordinator.metrics import Metrics, installed
from coordinator.turns import Marks, RoutingDecision, Tier, TurnRecord


@pytest.fixture
def metrics() -> Metrics:
    return Metrics(CollectorRegistry())


def exported(metrics: Metrics) -> str:
    return generate_latest(metrics.registry).decode()


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def record(
    outcome: str = "answered", *, tiers: tuple[Tier, ...] = (Tier.EDGE,), marks: Marks | None = None
) -> TurnRecord:
    return TurnRecord(
        turn_id="t",
        session_id="s",
        device_id="d",
        edge_id="e",
        outcome=outcome,
        heard="a secret",
        decisions=tuple(RoutingDecision(turn_id="t", tier=tier, reason="complex") for tier in tiers),
        marks=marks or Marks(),
    )


def test_the_names_alert_rules_look_for_are_exported_as_they_stand(metrics: Metrics) -> None:
    metrics.http_seconds.labels("/readyz", "GET", "200").observe(0.01)
    metrics.inference_errors.labels("llm", "cloud-unreachable").inc()
    metrics.queue_size.labels("tts").set(2)
    metrics.active_devices.set(7)
    metrics.observe_cache("answer", "memory", "hit")
    text = exported(metrics)
    for sample in (
        r'http_request_duration_seconds_bucket{handler="/readyz",le="0.005",method="GET",status="200"} 0.0',
        r'http_request_duration_seconds_bucket{handler="/readyz",le="0.01",method="GET",status="200"} 1.0',
        r"active_devices 7.0",
        r'model_inference_errors_total{code="cloud-unreachable",stage="llm"} 1.0',
        r"cache_hit_rate 1.0",
        r'processing_queue_size{stage="tts"} 2.0',
    ):
        assert sample in text.splitlines(), sample


def test_every_other_name_begins_with_the_platform_s(metrics: Metrics) -> None:
    borrowed = {
        "http_request_duration_seconds",
        "active_devices",
        "model_inference_errors",
        "cache_hit_rate",
        "processing_queue_size",
    }
    names = {family.name for family in metrics.registry.collect()}
    assert borrowed <= names
    assert all(re.fullmatch(r"voice_[a-z_]+", name) for name in names - borrowed)


def test_two_tables_do_not_share_anything() -> None:
    first, second = Metrics(CollectorRegistry()), Metrics(CollectorRegistry())
    first.active_devices.set(1)
    assert value(second, "active_devices") == 0


def test_the_version_is_exported(metrics: Metrics) -> None:
    assert value(metrics, "voice_build_info", version=installed()) == 1


def test_a_turn_is_counted_under_the_tier_that_answered(metrics: Metrics) -> None:
    marks = Marks(endpoint_wait_ms=600, first_audio_ms=900)
    metrics.observe_turn(record(tiers=(Tier.CLOUD, Tier.EDGE), marks=marks))
    assert value(metrics, "voice_turns_total", outcome="answered", tier="edge") == 1
    assert value(metrics, "voice_first_audio_seconds_sum", tier="edge") == pytest.approx(1.5)
    turn = {"handler": "voice-turn", "method": "TURN", "status": "answered"}
    assert value(metrics, "http_request_duration_seconds_sum", **turn) == pytest.approx(1.5)
    assert value(metrics, "http_request_duration_seconds_bucket", le="1.5", **turn) == 1
    assert value(metrics, "http_request_duration_seconds_bucket", le="1.0", **turn) == 0


def test_a_turn_without_sound_is_counted_without_a_time(metrics: Metrics) -> None:
    metrics.observe_turn(record("silent", tiers=()))
    assert value(metrics, "voice_turns_total", outcome="silent", tier="none") == 1
    assert "voice_first_audio_seconds_sum" not in exported(metrics)
    assert '{handler="voice-turn"' not in exported(metrics)


def test_the_first_sound_may_come_with_the_endpoint(metrics: Metrics) -> None:
    metrics.observe_turn(record(marks=Marks(first_audio_ms=0.0)))
    assert value(metrics, "voice_first_audio_seconds_count", tier="edge") == 1


def test_nothing_that_was_said_is_exported(metrics: Metrics) -> None:
    metrics.observe_turn(record(marks=Marks(first_audio_ms=1.0)))
    assert "secret" not in exported(metrics)


@pytest.mark.parametrize(
    ("looked_up", "rate"),
    [
        ([], 0.0),
        ([("memory", "hit")], 1.0),
        ([("memory", "miss")], 0.0),
        ([("memory", "miss"), ("redis", "hit")], 1.0),
        ([("memory", "miss"), ("redis", "miss"), ("s3", "hit")], 1.0),
        ([("memory", "miss"), ("redis", "miss"), ("s3", "miss"), ("memory", "hit")], 0.5),
        ([("memory", "hit")] * 3 + [("memory", "miss"), ("redis", "error")], 0.75),
        ([("memory", "error"), ("redis", "skipped")], 0.0),
        ([("redis", "miss")], 0.0),
    ],
)
def test_the_hit_rate_is_that_of_whole_look_ups(
    metrics: Metrics, looked_up: list[tuple[str, str]], rate: float
) -> None:
    for tier, result in looked_up:
        metrics.observe_cache("answer", tier, result)
    assert value(metrics, "cache_hit_rate") == pytest.approx(rate)
    for tier, result in set(looked_up):
        count = looked_up.count((tier, result))
        assert value(metrics, "voice_cache_requests_total", tier=tier, kind="answer", result=result) == count
