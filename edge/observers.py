"""What gateway and brain report, turned into metrics."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.metrics import Metrics
from coordinator.turns import TurnRecord


@dataclass(frozen=True, slots=True)
class GatewayMetrics:
    """A GatewayObserver that counts."""

    metrics: Metrics

    def devices(self, count: int) -> None:
        """Set the number of connected devices."""
        self.metrics.active_devices.set(count)

    def refused(self, code: str) -> None:
        """Count a connection turned away."""
        self.metrics.violations.labels(code).inc()

    def ended(self, reason: str) -> None:
        """Count why a session ended."""
        self.metrics.sessions_ended.labels(reason).inc()

    def dropped(self, kind: str) -> None:
        """Count a message that went nowhere."""
        self.metrics.dropped.labels(kind).inc()

    def violation(self, code: str) -> None:
        """Count what the protocol does not allow."""
        self.metrics.violations.labels(code).inc()

    def gap_seconds(self, seconds: float) -> None:
        """Count a silence inside an answer."""
        self.metrics.gap_seconds.observe(seconds)


@dataclass(frozen=True, slots=True)
class BrainMetrics:
    """A BrainObserver that counts."""

    metrics: Metrics

    def turn_ended(self, record: TurnRecord) -> None:
        """Count a finished turn."""
        self.metrics.observe_turn(record)

    def stage_seconds(self, stage: str, seconds: float) -> None:
        """Observe the time of a stage."""
        self.metrics.stage_seconds.labels(stage).observe(seconds)

    def error(self, stage: str, code: str) -> None:
        """Count a failure."""
        self.metrics.inference_errors.labels(stage, code).inc()

    def sessions(self, count: int) -> None:
        """Set the number of open sessions."""
        self.metrics.sessions.set(count)
