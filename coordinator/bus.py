"""The road between processes: publish and subscribe, on NATS or in memory; the one module that imports nats."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, Protocol

import msgspec
import structlog

from coordinator.wire import MAX_PAYLOAD_BYTES
from models.errors import CloudUnreachableError, ConfigError

_log = structlog.get_logger()

PING_S = 2
PINGS_MISSED = 2
"""A frozen or cut-off server is noticed after about 5 s; the library's defaults need minutes."""
CONNECT_S = 10.0
"""How long a process waits for NATS at its start; servers and roles may be started together."""
_NO_RESPONDERS = "503"
"""Status with which nats-server says that nobody listens (NATS ADR-4)."""


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

    async def publish(self, subject: str, payload: bytes, *, reply: str = "") -> None:
        """Send; returns once handed to the connection. Raises CloudUnreachableError when not connected or too large."""
        ...

    def subscribe(
        self, subject: str, *, queue: str = "", max_pending: int = 1024
    ) -> AbstractAsyncContextManager[Subscription]:
        """Listen inside an ``async with``; of the members of one ``queue`` each message reaches one. A full line drops the newest."""
        ...


class _Line:
    """Waiting messages of one subscription: bounded, drops the newest, ends with the bus."""

    def __init__(self, subject: str, queue: str, max_pending: int) -> None:
        self.subject = subject
        self.queue = queue
        self.dropped = 0
        self._waiting: asyncio.Queue[BusMessage | None] = asyncio.Queue()
        self._max_pending = max_pending

    def put(self, message: BusMessage) -> None:
        """Add a message, or drop it when the line is full."""
        if self._waiting.qsize() >= self._max_pending:
            self.dropped += 1
        else:
            self._waiting.put_nowait(message)

    def end(self) -> None:
        """Let the reader see the end after what waits."""
        self._waiting.put_nowait(None)

    async def __aiter__(self) -> AsyncGenerator[BusMessage, None]:
        while (message := await self._waiting.get()) is not None:
            yield message


class MemoryBus:
    """A Bus inside one process, for nodes that run as one process and for tests; needs no closing and starts no task."""

    is_connected = True

    def __init__(self) -> None:
        self._lines: list[_Line] = []
        self._turns: Counter[tuple[str, str]] = Counter()

    async def publish(self, subject: str, payload: bytes, *, reply: str = "") -> None:
        """Hand the message to every line that listens; tell ``reply`` when none does."""
        if len(payload) > MAX_PAYLOAD_BYTES:
            raise CloudUnreachableError(f"{subject}: {len(payload)} bytes are over the limit of {MAX_PAYLOAD_BYTES}")
        listeners = [line for line in self._lines if matches(line.subject, subject)]
        for line in self._one_of_each_queue(listeners):
            line.put(BusMessage(subject=subject, payload=payload, reply=reply))
        if reply and not listeners:
            await self.publish_no_responders(reply)

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
        line = _Line(subject, queue, max_pending)
        self._lines.append(line)
        try:
            yield line
        finally:
            self._lines.remove(line)
            line.end()

    def _one_of_each_queue(self, listeners: list[_Line]) -> list[_Line]:
        """Return the lines without a queue and, in turn, one line of each queue."""
        chosen = [line for line in listeners if not line.queue]
        groups: dict[tuple[str, str], list[_Line]] = {}
        for line in listeners:
            if line.queue:
                groups.setdefault((line.subject, line.queue), []).append(line)
        for group, lines in groups.items():
            chosen.append(lines[self._turns[group] % len(lines)])
            self._turns[group] += 1
        return chosen


