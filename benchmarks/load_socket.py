"""A WebSocket of a simulated device with next to no cost of its own: ready-made frames out, the length of each message in.

The load generator shares its machine with the server it measures, so this takes the place of a general client: frames are masked
with a key of zero, which leaves the payload as it is, so one frame serves every device.
"""

from __future__ import annotations

import asyncio
import base64
import os
import struct
import time
from collections.abc import Callable, Mapping
from typing import Protocol, cast
from urllib.parse import urlsplit

from models.errors import DeviceError

_FIN = 0x80
_MASKED = 0x80
_TEXT, _BINARY, _CLOSE, _PING, _PONG = 0x1, 0x2, 0x8, 0x9, 0xA
_OPCODE_BITS = 0x0F
_LENGTH_BITS = 0x7F
_SHORT, _LENGTH_16, _LENGTH_64 = 125, 126, 127
"""RFC 6455 §5.2: lengths up to 125 stand in the second byte, 126 and 127 say that two or eight bytes follow."""
_NO_MASK = bytes(4)
_SWITCHING = 101


class Ears(Protocol):
    """Who is told what comes; every call has the time of arrival in seconds of ``time.monotonic``."""

    def opened(self, now_s: float) -> None:
        """Take it that the server said 101."""
        ...

    def heard_text(self, text: bytes, now_s: float) -> None:
        """Take one text message."""
        ...

    def heard_packet(self, packet_bytes: int, now_s: float) -> None:
        """Take one binary message of so many bytes."""
        ...

    def closed(self, reason: str) -> None:
        """Take it that the socket is gone; ``reason`` is "" or what the server said."""
        ...


def frame(payload: str | bytes) -> bytes:
    """Return a whole client message of at most 65,535 bytes as it goes over the wire."""
    body = payload.encode() if isinstance(payload, str) else payload
    return _frame(_TEXT if isinstance(payload, str) else _BINARY, body)


class DeviceSocket(asyncio.Protocol):
    """One device's connection; ``ears`` hear all of it, and are told ``closed`` exactly once."""

    def __init__(
        self, ears: Ears, url: str, headers: Mapping[str, str], *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._ears = ears
        self._request = _request(url, headers)
        self._now = now
        self._transport: asyncio.WriteTransport | None = None
        self._buffer = b""
        self._is_open = False
        self._reason = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Ask for a WebSocket."""
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's is one, and no subclass
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        """Hand on every message that is complete."""
        now_s = self._now()
        self._buffer = self._buffer + data if self._buffer else data
        if not self._is_open and not self._opening(now_s):
            return
        self._buffer = self._buffer[self._frames(now_s) :]

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell that the socket is gone."""
        self._transport = None
        self._ears.closed(self._reason or (type(exc).__name__ if exc else ""))

    def send(self, message: bytes) -> None:
        """Send what ``frame`` returned; does nothing once the socket is gone."""
        if self._transport is not None:
            self._transport.write(message)

    def hang_up(self) -> None:
        """Close TCP without a Close frame, as devices do."""
        if self._transport is not None:
            self._transport.close()

    def _opening(self, now_s: float) -> bool:
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end:
            return False
        status = int(head.split(b" ", 2)[1])
        if status != _SWITCHING:
            self._reason = f"answered {status}"
            self.hang_up()
            return False
        self._is_open, self._buffer = True, rest
        self._ears.opened(now_s)
        return True

    def _frames(self, now_s: float) -> int:
        """Hand on the whole frames at the buffer's beginning and return how long they were together."""
        buffer, position = self._buffer, 0
        while (found := _measured(buffer, position)) is not None:
            begin, end = found
            opcode = buffer[position] & _OPCODE_BITS
            if opcode == _BINARY:
                self._ears.heard_packet(end - begin, now_s)
            elif opcode == _TEXT:
                self._ears.heard_text(buffer[begin:end], now_s)
            elif opcode == _PING:
                self.send(_frame(_PONG, buffer[begin:end]))
            elif opcode == _CLOSE:
                self._reason = f"closed with {int.from_bytes(buffer[begin : begin + 2], 'big')}"
                self.hang_up()
            position = end
        return position


def place(url: str) -> tuple[str, int]:
    """Return host and port of a ws:// address; raise DeviceError for anything else."""
    parts = urlsplit(url)
    if parts.scheme != "ws" or not parts.hostname:
        raise DeviceError(f"{url!r} is no address the load generator can use: write ws://host:port/path")
    return parts.hostname, parts.port or 80


def _frame(opcode: int, body: bytes) -> bytes:
    if len(body) <= _SHORT:
        head = bytes((_FIN | opcode, _MASKED | len(body)))
    else:
        head = struct.pack("!BBH", _FIN | opcode, _MASKED | _LENGTH_16, len(body))
    return head + _NO_MASK + body


def _request(url: str, headers: Mapping[str, str]) -> bytes:
    parts = urlsplit(url)
    key = base64.b64encode(os.urandom(16)).decode()
    fixed = {
        "Host": parts.hostname or "",  # without the port, as the firmware (protocol §4.1)
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": key,
    }
    lines = [f"{name}: {value}" for name, value in {**fixed, **headers}.items()]
    return "\r\n".join([f"GET {parts.path or '/'} HTTP/1.1", *lines, "", ""]).encode()


def _measured(buffer: bytes, position: int) -> tuple[int, int] | None:
    """Return where the payload of the frame at ``position`` begins and ends; None while it is not complete."""
    begin = position + 2
    if len(buffer) < begin:
        return None
    length = buffer[position + 1] & _LENGTH_BITS
    extra = {_LENGTH_16: 2, _LENGTH_64: 8}.get(length, 0)
    if extra:
        if len(buffer) < begin + extra:
            return None
        length = int.from_bytes(buffer[begin : begin + extra], "big")
        begin += extra
    end = begin + length
    return (begin, end) if len(buffer) >= end else None
