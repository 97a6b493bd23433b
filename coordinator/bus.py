"""The road between processes: publish and subscribe, on NATS or in memory; the one module that imports nats."""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any, NoReturn, Protocol, Self

import msgspec
import structlog

from coordinator.credentials import check_seed, mend_for
from coordinator.wire import MAX_PAYLOAD_BYTES
from models.errors import CloudUnreachableError, ConfigError

_log = structlog.get_logger()

PING_S = 2
PINGS_MISSED = 2
"""A frozen or cut-off server is noticed after about 5 s; the library's defaults need minutes."""
CONNECT_S = 10.0
"""How long a process waits for NATS at its start; servers and roles may be started together."""
ROUND_TRIP_S = 2.0
"""How long the server may take to confirm a subscription."""
_WRITE_S = 1.0
"""How long ``publish`` waits for a server that does not read while 2 MiB are unsent; the library's default is for ever."""
_NO_RESPONDERS = "503"
"""Status with which nats-server says that nobody listens (NATS ADR-4)."""
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


class _Line:
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


class MemoryBus:
    """A Bus inside one process, for nodes that run as one process and for tests; starts no task. ``on_drop`` hears of every loss."""

    is_connected = True

    def __init__(self, *, on_drop: Callable[[], None] = lambda: None) -> None:
        self._lines: list[_Line] = []
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
        line = _Line(subject, queue, max_pending, self._on_drop)
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


class _Link:
    """What nats-py tells about its connection, and who wants to know; it only calls coroutines."""

    def __init__(self, name: str, on_state: Callable[[bool], None], on_drop: Callable[[], None]) -> None:
        self.lines: set[_Line] = set()
        self.on_drop = on_drop
        self._name = name
        self._on_state = on_state
        self.is_closed = asyncio.Event()
        self._is_up = False
        self._was_up = False
        self._told_refusal = False

    async def up(self) -> None:
        """Note that the server answers."""
        _log.info("bus_connected", name=self._name)
        self._is_up = self._was_up = True
        self._told_refusal = False
        self._on_state(True)  # noqa: FBT003 - the state itself

    async def down(self) -> None:
        """Note that it does not any more."""
        if self._is_up:
            _log.warning("bus_disconnected", name=self._name)
            self.leave()

    async def closed(self) -> None:
        """End every line: the library gave up or we left."""
        self.is_closed.set()
        for line in self.lines:
            line.end()

    async def failed(self, error: Exception) -> None:
        """Note what the library could not raise; being refused is told once, it is tried again every second or so."""
        if (mend := mend_for(str(error))) and not self._told_refusal:
            self._told_refusal = True
            _log.warning("bus_refused", name=self._name, reason=str(error), mend=mend)
        _log.debug("bus_error", name=self._name, error=type(error).__name__)
        if not self._was_up and _cancels():
            raise asyncio.CancelledError  # the library may have swallowed it between two tries to connect

    def leave(self) -> None:
        """Note that the connection ends."""
        if self._is_up:
            self._is_up = False
            self._on_state(False)  # noqa: FBT003 - the state itself


