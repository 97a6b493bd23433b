"""The line in front of a session: bounded, in order, and never full for what matters."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

from edge.seam import AudioUp, UpMessage
from models.errors import DeviceProtocolError

MAX_AUDIO = 100
"""Packets that may wait: 6 s of sound, two and a half of the bursts a device sends after a stall, protocol §6.1."""
MAX_CONTROL = 256
"""Other messages that may wait; a device that has so many is not one of ours."""


Errand = Callable[[], Awaitable[None]]
"""Something the session found out itself, as what is to be done about it."""


class Inbox:
    """Messages of one session; of too much audio the oldest is dropped and counted."""

    def __init__(self, max_audio: int = MAX_AUDIO, max_control: int = MAX_CONTROL) -> None:
        self.dropped_audio = 0
        self._max_audio = max_audio
        self._max_control = max_control
        self._audio = 0
        self._line: deque[UpMessage | Errand] = deque()
        self._filled = asyncio.Event()

    def put(self, message: UpMessage) -> None:
        """Add a message without waiting; raise DeviceProtocolError when too many that may not be dropped wait already."""
        if isinstance(message, AudioUp):
            if self._audio >= self._max_audio:
                self._drop_oldest_audio()
            self._audio += 1
        elif len(self._line) - self._audio >= self._max_control:
            raise DeviceProtocolError(f"session {message.session_id}: {self._max_control} messages wait unread")
        self._line.append(message)
        self._filled.set()

    def note(self, errand: Errand) -> None:
        """Add what the session has to do next, in order with the messages; a session has a few at most."""
        self._line.append(errand)
        self._filled.set()

    async def get(self) -> UpMessage | Errand:
        """Return the next message or errand, waiting for one if there is none; between two of a backlog the other sessions have their turn."""
        if self._line:
            await asyncio.sleep(0)
        await self._filled.wait()
        message = self._line.popleft()
        if isinstance(message, AudioUp):
            self._audio -= 1
        if not self._line:
            self._filled.clear()
        return message

    def _drop_oldest_audio(self) -> None:
        oldest = next(place for place, message in enumerate(self._line) if isinstance(message, AudioUp))
        del self._line[oldest]
        self._audio -= 1
        self.dropped_audio += 1
