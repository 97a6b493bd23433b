"""How a device is turned away so that its person knows why: hello, ``alert``, time to read it, Close.

Firmware shows an alert only on an open channel, and only for as long as that stays open: refused before the upgrade it says that the
server cannot be reached, and a Close clears its screen. Entering Listening clears the screen too and cuts the alert's sound, so the
alert waits until the device has begun to listen. Nothing of such a connection reaches a brain.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import structlog

from edge.gateway import device_protocol as device
from edge.gateway.admission import Allowance, Caller
from edge.gateway.device_socket import DeviceSocket
from edge.gateway.lifetime import READ_S, TRY_LATER
from edge.gateway.notices import notice

_log = structlog.get_logger()

_MESSAGES_HZ, _MESSAGES_BURST = 50.0, 100
"""What a device that listens sends, and what it said before its wake word; who is faster is read slower."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a refused device is borne with; all of it at most is how long it holds its place."""

    hello_s: float = 2.0
    """How long it may take to say hello; it does so at once."""
    listen_s: float = 1.0
    """How long it may take to begin to listen; it does so at once, unless a client waits for the server's hello and then for a person."""
    read_s: float = READ_S
    """How long its person may read."""
    send_s: float = 1.0
    """How long one message may take to be read."""


class Refusal:
    """One device that is turned away; ``run`` it once."""

    def __init__(
        self,
        socket: DeviceSocket,
        caller: Caller,
        code: str,
        *,
        session_id: str,
        patience: Patience | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.device_id = caller.device_id
        self._socket = socket
        self._code = code
        self._language = caller.language
        self._patience = patience or Patience()
        self._protocol = device.DeviceProtocol(session_id, version=caller.version)
        self._allowance = Allowance(_MESSAGES_HZ, _MESSAGES_BURST)
        self._now = now
        self._deadline: asyncio.Timeout | None = None
        self._is_ended = False
        self._is_gone = False

    async def run(self) -> None:
        """Tell the device why and close; cancelling drops the socket."""
        is_told = False
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(0 if self._is_ended else None) as self._deadline:
                    await self._tell()
            is_told = not self._is_gone
        finally:
            self._deadline = None
            if not is_told:
                self._socket.abort()
        if is_told:
            await self._socket.close(TRY_LATER, self._code)

    def end(self) -> None:
        """Close now, read or not."""
        self._is_ended = True
        if self._deadline is not None and not self._deadline.expired():
            self._deadline.reschedule(asyncio.get_running_loop().time())

    async def _tell(self) -> None:
        patience = self._patience
        hello = await self._heard(device.Hello, patience.hello_s)
        if not isinstance(hello, device.Hello):
            return
        await self._send(self._protocol.hello())
        await self._heard(device.ListenStart, patience.listen_s)
        words = notice(self._code, self._language or hello.language)
        await self._send(self._protocol.alert(words.status, words.message, words.emotion))
        await self._heard(device.Goodbye, patience.read_s)

    async def _heard(self, kind: type[device.DeviceEvent], within_s: float) -> device.DeviceEvent | None:
        """Return the first event of a kind, None once the time is up, the device gone, or what it says against all rules."""
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not self._is_gone and (message := await self._socket.recv()) is not None:
                    for event in self._protocol.receive(message):
                        if isinstance(event, kind):
                            return event
                        if isinstance(event, device.Violation) and event.fatal:
                            return None
                    if delay_s := self._allowance.delay_s(self._now()):
                        await asyncio.sleep(delay_s)
                self._is_gone = True
        return None

    async def _send(self, message: str) -> None:
        """Send unless the device is gone; one that does not read is."""
        if self._is_gone:
            return
        try:
            async with asyncio.timeout(self._patience.send_s):
                await self._socket.send(message)
        except TimeoutError:
            self._is_gone = True


class Refusals:
    """The devices being turned away aloud, at most ``most`` at once."""

    def __init__(
        self, most: int, *, patience: Patience | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._most = most
        self._patience = patience
        self._now = now
        self._under_way: set[Refusal] = set()

    def __len__(self) -> int:
        return len(self._under_way)

    @property
    def has_room(self) -> bool:
        """Whether one more can be told."""
        return len(self._under_way) < self._most

    async def refuse(self, socket: DeviceSocket, caller: Caller, code: str, session_id: str) -> None:
        """Turn a device away; an older refusal of the same device gives way."""
        for older in self._under_way:
            if older.device_id == caller.device_id:
                older.end()
        refusal = Refusal(socket, caller, code, session_id=session_id, patience=self._patience, now=self._now)
        self._under_way.add(refusal)
        _log.info("device-turned-away", device_id=caller.device_id, session_id=session_id, code=code)
        try:
            await refusal.run()
        finally:
            self._under_way.discard(refusal)

    def end(self) -> None:
        """Close all of them now."""
        for refusal in self._under_way:
            refusal.end()
