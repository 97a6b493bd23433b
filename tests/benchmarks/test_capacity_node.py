from __future__ import annotations

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest

from benchmarks.capacity_node import Buckets, buckets_of, difference, quantile_ms
from coordinator.metrics import Metrics

INF = float("inf")


@pytest.mark.parametrize(
    ("buckets", "share", "expected"),
    [
        ({0.1: 0.0, 0.2: 100.0, INF: 100.0}, 0.95, 195.0),
        ({0.1: 50.0, 0.2: 100.0, INF: 100.0}, 0.5, 100.0),
        ({0.1: 10.0, 0.2: 10.0, INF: 20.0}, 0.95, 200.0),
        ({0.1: 0.0, INF: 0.0}, 0.95, None),
        ({}, 0.95, None),
    ],
)
def test_a_quantile_lies_inside_its_bucket(buckets: Buckets, share: float, expected: float | None) -> None:
    assert quantile_ms(buckets, share) == (None if expected is None else pytest.approx(expected))


def test_the_brains_histograms_are_read_from_its_metrics() -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    metrics.stage_seconds.labels("asr").observe(0.04)
    before = buckets_of(generate_latest(registry).decode())
    metrics.stage_seconds.labels("asr").observe(0.4)
    metrics.stage_seconds.labels("tts").observe(0.15)
    gained = difference(before, buckets_of(generate_latest(registry).decode()))
    assert gained["asr"][0.3] == 0.0
    assert gained["asr"][0.5] == gained["asr"][INF] == 1.0
    assert quantile_ms(gained["tts"], 0.95) == pytest.approx(195.0)
