"""A stub of an OpenAI-compatible server, lean enough not to be what is measured: ``python -m benchmarks.bus_upstream PORT``.

The last message's text is the plan of the answer: ``tokens first_ms gap_ms name``. ``GET /watched`` tells how the named answers ended and
what the process used; an answer called "-" is not kept.
"""

from __future__ import annotations

import asyncio
import re
import sys
import time
from collections import deque
from typing import cast

import msgspec

from benchmarks.bus_loop import loop_factory

MAX_ENDINGS = 20_000
"""Endings kept for whoever asks; the oldest goes."""
_PLAN = re.compile(rb'"content":\s*"(\d+) (\d+) (\d+) ([\w-]+)"')
_LENGTH = re.compile(rb"content-length:\s*(\d+)", re.IGNORECASE)
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How one answer ended; times on the machine's monotonic clock."""

    name: str
    at_s: float
    is_whole: bool
    written_s: tuple[float, ...]
    """When each token was written."""


class Watched(msgspec.Struct, frozen=True, kw_only=True):
    """What the stub saw since it was last asked."""

    endings: tuple[Ending, ...]
    open: int
    """Answers under way."""


def _chunk(data: bytes) -> bytes:
    event = b"data: " + data + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(event), event)


_TOKEN = _chunk('{"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"好"}}]}'.encode())
_LAST = (
    _chunk(b'{"object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}')
    + _chunk(b'{"object":"chat.completion.chunk","choices":[],"usage":{"prompt_tokens":9,"completion_tokens":8}}')
    + _chunk(b"[DONE]")
    + b"0\r\n\r\n"
)
_MODELS = b'HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 27\r\n\r\n{"object":"list","data":[]}'


class Stub:
    """What the connections share."""

    def __init__(self) -> None:
        self.endings: deque[Ending] = deque(maxlen=MAX_ENDINGS)
        self.open = 0

    def watched(self) -> bytes:
        """Return what was seen as an HTTP answer, and forget it."""
        body = msgspec.json.encode(Watched(endings=tuple(self.endings), open=self.open))
        self.endings.clear()
        return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


class Connection(asyncio.Protocol):
    """One connection: requests one after another."""

    def __init__(self, stub: Stub) -> None:
        self._stub = stub
        self._received = b""
        self._transport: asyncio.Transport | None = None
        self._answering: tuple[str, int, float] | None = None
        self._written_s: list[float] = []
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, _error: Exception | None) -> None:
        """Note an answer nobody waited for."""
        self._transport = None
        if self._timer is not None:
            self._timer.cancel()
        if self._answering is not None:
            self._end(is_whole=False)

    def data_received(self, data: bytes) -> None:
        """Take a request once it is whole."""
        self._received += data
        head, found, rest = self._received.partition(b"\r\n\r\n")
        if not found:
            return
        length = _LENGTH.search(head)
        size = int(length[1]) if length else 0
        if len(rest) < size:
            return
        body, self._received = rest[:size], rest[size:]
        self._asked(head, body)

    def _asked(self, head: bytes, body: bytes) -> None:
        if head.startswith(b"GET /watched"):
            self._write(self._stub.watched())
        elif head.startswith(b"GET"):
            self._write(_MODELS)
        else:
            self._answer(body)

    def _answer(self, body: bytes) -> None:
        plans = _PLAN.findall(body)
        tokens, first_ms, gap_ms, name = plans[-1] if plans else (b"8", b"0", b"0", b"-")
        self._stub.open += 1
        self._answering = (name.decode(), int(tokens), int(gap_ms) / 1000)
        self._written_s = []
        self._write(_HEAD)
        if int(first_ms):
            self._later(int(first_ms) / 1000)
        else:
            self._token()

    def _later(self, wait_s: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._token)

    def _token(self) -> None:
        while self._answering is not None:
            _, tokens, gap_s = self._answering
            if len(self._written_s) == tokens:
                self._write(_LAST)
                self._end(is_whole=True)
                return
            self._written_s.append(time.monotonic())
            self._write(_TOKEN)
            if gap_s and len(self._written_s) < tokens:
                self._later(gap_s)
                return

    def _end(self, *, is_whole: bool) -> None:
        if self._answering is not None:
            name = self._answering[0]
            self._answering = None
            self._stub.open -= 1
            if name != "-":
                ending = Ending(name=name, at_s=time.monotonic(), is_whole=is_whole, written_s=tuple(self._written_s))
                self._stub.endings.append(ending)

    def _write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)


async def serve(port: int) -> None:
    """Serve on 127.0.0.1 until cancelled."""
    stub = Stub()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(stub), "127.0.0.1", port, backlog=1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(serve(int(sys.argv[1])))
