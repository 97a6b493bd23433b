"""Writes to a far tier, behind the turn that made the value: a bounded line, emptied by one task."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

from coordinator.cache.guard import Guard
from coordinator.cache.tiers import FarTier
from models.errors import CacheError

MAX_WAITING = 4096
MAX_WAITING_BYTES = 32 * 1024 * 1024
"""Values that may wait to be written; about 1,300 spoken sentences."""
WRITE_S = 1.0
"""How long one write may take; nobody waits for it."""

Written = Literal["written", "write-failed", "write-dropped"]


class WriteBehind:
    """The writes of one tier; ``run`` it in a task. A value that is put twice before it is written is written once."""

    def __init__(self, tier: FarTier, guard: Guard, observe: Callable[[str, str, Written], None]) -> None:
        """``observe`` hears key, tier and result of each write."""
        self._tier = tier
        self._guard = guard
        self._observe = observe
        self._waiting: OrderedDict[str, tuple[bytes, float] | None] = OrderedDict()
        self._has_some = asyncio.Event()
        self._is_empty = asyncio.Event()
        self._is_empty.set()
        self.bytes = 0
        """Size of what waits."""

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, key: str, stored: bytes, ttl_s: float) -> None:
        """Write the value soon, or once the tier is back; it is dropped when too much waits."""
        self._forget(key)
        is_full = len(self._waiting) >= MAX_WAITING or self.bytes + len(stored) > MAX_WAITING_BYTES
        if is_full:
            self._observe(key, self._tier.name, "write-dropped")
            return
        self.bytes += len(stored)
        self._add(key, (stored, ttl_s))

    def drop(self, key: str) -> None:
        """Delete the value soon."""
        self._forget(key)
        if len(self._waiting) < MAX_WAITING:
            self._add(key, None)

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            await self._has_some.wait()
            while self._waiting:
                await self._guard.closed()
                if not self._waiting:
                    break
                key, write = self._waiting.popitem(last=False)
                self.bytes -= len(write[0]) if write else 0
                await self._write(key, write)
            self._has_some.clear()
            self._is_empty.set()

    async def emptied(self, within_s: float) -> None:
        """Return once all was written, after ``within_s`` at the latest, and at once when the tier is left alone."""
        if self._guard.is_open:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._is_empty.wait()

    async def _write(self, key: str, write: tuple[bytes, float] | None) -> None:
        try:
            async with asyncio.timeout(WRITE_S):
                if write is None:
                    await self._tier.drop(key)
                else:
                    await self._tier.put(key, *write)
        except CacheError:
            self._guard.failed()
            self._observe(key, self._tier.name, "write-failed")
        except TimeoutError:
            self._guard.failed(late=True)
            self._observe(key, self._tier.name, "write-failed")
        else:
            self._observe(key, self._tier.name, "written")

    def _add(self, key: str, write: tuple[bytes, float] | None) -> None:
        self._waiting[key] = write
        self._has_some.set()
        self._is_empty.clear()

    def _forget(self, key: str) -> None:
        write = self._waiting.pop(key, None)
        self.bytes -= len(write[0]) if write else 0