class NatsBus:
    """A Bus on a NATS server; open it with ``connect``."""

    def __init__(self, client: Any) -> None:
        self._client = client

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        url: str,
        *,
        name: str,
        nkey_seed: str | None = None,
        connect_s: float = CONNECT_S,
        on_state: Callable[[bool], None] = lambda _connected: None,
    ) -> AsyncGenerator[NatsBus, None]:
        """Connect, and reconnect for ever until left; a server that is away for ``connect_s`` at the start is a ConfigError.

        ``nkey_seed`` is the text of an NKey user seed. ``on_state`` hears every change of ``is_connected``.
        """

        async def connected() -> None:
            _log.info("bus_connected", name=name)
            on_state(True)  # noqa: FBT003 - the state itself

        async def disconnected() -> None:
            _log.warning("bus_disconnected", name=name)
            on_state(False)  # noqa: FBT003 - the state itself

        async def failed(error: Exception) -> None:
            _log.debug("bus_error", name=name, error=type(error).__name__)

        options: dict[str, Any] = {
            "name": name,
            "ping_interval": PING_S,
            "max_outstanding_pings": PINGS_MISSED,
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": 0.2,
            "reconnect_to_server_handler": _soon,
            "connect_timeout": 2,
            "error_cb": failed,
            "reconnected_cb": connected,
            "disconnected_cb": disconnected,
        }
        if nkey_seed:
            options["nkeys_seed_str"] = nkey_seed
        client = await _connected(url, options, connect_s)
        on_state(True)  # noqa: FBT003 - the state itself
        try:
            yield cls(client)
        finally:
            await client.close()

    @property
    def is_connected(self) -> bool:
        """Whether the server answers pings."""
        return bool(self._client.is_connected)

    async def publish(self, subject: str, payload: bytes, *, reply: str = "") -> None:
        """Send now; raise CloudUnreachableError when not connected (nothing is kept for later) or when too large."""
        import nats.errors

        if len(payload) > MAX_PAYLOAD_BYTES:
            raise CloudUnreachableError(f"{subject}: {len(payload)} bytes are over the limit of {MAX_PAYLOAD_BYTES}")
        if not self.is_connected:
            raise CloudUnreachableError(f"{subject}: not connected to NATS")
        try:
            await self._client.publish(subject, payload, reply)
        except (nats.errors.Error, OSError) as error:
            raise CloudUnreachableError(f"{subject}: {type(error).__name__}") from error

    @asynccontextmanager
    async def subscribe(
        self, subject: str, *, queue: str = "", max_pending: int = 1024
    ) -> AsyncGenerator[Subscription, None]:
        """Listen inside an ``async with``; the server knows of it when the body begins."""
        import nats.errors

        line = _Line(subject, queue, max_pending)

        async def take(message: Any) -> None:
            is_nobody = message.headers is not None and message.headers.get("Status") == _NO_RESPONDERS
            line.put(
                BusMessage(subject=message.subject, payload=message.data, reply=message.reply, no_responders=is_nobody)
            )

        try:
            subscription = await self._client.subscribe(subject, queue, cb=take, pending_msgs_limit=max_pending)
            await self._client.flush(timeout=2)
        except (nats.errors.Error, OSError, TimeoutError) as error:
            raise CloudUnreachableError(f"{subject}: {type(error).__name__}") from error
        try:
            yield line
        finally:
            line.end()
            with suppress(nats.errors.Error, OSError):
                await subscription.unsubscribe()


def matches(pattern: str, subject: str) -> bool:
    """Return whether a subject falls under a pattern, where ``*`` stands for one token and a last ``>`` for all that follow."""
    wanted, given = pattern.split("."), subject.split(".")
    for place, part in enumerate(wanted):
        if part == ">" and place == len(wanted) - 1:
            return len(given) > place
        if place >= len(given) or part not in {"*", given[place]}:
            return False
    return len(wanted) == len(given)


def _soon(servers: Sequence[Any], _info: Mapping[str, Any]) -> tuple[Any, float]:
    """Return which server to try next and after how many seconds, with jitter so that a fleet does not come back as one."""
    return servers[0], random.uniform(0.1, 2.0)  # noqa: S311  # not a secret


async def _connected(url: str, options: dict[str, Any], within_s: float) -> Any:
    """Return a connected client; raise ConfigError naming the address and the mend."""
    import nats.aio.client
    import nats.errors

    client = nats.aio.client.Client()
    try:
        async with asyncio.timeout(within_s):
            await client.connect(url, **options)
    except (nats.errors.Error, OSError, TimeoutError, ValueError) as error:
        await client.close()
        raise ConfigError(
            f"cannot connect to NATS at {url}: {type(error).__name__}; is nats-server running there, and may this user in?"
        ) from error
    return client
