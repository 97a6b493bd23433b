"""The door: WebSockets to sessions, and the brain's messages to the session they are for; the one module that imports the server side."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
import uuid
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Protocol, Self

import msgspec
import structlog
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.protocol import State

from coordinator.bus import Bus, Subscription
from edge import seam
from edge.gateway.admission import TOLD_ALOUD, Admission, Caller, caller
from edge.gateway.lifetime import GOING_AWAY, TRY_LATER, SessionEnd
from edge.gateway.observer import DeafObserver, GatewayObserver
from edge.gateway.refusal import Patience, Refusals
from edge.gateway.session import DeviceSession, SessionOptions
from models.errors import ConfigError, DeviceAuthError, DeviceProtocolError

_log = structlog.get_logger()

MAX_MESSAGE_BYTES = 64 * 1024
"""A device's largest frame has 65,535 bytes (protocol §4.1)."""
MAX_MISSED_BEATS = 3
"""Beats a brain may miss before it counts as away (architecture, decision 9)."""
_OPEN_S = 5.0
"""How long an opening may take: a device sends its request at once."""
_CLOSE_S = 1.0
"""A device never answers a Close frame (protocol §4.1)."""
_MAX_QUEUE = 64
"""Frames read ahead: a device that was stalled sends 40 at once (protocol §6.1)."""
_SEND_BUFFER_BYTES = 64 * 1024
"""The kernel's, instead of megabytes: a device that does not read is noticed."""
_WRITE_AHEAD_BYTES = 8 * 1024
"""Sent before the kernel takes it: two seconds of speech, and a device that does not read is noticed as much sooner."""
_UNACKNOWLEDGED_MS = 20_000
"""What was sent and not acknowledged for so long ends the connection: the device left the Wi-Fi."""
_MAX_PENDING = 8192
"""Messages the bus may hold for us: seconds of speech of 150 devices."""


class Authenticator(Protocol):
    """Says who may come in."""

    def check(self, device_id: str, client_id: str, token: str) -> None:
        """Return if the token is this device's; raise DeviceAuthError otherwise. Must not block."""
        ...


