"""Key-value buckets: named values with revisions and a history, kept by JetStream or, for one process and tests, in memory."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Protocol

import msgspec
import structlog

from coordinator import wire
from coordinator.jetstream import JetStream, Kept
from models.errors import CloudUnreachableError, ConfigError

_log = structlog.get_logger()

RETRY_S = 2.0
"""Shortest pause before a bucket that is away is asked again; up to twice that, so that a fleet does not come back as one. A guess."""
REFUSED_S = 20.0
"""The same for one that is not made yet or does not let us in: that question crosses to the hub each time. A guess."""
MAX_HISTORY = 64
"""More values of one key a bucket does not keep (NATS ADR-8)."""
_NS = 1_000_000_000


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One value of a key."""

    key: str
    value: bytes
    revision: int
    """Counts up with every value put into the bucket, from 1."""
    at_s: float
    """When it was put, in seconds since 1970."""


class Keeping(msgspec.Struct, frozen=True, kw_only=True):
    """How a bucket keeps its values."""

    history: int = 1
    """Newest values kept of each key, 1 to 64."""
    max_age_s: float = 0.0
    """Seconds after which a value is forgotten, 0 for never."""
    replicas: int = 1
    """Servers of a cluster that keep it, 1 to 5; a single server takes 1 only."""


class Bucket(Protocol):
    """Values by key; a value is not empty and at most ``wire.MAX_PAYLOAD_BYTES`` long."""

    async def get(self, key: str) -> Entry | None:
        """Return the newest value, None when there is none; raise CloudUnreachableError, ConfigError."""
        ...

    async def put(self, key: str, value: bytes, *, expected: int | None = None) -> int | None:
        """Add a value and return its revision; raise CloudUnreachableError, ConfigError.

        ``expected`` is the revision the newest value must have, 0 for no value yet; returns None, nothing changed, when it has another.
        """
        ...

    async def history(self, key: str) -> tuple[Entry, ...]:
        """Return the values that are kept, oldest first; raise CloudUnreachableError, ConfigError."""
        ...

    def watch(self, key: str) -> AsyncGenerator[Entry, None]:
        """Yield the newest value, if any, and then each newer one, for ever; values in between may be left out.

        Never raises: a bucket that is away or not made yet is waited for, and what was missed is made good.
        """
        ...


class JetStreamBucket:
    """A Bucket that JetStream keeps, the same that ``nats kv`` shows."""

    def __init__(self, streams: JetStream, name: str, *, rng: random.Random | None = None) -> None:
        self._streams = streams
        self._name = wire.token(name)
        self._stream = f"KV_{name}"
        self._rng = rng or random.Random()  # noqa: S311  # not a secret

    async def make(self, keeping: Keeping) -> None:
        """Make the bucket, or have the one there is keep as told; raise CloudUnreachableError, ConfigError."""
        max_age_ns = int(keeping.max_age_s * _NS)
        await self._streams.make(
            {
                "name": self._stream,
                "subjects": [f"$KV.{self._name}.>"],
                "max_msgs_per_subject": keeping.history,
                "max_age": max_age_ns,
                "max_bytes": -1,
                "num_replicas": keeping.replicas,
                "duplicate_window": min(max_age_ns, 120 * _NS) or 120 * _NS,
                "storage": "file",
                "discard": "new",
                "allow_rollup_hdrs": True,
                "deny_delete": True,
                "allow_direct": True,
            }
        )

    async def is_made(self) -> bool:
        """Return whether there is such a bucket; raise CloudUnreachableError, ConfigError."""
        return await self._streams.has(self._stream)

    async def get(self, key: str) -> Entry | None:
        """Return the newest value, None when there is none; raise CloudUnreachableError, ConfigError."""
        kept = await self._streams.last(self._stream, self._subject(key))
        return _entry(key, kept) if kept and kept.payload else None

    async def put(self, key: str, value: bytes, *, expected: int | None = None) -> int | None:
        """Add a value and return its revision, None when ``expected`` is not the newest; raise CloudUnreachableError, ConfigError."""
        return await self._streams.store(self._subject(key), value, expected=expected)

    async def history(self, key: str) -> tuple[Entry, ...]:
        """Return the values that are kept, oldest first; raise CloudUnreachableError, ConfigError."""
        if not await self.is_made():
            return ()
        async with aclosing(self._streams.read(self._stream, self._subject(key))) as kept:
            return tuple([_entry(key, one) async for one in kept if one.payload])

    async def watch(self, key: str) -> AsyncGenerator[Entry, None]:
        """Yield the newest value, if any, and then each newer one, for ever; values in between may be left out."""
        seen, is_away = 0, False
        while True:
            try:
                async with aclosing(self._streams.follow(self._stream, self._subject(key))) as following:
                    async for kept in following:
                        is_away = False
                        if kept.sequence != seen:
                            seen = kept.sequence
                            if kept.payload:
                                yield _entry(key, kept)
            except (CloudUnreachableError, ConfigError) as error:
                if not is_away:
                    _log.info("bucket_away", bucket=self._name, reason=str(error))
                is_away = True
                pause_s = RETRY_S if isinstance(error, CloudUnreachableError) else REFUSED_S
                await asyncio.sleep(pause_s * (1 + self._rng.random()))

    def _subject(self, key: str) -> str:
        return f"$KV.{self._name}.{wire.token(key)}"


class MemoryBucket:
    """A Bucket inside one process; forgets with it."""

    def __init__(self, keeping: Keeping | None = None, *, now: Callable[[], float] = time.time) -> None:
        self._keeping = keeping or Keeping(history=MAX_HISTORY)
        self._now = now
        self._entries: dict[str, tuple[Entry, ...]] = {}
        self._revision = 0
        self._changed = asyncio.Event()

    async def get(self, key: str) -> Entry | None:
        """Return the newest value, None when there is none."""
        return next(reversed(await self.history(key)), None)

    async def put(self, key: str, value: bytes, *, expected: int | None = None) -> int | None:
        """Add a value and return its revision, None when ``expected`` is not the newest."""
        older = await self.history(key)
        if expected is not None and expected != (older[-1].revision if older else 0):
            return None
        self._revision += 1
        entry = Entry(key=key, value=value, revision=self._revision, at_s=self._now())
        self._entries[key] = (*older, entry)[-self._keeping.history :]
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
        return entry.revision

    async def history(self, key: str) -> tuple[Entry, ...]:
        """Return the values that are kept, oldest first."""
        entries = self._entries.get(wire.token(key), ())
        oldest_s = self._now() - self._keeping.max_age_s if self._keeping.max_age_s else float("-inf")
        return tuple(entry for entry in entries if entry.at_s >= oldest_s)

    async def watch(self, key: str) -> AsyncGenerator[Entry, None]:
        """Yield the newest value, if any, and then each newer one, for ever; values in between may be left out."""
        seen = 0
        while True:
            changed = self._changed
            newest = await self.get(key)
            if newest is not None and newest.revision != seen:
                seen = newest.revision
                yield newest
            else:
                await changed.wait()


def _entry(key: str, kept: Kept) -> Entry:
    return Entry(key=key, value=kept.payload, revision=kept.sequence, at_s=kept.at_s)
