"""What a device hears: one writer for its socket, which sends what is due and keeps count of what was played."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

from edge import seam
from edge.gateway.device_protocol import DeviceProtocol
from edge.gateway.observer import GatewayObserver
from edge.gateway.pacing import Outgoing, Speech
from models.errors import DeviceTooSlowError

_REPORT_MS = 480
"""Sound between two reports of what was played."""
_HEARABLE_GAP_S = 0.01


class Sends(Protocol):
    """The half of a socket that a writer needs."""

    async def send(self, message: str | bytes) -> None:
        """Send, waiting for a device that does not read; does nothing once the device is gone."""
        ...


class Writer:
    """Sends what ``outgoing`` holds; ``report`` gets the speech whose progress the brain should know, ``rest`` is called when one ends."""

    def __init__(
        self,
        socket: Sends,
        outgoing: Outgoing,
        protocol: DeviceProtocol,
        observer: GatewayObserver,
        *,
        send_s: float,
        report: Callable[[Speech], Awaitable[None]],
        rest: Callable[[], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.sent_s = now()
        """When the device was sent something last."""
        self._socket = socket
        self._outgoing = outgoing
        self._protocol = protocol
        self._observer = observer
        self._send_s = send_s
        self._report = report
        self._rest = rest
        self._now = now
        self._sent_audio_ms = 0

    async def run(self) -> None:
        """Send until ``outgoing`` ends; raise DeviceTooSlowError when a message is not read within ``send_s``."""
        while (out := await self._outgoing.next()) is not None:
            item, speech = out
            await self._send(item)
            if speech is not None:
                await self._after(item, speech)

    async def _send(self, item: str | bytes) -> None:
        message = item
        if isinstance(item, bytes):
            self._sent_audio_ms += seam.DOWNLINK_FRAME_MS
            message = self._protocol.audio(item, self._sent_audio_ms)
        try:
            async with asyncio.timeout(self._send_s):
                await self._socket.send(message)
        except TimeoutError:
            raise DeviceTooSlowError(f"{len(message)} units were not read within {self._send_s:g} s") from None
        self.sent_s = self._now()

    async def _after(self, item: str | bytes, speech: Speech) -> None:
        gap_s = speech.sent(item, self._now())
        if gap_s > _HEARABLE_GAP_S:
            self._observer.gap_seconds(gap_s)
        if speech is not self._outgoing.speech:
            return
        if speech.is_all_sent or speech.played_ms - speech.reported_ms >= _REPORT_MS:
            await self._report(speech)
        if speech.has_closed and speech is self._outgoing.speech:
            self._outgoing.speech = None
            self._rest()
