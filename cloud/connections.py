"""HTTP/1.1 connections under httpx, made for many short streams to few servers: one asyncio protocol each, kept open between requests.

Measured against httpx's own on uvloop with 64 streams of 8 events at once: a sixth of the CPU for each request, since nothing is looked
through at every turn and no layer wakes per event. What it does not do: proxies, HTTP/2, upgrades, sending bodies in pieces.
"""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from types import TracebackType
from typing import Self, cast

import httpx

MAX_HEAD_BYTES = 64 * 1024
"""As h11 and most servers have it."""
PIECE_BYTES = 4096
"""Most that one read of a body returns, so that whoever reads slowly sees the clock between two."""
MAX_BUFFERED_BYTES = 256 * 1024
"""Beyond this the server is made to wait for the reader."""
KEEPALIVE_S = 4.0
"""vLLM's server closes a connection that was idle for 5 s; a request sent at that moment would be lost."""
_STATUS = re.compile(rb"HTTP/1\.([01]) (\d{3})(?: [^\r\n]*)?")
_HEADER = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n]*?)[ \t]*")
_CHUNK = re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?")
_DIGITS = re.compile(r"\d{1,15}")
_INTERIM, _NO_CONTENT, _NOT_MODIFIED = 100, 204, 304
_UNTIL_CLOSED = -1
_Origin = tuple[str, str, int]


class _Connection(asyncio.Protocol):
    """One connection: what came and was not read, and whether more will come."""

    def __init__(self, origin: _Origin) -> None:
        self.origin = origin
        self.idle_since_s = 0.0
        self.received = bytearray()
        self.is_closed = False
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._is_paused = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, _error: Exception | None) -> None:
        self.is_closed = True
        self._wake()

    def data_received(self, data: bytes) -> None:
        self.received += data
        if len(self.received) > MAX_BUFFERED_BYTES and self._transport is not None and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()
        self._wake()

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def abort(self) -> None:
        """Close at once, whatever was not sent."""
        if self._transport is not None:
            self._transport.abort()

    async def more(self) -> bool:
        """Return once more came, False when nothing more will."""
        if self._is_paused and self._transport is not None:
            self._is_paused = False
            self._transport.resume_reading()
        if self.is_closed:
            return False
        before = len(self.received)
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
        return len(self.received) > before

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Body(httpx.AsyncByteStream):
    """What follows a head: chunks, so many bytes, or all until the server closes."""

    def __init__(self, connection: _Connection, length: int | None, done: Callable[[_Connection, bool], None]) -> None:
        """``length`` is None for chunks, ``_UNTIL_CLOSED`` for all there is."""
        self._connection: _Connection | None = connection
        self._done = done
        self._is_chunked = length is None
        self._left = length or 0
        self._is_over = length == 0
        self._has_chunk = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._connection is not None and self._connection.received:
            await asyncio.sleep(0)  # where a reader that is out of time is told so, however much has come
        while not self._is_over:
            if self._connection is None:
                raise httpx.StreamClosed
            if data := self._taken(self._connection.received):
                return data
            if not self._is_over and not await self._connection.more():
                self._ended_by_server()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Give the connection back when all was read, close it when not."""
        connection, self._connection = self._connection, None
        if connection is not None:
            self._done(connection, self._is_over and self._left != _UNTIL_CLOSED)

    def _taken(self, received: bytearray) -> bytes:
        """Return what of the body has come."""
        if not self._is_chunked:
            return self._piece(received)
        pieces = []
        size = 0
        while size < PIECE_BYTES and not self._is_over and self._next_chunk(received):
            piece = self._piece(received)
            if not piece:
                break
            pieces.append(piece)
            size += len(piece)
        return b"".join(pieces)

    def _piece(self, received: bytearray) -> bytes:
        size = min(len(received), PIECE_BYTES, PIECE_BYTES if self._left == _UNTIL_CLOSED else self._left)
        piece = bytes(received[:size])
        del received[:size]
        if self._left != _UNTIL_CLOSED:
            self._left -= size
            self._is_over = not self._is_chunked and not self._left
        return piece

    def _next_chunk(self, received: bytearray) -> bool:
        """Return whether bytes of a chunk may be taken now."""
        if self._left:
            return True
        if self._has_chunk:
            if len(received) < len(b"\r\n"):
                return False
            if not received.startswith(b"\r\n"):
                raise httpx.RemoteProtocolError("a chunk is longer than it said")
            del received[:2]
            self._has_chunk = False
        line = _line(received, "a chunk's size")
        if line is None:
            return False
        size = _CHUNK.fullmatch(line)
        if size is None:
            raise httpx.RemoteProtocolError("a chunk has no size")
        self._left = int(size[1], 16)
        self._has_chunk = bool(self._left)
        if not self._left:
            self._is_over = self._skip_trailers(received, line)
        return bool(self._left)

    @staticmethod
    def _skip_trailers(received: bytearray, line: bytes) -> bool:
        """Return whether the body is over; put the last chunk's line back when its trailers have not come."""
        if received.startswith(b"\r\n"):
            del received[:2]
            return True
        end = received.find(b"\r\n\r\n")
        if end < 0:
            received[:0] = line + b"\r\n"
            return False
        del received[: end + 4]
        return True

    def _ended_by_server(self) -> None:
        if self._left != _UNTIL_CLOSED:
            raise httpx.RemoteProtocolError("the server closed the connection before its answer was complete")
        self._is_over = True


