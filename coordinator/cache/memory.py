"""The nearest tier: this process's memory, bounded in bytes and entries, least recently used out first."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

MAX_ENTRIES = 10_000
MAX_BYTES = 64 * 1024 * 1024
"""Small beside an edge node's 2.5 GiB of engines; answers are about 300 bytes each. A guess."""
TTL_S = 300.0
"""Seed value for L1."""


class MemoryTier:
    """A CacheTier that lives and dies with the process."""

    name = "memory"

    def __init__(
        self,
        *,
        max_entries: int = MAX_ENTRIES,
        max_bytes: int = MAX_BYTES,
        ttl_s: float = TTL_S,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.max_entries = max_entries
        self.max_bytes = max_bytes
        self.ttl_s = ttl_s
        self._now = now
        self._entries: OrderedDict[str, tuple[float, bytes]] = OrderedDict()
        self.held_bytes = 0
        """Sum of the sizes of keys (in characters) and values held."""

    def __len__(self) -> int:
        return len(self._entries)

    async def get(self, key: str) -> bytes | None:
        """Return the value if it is known and young enough."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        expires_at, value = entry
        if self._now() >= expires_at:
            self._drop(key)
            return None
        self._entries.move_to_end(key)
        return value

    async def put(self, key: str, value: bytes) -> None:
        """Keep the value; what was used longest ago makes room, and a value larger than the tier is not kept."""
        self._drop(key)
        size = len(key) + len(value)
        if size > self.max_bytes:
            return
        while self._entries and (len(self._entries) >= self.max_entries or self.held_bytes + size > self.max_bytes):
            self._drop(next(iter(self._entries)))
        self._entries[key] = (self._now() + self.ttl_s, value)
        self.held_bytes += size

    def _drop(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.held_bytes -= len(key) + len(entry[1])
