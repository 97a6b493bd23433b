"""A Bus inside one process, for nodes that run as one process and for tests."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import NoReturn

from coordinator.bus import BusMessage, Line, Subscription, matches
from coordinator.wire import MAX_PAYLOAD_BYTES
from models.errors import CloudUnreachableError


class MemoryBus:
    """A Bus inside one process, for nodes that run as one process and for tests; starts no task. ``on_drop`` hears of every loss."""

    is_connected = True

    def __init__(self, *, on_drop: Callable[[], None] = lambda: None) -> None:
        self._lines: list[Line] = []
        self._turns: Counter[tuple[str, str]] = Counter()
        self._on_drop = on_drop

    async def publish(self, subject: str, payload: bytes, *, reply: str = "") -> None:
        """Hand the message to every line that listens; tell ``reply`` when none does."""
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise CloudUnreachableError(f"{subject}: {len(payload)} bytes are over the limit of {MAX_PAYLOAD_BYTES}")
        listeners = [line for line in self._lines if matches(line.subject, subject)]
        for line in self._one_of_each_queue(listeners):
            line.put(BusMessage(subject=subject, payload=payload, reply=reply))
        if reply and not listeners:
            await self.publish_no_responders(reply)

    async def lost(self) -> NoReturn:
        """Wait for ever: memory is never lost."""
        while True:
            await asyncio.Event().wait()

    async def publish_no_responders(self, subject: str) -> None:
        """Tell whoever listens on ``subject`` that nobody took its request."""
        for line in self._lines:
            if matches(line.subject, subject):
                line.put(BusMessage(subject=subject, payload=b"", no_responders=True))

    @asynccontextmanager
    async def subscribe(
        self, subject: str, *, queue: str = "", max_pending: int = 1024
    ) -> AsyncGenerator[Subscription, None]:
        """Listen inside an ``async with``."""
        line = Line(subject, queue, max_pending, self._on_drop)
        self._lines.append(line)
        try:
            yield line
        finally:
            self._lines.remove(line)
            line.end()

    def _one_of_each_queue(self, listeners: list[Line]) -> list[Line]:
        """Return the lines without a queue and, in turn, one line of each queue."""
        chosen = [line for line in listeners if not line.queue]
        groups: dict[tuple[str, str], list[Line]] = {}
        for line in listeners:
            if line.queue:
                groups.setdefault((line.subject, line.queue), []).append(line)
        for group, lines in groups.items():
            chosen.append(lines[self._turns[group] % len(lines)])
            self._turns[group] += 1
        return chosen