class Connections(httpx.AsyncBaseTransport):
    """A transport for ``httpx.AsyncClient``; nobody waits for a connection: requests beyond ``max_busy`` are refused."""

    def __init__(
        self,
        *,
        max_busy: int = 1024,
        max_idle: int = 64,
        ssl_context: ssl.SSLContext | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """``ssl_context`` is for https, the system's authorities when None."""
        self._max_busy = max_busy
        self._max_idle = max_idle
        self._ssl_context = ssl_context
        self._now = now
        self._idle: dict[_Origin, deque[_Connection]] = {}
        self._open: set[_Connection] = set()
        self._busy = 0

    @property
    def open(self) -> int:
        """Connections in use and idle."""
        return len(self._open)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send a request whose body is in memory and return its answer's head; the body is a stream.

        One whose connection, kept from before, turns out to be closed without a byte in answer is sent once more on a new one.
        Raises httpx.ConnectError, ConnectTimeout, PoolTimeout beyond ``max_busy``, or RemoteProtocolError for an answer that is none.
        Being cancelled closes the connection.
        """
        if self._busy >= self._max_busy:
            raise httpx.PoolTimeout(f"{self._max_busy} requests are under way")
        body = await request.aread()
        connection: _Connection | None = None
        is_ours = True
        self._busy += 1
        try:
            connection = self._reused(_origin(request))
            if connection is None or not await self._is_answered(connection, request, body):
                connection = await self._connected(request)
                connection.write(_head(request) + body)
            http_minor, status, headers = await _answered(connection)
            length = _length(request.method, status, headers)
            is_kept = http_minor == 1 and "close" not in headers.get("connection", "").lower()
            stream = _Body(connection, length, lambda used, is_whole: self._end(used, is_whole and is_kept))
            is_ours = False
            return httpx.Response(status, headers=headers, stream=stream)
        finally:
            if is_ours:
                self._end(connection, False)  # noqa: FBT003  # not to be used again

    async def aclose(self) -> None:
        """Close all connections; returns once none is open."""
        for connection in self._open.copy():
            self._release(connection, False)  # noqa: FBT003  # as above
        self._idle.clear()
        await asyncio.sleep(0)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        await self.aclose()

    async def _is_answered(self, connection: _Connection, request: httpx.Request, body: bytes) -> bool:
        """Send over a connection kept from before and return whether anything came; it is closed when not."""
        is_answered = False
        try:
            connection.write(_head(request) + body)
            is_answered = bool(connection.received) or await connection.more()
        finally:
            if not is_answered:
                self._release(connection, False)  # noqa: FBT003  # not to be used again
        return is_answered

    def _reused(self, origin: _Origin) -> _Connection | None:
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()  # the one used last: the others may grow old and go
            is_fresh = self._now() - connection.idle_since_s <= KEEPALIVE_S
            if is_fresh and not connection.is_closed and not connection.received:
                return connection
            self._release(connection, False)  # noqa: FBT003  # as above
        return None

    async def _connected(self, request: httpx.Request) -> _Connection:
        origin = _origin(request)
        scheme, host, port = origin
        within_s = request.extensions.get("timeout", {}).get("connect")
        try:
            async with asyncio.timeout(within_s):
                _, connection = await asyncio.get_running_loop().create_connection(
                    lambda: _Connection(origin), host, port, ssl=self._security() if scheme == "https" else None
                )
        except TimeoutError as error:
            raise httpx.ConnectTimeout(f"no connection within {within_s} s") from error
        except (OSError, ssl.CertificateError) as error:
            raise httpx.ConnectError(type(error).__name__) from error
        self._open.add(connection)
        return connection

    def _security(self) -> ssl.SSLContext:
        if self._ssl_context is None:
            self._ssl_context = ssl.create_default_context()
        return self._ssl_context

    def _end(self, connection: _Connection | None, is_usable: bool) -> None:  # noqa: FBT001  # private
        self._busy -= 1
        if connection is not None:
            self._release(connection, is_usable)

    def _release(self, connection: _Connection, is_usable: bool) -> None:  # noqa: FBT001  # private
        idle = self._idle.setdefault(connection.origin, deque())
        if is_usable and not connection.is_closed and not connection.received and len(idle) < self._max_idle:
            connection.idle_since_s = self._now()
            idle.append(connection)
            return
        self._open.discard(connection)
        connection.abort()


def _origin(request: httpx.Request) -> _Origin:
    url = request.url
    return url.scheme, url.host, url.port or (443 if url.scheme == "https" else 80)


def _head(request: httpx.Request) -> bytes:
    lines = [b"%s %s HTTP/1.1" % (request.method.encode("ascii"), request.url.raw_path)]
    lines += [b"%s: %s" % (name, value) for name, value in request.headers.raw]
    return b"\r\n".join([*lines, b"", b""])


async def _answered(connection: _Connection) -> tuple[int, int, httpx.Headers]:
    """Return minor version, status and headers of the answer; what goes before it is skipped."""
    while True:
        while (end := connection.received.find(b"\r\n\r\n")) < 0:
            if len(connection.received) > MAX_HEAD_BYTES:
                raise httpx.RemoteProtocolError("the answer's head is too long")
            if not await connection.more():
                raise httpx.RemoteProtocolError("the server closed the connection without an answer")
        head = bytes(connection.received[:end])
        del connection.received[: end + 4]
        first, *rest = head.split(b"\r\n")
        status = _STATUS.fullmatch(first)
        fields = [_HEADER.fullmatch(line) for line in rest]
        if status is None or None in fields:
            raise httpx.RemoteProtocolError("the answer is not HTTP")
        if int(status[2]) >= 2 * _INTERIM:
            return int(status[1]), int(status[2]), httpx.Headers([(field[1], field[2]) for field in fields if field])


def _length(method: str, status: int, headers: httpx.Headers) -> int | None:
    """Return how long the body is, None for chunks, ``_UNTIL_CLOSED`` when nobody says."""
    if method == "HEAD" or status in {_NO_CONTENT, _NOT_MODIFIED}:
        return 0
    if "chunked" in headers.get("transfer-encoding", "").lower():
        return None
    length = headers.get("content-length")
    if length is None:
        return _UNTIL_CLOSED
    if not _DIGITS.fullmatch(length):
        raise httpx.RemoteProtocolError("the answer's length is no number")
    return int(length)


def _line(received: bytearray, what: str) -> bytes | None:
    """Take a line out of what came, without its end; None when it is not whole."""
    end = received.find(b"\r\n")
    if end < 0:
        if len(received) > MAX_HEAD_BYTES:
            raise httpx.RemoteProtocolError(f"{what} is too long")
        return None
    line = bytes(received[:end])
    del received[: end + 2]
    return line
