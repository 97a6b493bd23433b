"""How a value is stored outside this process: sealed to its key, so that what is cut short, changed or swapped is known for what it is; pure.

4 bytes   magic and version
1 byte    1 if the value is compressed
8 bytes   when it was made, Unix ms, big-endian
8 bytes   when it is too old, the same
16 bytes  BLAKE2b over all the others and the key
the rest  the value
"""

from __future__ import annotations

import hashlib
import zlib

import msgspec

from models.errors import CacheError

MAGIC = b"XFC1"
MAX_VALUE_BYTES = 16 * 1024 * 1024
"""What is unpacked at most: an answer of five minutes is about 1.2 MB of packets."""
COMPRESS_FROM_BYTES = 512
"""Shorter ones do not get shorter. Measured on answers: 300 bytes shrink by a tenth, 2 kB by half."""
_WORTH = 0.9
"""A compressed value is kept as such when it has at most this share of its bytes."""
_TIME_BYTES = 8
_DIGEST_BYTES = 16
_HEAD_BYTES = len(MAGIC) + 1 + 2 * _TIME_BYTES
_FULL_BYTES = _HEAD_BYTES + _DIGEST_BYTES


class Sealed(msgspec.Struct, frozen=True, kw_only=True):
    """A value that was sealed under this key."""

    value: bytes
    made_at_s: float
    """Seconds since 1970, to the millisecond."""
    expires_at_s: float


def seal(key: str, value: bytes, *, made_at_s: float, expires_at_s: float, compress: bool = False) -> bytes:
    """Return the stored form; with ``compress`` the value is shortened where that pays."""
    is_short = False
    if compress and len(value) >= COMPRESS_FROM_BYTES:
        shorter = zlib.compress(value, 1)
        if len(shorter) <= _WORTH * len(value):
            value, is_short = shorter, True
    head = MAGIC + bytes([is_short]) + _ms(made_at_s) + _ms(expires_at_s)
    return head + _digest(key, head, value) + value


def unseal(key: str, stored: bytes, now_s: float) -> Sealed | None:
    """Return what was sealed, None when it is too old; raise CacheError for anything that was not sealed under this key."""
    head, value = stored[:_HEAD_BYTES], stored[_FULL_BYTES:]
    if not head.startswith(MAGIC) or stored[_HEAD_BYTES:_FULL_BYTES] != _digest(key, head, value):
        raise CacheError("a stored value is damaged, or another one's")
    made_at_s, expires_at_s = (
        int.from_bytes(head[start : start + _TIME_BYTES], "big") / 1000 for start in (5, 5 + _TIME_BYTES)
    )
    if expires_at_s <= now_s:
        return None
    return Sealed(value=_unpacked(value) if head[len(MAGIC)] else value, made_at_s=made_at_s, expires_at_s=expires_at_s)


def _unpacked(value: bytes) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        whole = unpacker.decompress(value, MAX_VALUE_BYTES)
    except zlib.error as error:
        raise CacheError("a stored value cannot be unpacked") from error
    if not unpacker.eof:
        raise CacheError("a stored value is larger than any of ours")
    return whole


def _digest(key: str, head: bytes, value: bytes) -> bytes:
    digest = hashlib.blake2b(key.encode(), digest_size=_DIGEST_BYTES)
    digest.update(head)
    digest.update(value)
    return digest.digest()


def _ms(at_s: float) -> bytes:
    return int(at_s * 1000).to_bytes(_TIME_BYTES, "big")
