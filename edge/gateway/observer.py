"""What happens at the gateway, told to whoever counts it."""

from __future__ import annotations

from typing import Protocol


class GatewayObserver(Protocol):
    """Hears what metrics are made of; every method is called on the loop and must be quick and not raise."""

    def devices(self, count: int) -> None:
        """Take the number of connected devices."""
        ...

    def refused(self, code: str) -> None:
        """Take a connection turned away at the door: "device-auth", "bad-header", "full", "busy" or "draining"."""
        ...

    def ended(self, reason: str) -> None:
        """Take why a session ended."""
        ...

    def dropped(self, kind: str) -> None:
        """Take a message that went nowhere."""
        ...

    def violation(self, code: str) -> None:
        """Take a message the protocol does not allow."""
        ...

    def gap_seconds(self, seconds: float) -> None:
        """Take a silence the device heard inside an answer because speech came too late."""
        ...


class DeafObserver:
    """Observes nothing."""

    def devices(self, count: int) -> None:
        """Ignore it."""

    def refused(self, code: str) -> None:
        """Ignore it."""

    def ended(self, reason: str) -> None:
        """Ignore it."""

    def dropped(self, kind: str) -> None:
        """Ignore it."""

    def violation(self, code: str) -> None:
        """Ignore it."""

    def gap_seconds(self, seconds: float) -> None:
        """Ignore it."""
