"""What an operator wants forgotten, as marks in time: a value under a prefix that was made before its mark is a miss everywhere at once.

Deleting from three tiers of a thousand machines takes minutes and misses those that are away; a mark travels in one small message, and an
edge that was away reads it when it is back.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Self

import msgspec

from models.errors import ConfigError

MAX_MARKS = 256
"""Marks kept; the oldest goes: by then all that it was about is too old anyway, if marks are hours apart."""
_PREFIX = re.compile(r"(?:[a-z]+(?::[0-9a-f]{0,64})?)?")


class Purges(msgspec.Struct, frozen=True, kw_only=True):
    """Marks by prefix of a key; "" is everything, "speech:" a kind, a whole key one value."""

    marks: Mapping[str, float] = {}
    """Seconds since 1970."""

    def forget(self, key: str, made_at_s: float) -> bool:
        """Return whether a value made then is to be forgotten."""
        return any(made_at_s < at_s and key.startswith(prefix) for prefix, at_s in self.marks.items())

    def marked(self, prefix: str, at_s: float) -> Self:
        """Return these with one more mark; raise ConfigError for what cannot begin a key."""
        if not _PREFIX.fullmatch(prefix):
            raise ConfigError(f"{prefix[:80]!r} cannot begin a key of the cache: write a kind, or a kind and a digest")
        kept = dict(self.marks)
        kept.pop(prefix, None)
        kept[prefix] = at_s
        while len(kept) > MAX_MARKS:
            del kept[min(kept, key=kept.__getitem__)]
        return msgspec.structs.replace(self, marks=kept)

    def newer_than(self, others: Purges) -> Iterator[str]:
        """Yield the prefixes whose mark is not among the others', or is later there."""
        for prefix, at_s in self.marks.items():
            if at_s > others.marks.get(prefix, 0.0):
                yield prefix


def decode_purges(payload: bytes) -> Purges:
    """Return the marks; raise ConfigError for anything else."""
    try:
        purges = msgspec.json.decode(payload, type=Purges)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"marks of the cache cannot be read: {str(error)[:200]}") from error
    if len(purges.marks) > MAX_MARKS or not all(_PREFIX.fullmatch(prefix) for prefix in purges.marks):
        raise ConfigError("marks of the cache name what cannot begin a key")
    return purges
