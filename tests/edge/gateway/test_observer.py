from __future__ import annotations

from edge.gateway.observer import DeafObserver, GatewayObserver


def test_deaf_observer_takes_everything_and_returns_nothing() -> None:
    observer: GatewayObserver = DeafObserver()
    told = [
        observer.devices(1),
        observer.refused("full"),
        observer.ended("idle"),
        observer.dropped("stale"),
        observer.violation("bad-frame"),
        observer.gap_seconds(0.5),
    ]
    assert told == [None] * 6