class Gateway:
    """The sockets of one node's devices, inside an ``async with``; leaving ends every session within seconds."""

    def __init__(
        self,
        bus: Bus,
        *,
        node_id: str,
        authenticator: Authenticator,
        host: str,
        port: int,
        max_devices: int = 150,
        max_greeting: int = 50,
        max_refusing: int = 50,
        options: SessionOptions | None = None,
        patience: Patience | None = None,
        observer: GatewayObserver | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bus = bus
        self._node_id = node_id
        self._authenticator = authenticator
        self._host = host
        self._port = port
        self._options = options or SessionOptions()
        self._observer: GatewayObserver = observer or DeafObserver()
        self._now = now
        self._admission = Admission(max_devices=max_devices, max_greeting=max_greeting)
        self._refusals = Refusals(max_refusing, patience=patience, now=now)
        self._sessions: dict[str, DeviceSession] = {}
        self._devices: dict[str, DeviceSession] = {}
        self._is_empty = asyncio.Event()
        self._is_empty.set()
        self._missed_beats = 0
        self._has_heard_brain = False
        self._server: Server | None = None
        self._stack = AsyncExitStack()

    @property
    def active_devices(self) -> int:
        """Number of connected devices."""
        return len(self._sessions)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port it listens on; ConfigError outside the ``async with``."""
        if self._server is None:
            raise ConfigError("the gateway does not listen yet")
        host, port = next(iter(self._server.sockets)).getsockname()[:2]
        return host, port

    @property
    def is_brain_away(self) -> bool:
        """Whether no brain of this node was ever heard of, or none for more than MAX_MISSED_BEATS beats."""
        return not self._has_heard_brain or self._has_lost_brain

    @property
    def _has_lost_brain(self) -> bool:
        """The same for those who are connected: at start they give the brain as long as a brain that fell silent gets."""
        return self._missed_beats > MAX_MISSED_BEATS

    @property
    def is_ready(self) -> bool:
        """Whether a device that connects now would be served."""
        return self._server is not None and not self._admission.is_draining and not self.is_brain_away

    async def __aenter__(self) -> Self:
        """Listen; raise ConfigError when the address cannot be had."""
        async with AsyncExitStack() as stack:
            down = await stack.enter_async_context(
                self._bus.subscribe(seam.down_subject(self._node_id), max_pending=_MAX_PENDING)
            )
            beats = await stack.enter_async_context(self._bus.subscribe(seam.beat_subject(self._node_id)))
            await stack.enter_async_context(self._hearing(down, beats))
            self._server = await self._listen()
            stack.push_async_callback(self._close, self._server)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.__aexit__(kind, error, trace)

    async def drain(self, drain_s: float) -> None:
        """Admit nobody, end sessions as their turns end, and end the rest after ``drain_s``."""
        self._admission.is_draining = True
        for session in tuple(self._sessions.values()):
            session.drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(drain_s):
                await self._is_empty.wait()
        self._end_all()
        await self._is_empty.wait()

    # The brain's side.

    @asynccontextmanager
    async def _hearing(self, down: Subscription, beats: Subscription) -> AsyncGenerator[None, None]:
        hearing = asyncio.create_task(self._hear(down, beats), name="gateway-hearing")
        try:
            yield
        finally:
            hearing.cancel()
            await asyncio.wait([hearing])
            if not hearing.cancelled():
                hearing.result()

    async def _hear(self, down: Subscription, beats: Subscription) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._route(down), name="gateway-route")
                tasks.create_task(self._take_beats(beats), name="gateway-beats")
                tasks.create_task(self._miss_beats(), name="gateway-missed-beats")
        finally:
            # A gateway that hears nobody has no brain.
            self._missed_beats = MAX_MISSED_BEATS + 1

    async def _route(self, down: Subscription) -> None:
        async for packed in down:
            try:
                message = seam.decode_down(packed.payload)
            except (msgspec.MsgspecError, RecursionError):
                self._observer.dropped("undecodable")
                continue
            if session := self._sessions.get(message.session_id):
                session.receive(message)
            else:
                self._observer.dropped("no-session")

    async def _take_beats(self, beats: Subscription) -> None:
        async for packed in beats:
            try:
                seam.decode_beat(packed.payload)
            except (msgspec.MsgspecError, RecursionError):
                self._observer.dropped("undecodable")
            else:
                self._missed_beats = 0
                self._has_heard_brain = True

    async def _miss_beats(self) -> None:
        """Count a missed beat each time one is due: a loop that was held up counts one, however long it was."""
        while True:
            await asyncio.sleep(seam.BEAT_S)
            self._missed_beats += 1

    # The devices' side.

    async def _listen(self) -> Server:
        try:
            return await serve(
                self._serve,
                self._host,
                self._port,
                close_timeout=_CLOSE_S,
                compression=None,
                logger=_library_log(),
                max_queue=_MAX_QUEUE,
                max_size=MAX_MESSAGE_BYTES,
                open_timeout=_OPEN_S,
                ping_interval=None,
                process_request=self._admit,
                server_header=None,
                write_limit=_WRITE_AHEAD_BYTES,
            )
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {self._host}:{self._port}: {error.strerror or error}; set EDGE_GATEWAY_PORT"
            ) from error

    def _admit(self, connection: ServerConnection, request: Request) -> Response | None:
        """Turn a connection away before it costs anything, or let it open, if only to be told that there is no room."""
        try:
            who = _caller(request)
        except DeviceProtocolError as error:
            return self._refusal(connection, 400, "bad-header", str(error))
        code = self._no_room(who)
        if code and not self._can_be_told(code):
            return self._refusal(connection, 503, code, "no room on this node: try again later")
        try:
            self._authenticator.check(who.device_id, who.client_id, who.token)
        except DeviceAuthError as error:
            _log.info("device-refused", device_id=who.device_id, reason=str(error))
            return self._refusal(connection, 401, error.code, "boot again to get a new token")
        return None

    def _no_room(self, who: Caller) -> str:
        greeting = sum(not session.has_greeted for session in self._sessions.values())
        return self._admission.refusal(
            devices=len(self._sessions), greeting=greeting, is_known=who.device_id in self._devices
        )

    def _can_be_told(self, code: str) -> bool:
        return code in TOLD_ALOUD and self._refusals.has_room

    def _refusal(self, connection: ServerConnection, status: int, code: str, message: str) -> Response:
        self._observer.refused(code)
        response = connection.respond(status, msgspec.json.encode({"error": code, "message": message}).decode())
        del response.headers["Content-Type"]
        response.headers["Content-Type"] = "application/json"
        return response

    async def _serve(self, connection: ServerConnection) -> None:
        who = _caller(connection.request)
        _tune(connection)
        peer, session_id = WebSocket(connection), uuid.uuid4().hex
        # Others may have come in since the request was judged.
        if code := self._no_room(who):
            self._observer.refused(code)
            if self._can_be_told(code):
                await self._refusals.refuse(peer, who, code, session_id)
            else:
                await peer.close(TRY_LATER, code)
            return
        session = DeviceSession(
            peer,
            self._bus,
            node_id=self._node_id,
            session_id=session_id,
            device_id=who.device_id,
            client_id=who.client_id,
            version=who.version,
            options=self._options,
            observer=self._observer,
            is_brain_away=lambda: self._has_lost_brain,
            now=self._now,
        )
        reason = "broken"
        self._enter(session)
        try:
            reason = (await session.run()).reason
        finally:
            self._leave(session, reason)

    def _enter(self, session: DeviceSession) -> None:
        """Register the session; an older one of the same device gives way."""
        if older := self._devices.get(session.device_id):
            older.end(SessionEnd("replaced"))
        self._devices[session.device_id] = self._sessions[session.session_id] = session
        self._is_empty.clear()
        self._observer.devices(len(self._sessions))
        _log.info("device-connected", device_id=session.device_id, session_id=session.session_id)

    def _leave(self, session: DeviceSession, reason: str) -> None:
        del self._sessions[session.session_id]
        if self._devices.get(session.device_id) is session:
            del self._devices[session.device_id]
        if not self._sessions:
            self._is_empty.set()
        self._observer.devices(len(self._sessions))
        self._observer.ended(reason)
        _log.info("device-left", device_id=session.device_id, session_id=session.session_id, reason=reason)

    def _end_all(self) -> None:
        self._refusals.end()
        for session in tuple(self._sessions.values()):
            session.end(SessionEnd("shutting-down", GOING_AWAY))

    async def _close(self, server: Server) -> None:
        self._admission.is_draining = True
        self._end_all()
        server.close(close_connections=False)
        await server.wait_closed()


class WebSocket:
    """An open WebSocket as a session's socket."""

    def __init__(self, connection: ServerConnection) -> None:
        self._connection = connection

    @property
    def is_open(self) -> bool:
        """Whether neither side began to close."""
        return self._connection.state is State.OPEN

    async def recv(self) -> str | bytes | None:
        """Return the next message, None once the device is gone."""
        try:
            return await self._connection.recv()
        except ConnectionClosed:
            return None

    async def send(self, message: str | bytes) -> None:
        """Send, waiting for a device that does not read; does nothing once the device is gone."""
        with contextlib.suppress(ConnectionClosed):
            await self._connection.send(message)

    async def close(self, code: int, reason: str) -> None:
        """Close with a Close frame; the socket is gone within twice the closing time, whatever the device does."""
        try:
            async with asyncio.timeout(2 * _CLOSE_S):
                await self._connection.close(code, reason)
        except TimeoutError:
            self.abort()

    def abort(self) -> None:
        """Drop the socket at once."""
        self._connection.transport.abort()


class _OurFaults(logging.Filter):
    """Lets through what only a mistake of ours can cause; what strangers send to an open port is no news."""

    def filter(self, record: logging.LogRecord) -> bool:
        return record.msg in {"connection handler failed", "process_request failed"}


def _library_log() -> logging.Logger:
    log = logging.getLogger("edge.gateway.websockets")
    log.filters[:] = [_OurFaults()]
    return log


def _caller(request: Request | None) -> Caller:
    if request is None:
        raise DeviceProtocolError("a connection without a request")
    headers = request.headers
    return caller(
        headers.get_all("Device-Id"),
        headers.get_all("Client-Id"),
        headers.get_all("Authorization"),
        headers.get_all("Protocol-Version"),
        headers.get_all("Accept-Language"),
    )


def _tune(connection: ServerConnection) -> None:
    """Make the kernel notice devices that do not read or are gone."""
    raw = connection.transport.get_extra_info("socket")
    if raw is None:
        return
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
    if hasattr(socket, "TCP_USER_TIMEOUT") and raw.family in {socket.AF_INET, socket.AF_INET6}:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNACKNOWLEDGED_MS)
