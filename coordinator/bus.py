"""The road between processes: publish and subscribe. ``nats_bus`` is the road of the fleet, ``memory_bus`` that of one process."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from typing import NoReturn, Protocol, Self

import msgspec
import structlog

_log = structlog.get_logger()

Headers = Mapping[str, str] | None
_USER = re.compile(r"^((?:\w+://)?).*@")


class BusMessage(msgspec.Struct, frozen=True, kw_only=True):
    """What a subscription yields."""

    subject: str
    payload: bytes
    reply: str = ""
    """Subject the sender wants answers on, "" for none."""
    no_responders: bool = False
    """True when the bus itself says that nobody listens on the subject we published to."""


class Subscription(Protocol):
    """An open subscription; iterate it for messages, in order per sender."""

    dropped: int
    """Messages lost because ``max_pending`` were waiting already."""

    def __aiter__(self) -> AsyncIterator[BusMessage]:
        """Iterate until the subscription or the bus closes."""
        ...


class Bus(Protocol):
    """Publish and subscribe; at most once, like NATS itself."""

    @property
    def is_connected(self) -> bool:
        """Whether a message published now would leave this process."""
        ...

    async def lost(self) -> NoReturn:
        """Raise CloudUnreachableError naming the reason once this bus will never carry a message again; wait until then."""
        ...

    async def publish(self, subject: str, payload: bytes, *, reply: str = "") -> None:
        """Send; returns once handed to the connection. Raises CloudUnreachableError when not connected or too large."""
        ...

    def subscribe(
        self, subject: str, *, queue: str = "", max_pending: int = 1024
    ) -> AbstractAsyncContextManager[Subscription]:
        """Listen inside an ``async with``; of the members of one ``queue`` each message reaches one. A full line drops the newest."""
        ...


class Line:
    """Waiting messages of one subscription: bounded, drops the newest, ends with the bus."""

    def __init__(self, subject: str, queue: str, max_pending: int, on_drop: Callable[[], None]) -> None:
        self.subject = subject
        self.queue = queue
        self.dropped = 0
        self._waiting: asyncio.Queue[BusMessage | None] = asyncio.Queue()
        self._max_pending = max_pending
        self._on_drop = on_drop

    def put(self, message: BusMessage) -> None:
        """Add a message, or drop it when the line is full."""
        if self._waiting.qsize() < self._max_pending:
            self._waiting.put_nowait(message)
            return
        if not self.dropped:
            _log.warning("bus_line_full", subject=self.subject, waiting=self._max_pending)
        self.dropped += 1
        self._on_drop()

    def end(self) -> None:
        """Let the reader see the end after what waits."""
        self._waiting.put_nowait(None)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> BusMessage:
        message = await self._waiting.get()
        if message is None:
            self.end()
            raise StopAsyncIteration
        return message


def matches(pattern: str, subject: str) -> bool:
    """Return whether a subject falls under a pattern, where ``*`` stands for one token and a last ``>`` for all that follow."""
    wanted, given = pattern.split("."), subject.split(".")
    for place, part in enumerate(wanted):
        if part == ">" and place == len(wanted) - 1:
            return len(given) > place
        if place >= len(given) or part not in {"*", given[place]}:
            return False
    return len(wanted) == len(given)


def without_password(url: str) -> str:
    """Return an address with its user and password masked, for messages."""
    return _USER.sub(r"\1***@", url)
