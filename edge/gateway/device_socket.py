"""A device's WebSocket as those who talk over it need it; the real one is in ``server``."""

from __future__ import annotations

from typing import Protocol


class DeviceSocket(Protocol):
    """A WebSocket as a session needs it."""

    @property
    def is_open(self) -> bool:
        """Whether neither side began to close; a peer may do so and then hold the socket without a word."""
        ...

    async def recv(self) -> str | bytes | None:
        """Return the next message, None once the device is gone."""
        ...

    async def send(self, message: str | bytes) -> None:
        """Send, waiting for a device that does not read; does nothing once the device is gone."""
        ...

    async def close(self, code: int, reason: str) -> None:
        """Close with a Close frame; returns within a bounded time with the socket gone, answered or not."""
        ...

    def abort(self) -> None:
        """Drop the socket at once."""
        ...
