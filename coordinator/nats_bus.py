"""A Bus on a NATS server; the one module that imports nats."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, NoReturn

import structlog

from coordinator.bus import BusMessage, Headers, Line, Subscription, without_password
from coordinator.credentials import RIGHTS_MEND, check_seed, forbidden_in, mend_for
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
MAX_TOLD = 64
"""Subjects of which it is told that they are forbidden; more say nothing new."""
RETURN_S = 0.2
"""Longest pause before the first try to come back; it doubles with every try."""
LONGEST_RETURN_S = 2.0
_NO_RESPONDERS = "503"
"""Status with which nats-server says that nobody listens (NATS ADR-4)."""


class _Link:
    """What nats-py tells about its connection, and who wants to know; it only calls coroutines."""

    def __init__(self, name: str, on_state: Callable[[bool], None], on_drop: Callable[[], None]) -> None:
        self.lines: set[Line] = set()
        self.on_drop = on_drop
        self._name = name
        self._on_state = on_state
        self.is_closed = asyncio.Event()
        self._is_up = False
        self._was_up = False
        self._told_refusal = False
        self._told_forbidden: set[tuple[str, str]] = set()

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
        reason = str(error)
        if (mend := mend_for(reason)) and not self._told_refusal:
            self._told_refusal = True
            _log.warning("bus_refused", name=self._name, reason=reason, mend=mend)
        self._tell_forbidden(reason)
        _log.debug("bus_error", name=self._name, error=type(error).__name__)
        if not self._was_up and _cancels():
            raise asyncio.CancelledError  # the library may have swallowed it between two tries to connect

    def _tell_forbidden(self, reason: str) -> None:
        """Tell what this process's key may not say or hear, once for each subject."""
        forbidden = forbidden_in(reason)
        if forbidden is not None and forbidden not in self._told_forbidden and len(self._told_forbidden) < MAX_TOLD:
            self._told_forbidden.add(forbidden)
            what, subject = forbidden
            _log.warning("bus_forbidden", name=self._name, what=what, subject=subject, mend=RIGHTS_MEND)

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
        import nats.aio.client

        link, client = _Link(name, on_state, on_drop), nats.aio.client.Client()
        coming_back = _Return(client)

        async def returned() -> None:
            coming_back.begin()
            await link.up()

        options: dict[str, Any] = {
            "name": name,
            "ping_interval": PING_S,
            "max_outstanding_pings": PINGS_MISSED,
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": 0.0,
            "reconnect_to_server_handler": coming_back,
            "connect_timeout": 2,
            "flush_timeout": _WRITE_S,
            "error_cb": link.failed,
            "reconnected_cb": returned,
            "disconnected_cb": link.down,
            "closed_cb": link.closed,
        }
        if nkey_seed:
            check_seed(nkey_seed)
            options["nkeys_seed_str"] = nkey_seed
        await _connect(client, url, options, connect_s)
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

        line = Line(subject, queue, max_pending, self._link.on_drop)

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


class _Return:
    """Tells the library when to try again: at once after a loss, then ever later, each time at a random moment of the pause.

    A server that is started anew is found within a second, and a fleet does not come back as one.
    """

    def __init__(self, client: Any) -> None:
        self._client = client
        self._tries = 0

    def begin(self) -> None:
        """Note that the connection stands."""
        self._tries = 0

    def __call__(self, servers: Sequence[Any], _info: Mapping[str, Any]) -> tuple[Any, float]:
        """Return which server to try next and after how many seconds; the socket of the try before is closed, which the library forgets."""
        if (transport := self._client._transport) is not None:  # noqa: SLF001  # see above
            transport.close()
        pause_s = min(RETURN_S * 2**self._tries, LONGEST_RETURN_S)
        self._tries = min(self._tries + 1, 16)
        return servers[0], random.uniform(0, pause_s)  # noqa: S311  # not a secret


async def _connect(client: Any, url: str, options: dict[str, Any], within_s: float) -> None:
    """Connect; raise ConfigError naming the address and the mend."""
    import nats.errors

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


def _cancels() -> int:
    """Return how often the running task was asked to end."""
    task = asyncio.current_task()
    return task.cancelling() if task else 0
