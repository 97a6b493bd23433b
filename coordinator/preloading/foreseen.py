"""What the coordinator tells the edges of a group about the next hour: what will be asked for, and how surely; pure."""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from coordinator.preloading.reports import MAX_TEXT_CHARS
from coordinator.wire import MAX_PAYLOAD_BYTES

MAX_CONTENTS = 1500
"""Contents named at most: a shelf of 32 MiB holds about as many spoken answers."""
_HEAD_BYTES = 512
_CONTENT_BYTES = 128
"""What a content takes in a message beside its words, at most."""
_CONTENT = re.compile(r"[a-z]{1,16}:[0-9a-f]{64}")


class Content(msgspec.Struct, frozen=True, array_like=True):
    """One content that may be asked for."""

    key: str
    """A cache key, ``<kind>:<64 hex digits>``."""
    at_edge: float
    """Probability that one edge of the group is asked for it, 0 to 1."""
    in_fleet: float
    """Probability that anybody is, 0 to 1."""
    expected: float
    """Asks at one edge, 0 or more."""
    text: str = ""
    """Words it is made from; "" when no edge may tell them."""


class Foreseen(msgspec.Struct, frozen=True, kw_only=True):
    """An hour of one group."""

    group: str
    hour: int
    """Hours since 1970, UTC."""
    contents: tuple[Content, ...]
    """Most probable at an edge first."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Foreseen)


def encode_foreseen(group: str, hour: int, contents: Iterable[Content]) -> bytes:
    """Return the message; contents are in the order of their worth, and those no message can carry are left out."""
    kept: list[Content] = []
    room = MAX_PAYLOAD_BYTES - _HEAD_BYTES
    for content in contents:
        room -= _CONTENT_BYTES + len(content.text.encode())
        if room < 0 or len(kept) == MAX_CONTENTS:
            break
        kept.append(content)
    kept.sort(key=lambda content: -content.at_edge)
    return _encoder.encode(Foreseen(group=group, hour=hour, contents=tuple(kept)))


def decode_foreseen(raw: bytes) -> Foreseen:
    """Return what is foreseen; raise msgspec.MsgspecError for anything else, broken text and endless nesting included."""
    try:
        foreseen = _decoder.decode(raw)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(type(error).__name__) from error
    if len(foreseen.contents) > MAX_CONTENTS or not all(_is_sound(content) for content in foreseen.contents):
        raise msgspec.ValidationError("a forecast with contents beyond their bounds")
    return foreseen


def _is_sound(content: Content) -> bool:
    return (
        _CONTENT.fullmatch(content.key) is not None
        and 0 <= content.at_edge <= 1
        and 0 <= content.in_fleet <= 1
        and 0 <= content.expected < float("inf")
        and len(content.text) <= MAX_TEXT_CHARS
    )