class NatsBus:
    """A Bus on a NATS server; open it with ``connect``."""

    def __init__(self, client: Any, link: _Link) -> None:
        self._client = client
        self._link = link

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
        on_drop: Callable[[], None] = lambda: None,
    ) -> AsyncGenerator[NatsBus, None]:
        """Connect, and reconnect until left or ``lost``; a server that is away for ``connect_s`` at the start is a ConfigError.

        ``nkey_seed`` is an NKey user seed. ``on_state`` hears every change of ``is_connected``, ``on_drop`` of every message lost.
        """
        link = _Link(name, on_state, on_drop)
        options: dict[str, Any] = {
            "name": name,
            "ping_interval": PING_S,
            "max_outstanding_pings": PINGS_MISSED,
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": 0.2,
            "reconnect_to_server_handler": _soon,
            "connect_timeout": 2,
            "flush_timeout": _WRITE_S,
            "error_cb": link.failed,
            "reconnected_cb": link.up,
            "disconnected_cb": link.down,
            "closed_cb": link.closed,
        }
        if nkey_seed:
            check_seed(nkey_seed)
            options["nkeys_seed_str"] = nkey_seed
        client = await _connected(url, options, connect_s)
        try:
            await link.up()
            yield cls(client, link)
        finally:
            link.leave()
            await client.close()

    async def lost(self) -> NoReturn:
        """Raise CloudUnreachableError once the library gave the connection up, with what the server said last.

        The library does so when the server says an error on an open connection, whatever its reason; a server that only goes away, or
        refuses a connection anew, it tries again for ever.
        """
        await self._link.is_closed.wait()
        reason = str(self._client.last_error or "") or "no reason given"
        raise CloudUnreachableError(f"NATS closed the connection for good: {reason}; {mend_for(reason)}".rstrip("; "))

    @property
    def is_connected(self) -> bool:
        """Whether the server answers pings."""
        return bool(self._client.is_connected)

    async def publish(self, subject: str, payload: bytes, *, reply: str = "", headers: Headers = None) -> None:
        """Send now; raise CloudUnreachableError when not connected (nothing is kept for later) or when too large."""
        import nats.errors

        if len(payload) > MAX_PAYLOAD_BYTES:
            raise CloudUnreachableError(f"{subject}: {len(payload)} bytes are over the limit of {MAX_PAYLOAD_BYTES}")
        if not self.is_connected:
            raise CloudUnreachableError(f"{subject}: not connected to NATS")
        cancels = _cancels()
        try:
            await self._client.publish(subject, payload, reply, dict(headers) if headers else None)
        except (nats.errors.Error, OSError) as error:
            raise CloudUnreachableError(f"{subject}: {type(error).__name__}") from error
        if _cancels() > cancels:
            raise asyncio.CancelledError  # the library swallows one that comes while it waits for a server that does not read

    @asynccontextmanager
    async def subscribe(
        self, subject: str, *, queue: str = "", max_pending: int = 1024
    ) -> AsyncGenerator[Subscription, None]:
        """Listen inside an ``async with``; the server knows of it when the body begins.

        While the connection is away the body begins without, and messages come once it is back. Raises CloudUnreachableError when the
        server does not confirm.
        """
        import nats.errors

        line = _Line(subject, queue, max_pending, self._link.on_drop)

        async def take(sent: Any) -> None:
            nobody = sent.headers is not None and sent.headers.get("Status") == _NO_RESPONDERS
            line.put(BusMessage(subject=sent.subject, payload=sent.data, reply=sent.reply, no_responders=nobody))

        try:
            # Without limits of its own, which would drop uncounted: ``take`` never waits, so the line is the only queue.
            subscription = await self._client.subscribe(
                subject, queue, cb=take, pending_msgs_limit=0, pending_bytes_limit=0
            )
        except (nats.errors.Error, OSError) as error:
            raise CloudUnreachableError(f"{subject}: {type(error).__name__}") from error
        self._link.lines.add(line)
        try:
            await self._round_trip(subject)
            yield line
        finally:
            self._link.lines.discard(line)
            line.end()
            with suppress(nats.errors.Error, OSError):
                await subscription.unsubscribe()
            await asyncio.sleep(0)  # in which the library's task for this subscription ends

    async def _round_trip(self, subject: str) -> None:
        """Return once the server has seen what was sent, at once while not connected.

        The library's own ``flush`` cancels its future when it is cancelled or late, and its reader dies of the pong that comes then.
        """
        if not self.is_connected:
            return
        pong: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        await self._client._send_ping(pong)  # noqa: SLF001  # see above
        done, _ = await asyncio.wait([pong], timeout=ROUND_TRIP_S)
        if not done:
            raise CloudUnreachableError(f"{subject}: NATS did not confirm within {ROUND_TRIP_S:g} s")


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
    except TimeoutError as error:
        await client.close()
        reason = str(client.last_error or "") or "it does not answer"
        raise ConfigError(
            f"cannot connect to NATS at {without_password(url)}: {reason}; is nats-server running there, and may this user in?"
        ) from error
    except asyncio.CancelledError:
        await client.close()
        raise
    except (nats.errors.Error, ValueError) as error:  # before anything was opened
        raise ConfigError(f"{without_password(url)!r} is no NATS address: write nats://host:port") from error
    return client


def without_password(url: str) -> str:
    """Return an address with its user and password masked, for messages."""
    return _USER.sub(r"\1***@", url)


def _cancels() -> int:
    """Return how often the running task was asked to end."""
    task = asyncio.current_task()
    return task.cancelling() if task else 0
