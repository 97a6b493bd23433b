"""Opus packets to the binary messages of protocol versions 1, 2 and 3, and back; all integers big-endian."""

from __future__ import annotations

import struct

import msgspec

from models.errors import DeviceProtocolError

BARE, TIMED, SHORT = VERSIONS = (1, 2, 3)
"""Payload only; with a timestamp; with a length only (protocol §5)."""
_V2 = struct.Struct(">HHIII")
"""version, type, reserved, timestamp in ms, payload bytes: firmware ``BinaryProtocol2`` in main/protocols/protocol.h."""
_V3 = struct.Struct(">BBH")
"""type, reserved, payload bytes: firmware ``BinaryProtocol3``."""
_OPUS = 0
_MAX_TIMESTAMP_MS = 2**32
_MAX_V3_BYTES = 2**16 - 1


class BinaryFrame(msgspec.Struct, frozen=True, kw_only=True):
    """One binary message."""

    payload: bytes
    """An Opus packet."""
    timestamp_ms: int = 0
    """In [0, 2**32); 0 when unknown, and always in versions 1 and 3."""


def encode(frame: BinaryFrame, version: int) -> bytes:
    """Return the message; a larger timestamp wraps. Raise DeviceProtocolError for what the version cannot carry."""
    payload = frame.payload
    if version == BARE:
        return payload
    if version == TIMED:
        return _V2.pack(TIMED, _OPUS, 0, frame.timestamp_ms % _MAX_TIMESTAMP_MS, len(payload)) + payload
    if version != SHORT:
        raise DeviceProtocolError(f"binary protocol version {version} is none of {VERSIONS}")
    if len(payload) > _MAX_V3_BYTES:
        raise DeviceProtocolError(f"a packet of {len(payload)} bytes does not fit version 3")
    return _V3.pack(_OPUS, 0, len(payload)) + payload


def decode(message: bytes, version: int) -> BinaryFrame:
    """Return what the message carries; raise DeviceProtocolError when its header is short, foreign or lies about the length."""
    if version == BARE:
        return BinaryFrame(payload=message)
    if version == TIMED:
        return _decode_v2(message)
    if version == SHORT:
        return _decode_v3(message)
    raise DeviceProtocolError(f"binary protocol version {version} is none of {VERSIONS}")


def pack(packet: bytes, version: int) -> bytes:
    """Return the message that carries ``packet`` without a timestamp; raise as ``encode`` does."""
    return encode(BinaryFrame(payload=packet), version)


def unpack(message: bytes, version: int) -> bytes:
    """Return the packet the message carries; raise as ``decode`` does."""
    return decode(message, version).payload


def _decode_v2(message: bytes) -> BinaryFrame:
    _need(message, _V2.size)
    version, kind, _reserved, timestamp_ms, payload_bytes = _V2.unpack_from(message)
    if version != TIMED:
        raise DeviceProtocolError(f"a version 2 header says version {version}")
    return BinaryFrame(payload=_payload(message, _V2.size, kind, payload_bytes), timestamp_ms=timestamp_ms)


def _decode_v3(message: bytes) -> BinaryFrame:
    _need(message, _V3.size)
    kind, _reserved, payload_bytes = _V3.unpack_from(message)
    return BinaryFrame(payload=_payload(message, _V3.size, kind, payload_bytes))


def _need(message: bytes, header_bytes: int) -> None:
    if len(message) < header_bytes:
        raise DeviceProtocolError(f"a message of {len(message)} bytes is shorter than its header of {header_bytes}")


def _payload(message: bytes, header_bytes: int, kind: int, payload_bytes: int) -> bytes:
    if kind != _OPUS:
        raise DeviceProtocolError(f"a binary message of type {kind}; only {_OPUS} (Opus) exists")
    if payload_bytes != len(message) - header_bytes:
        raise DeviceProtocolError(f"a header says {payload_bytes} bytes, {len(message) - header_bytes} follow")
    return message[header_bytes:]
