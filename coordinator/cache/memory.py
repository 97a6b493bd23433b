"""The nearest tier: this process's memory, bounded in bytes and entries; what is asked for most stays (W-TinyLFU, by moka).

A value seldom asked for does not push out one that often is: it may not be let in at all. ``python -m benchmarks cache`` compares that with
throwing out what was used longest ago.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Literal

from coordinator.cache.kinds import TierName, kind_of

MAX_ENTRIES = 20_000
MAX_BYTES = 64 * 1024 * 1024
"""Small beside an edge node's 2.5 GiB of engines: about 2,700 spoken sentences, or four hours of speech. A guess."""
_ENTRY_BYTES = 400
"""What an entry takes beyond key and value, about."""

Policy = Literal["tiny_lfu", "lru"]


class MemoryTier:
    """The NearTier that lives and dies with the process."""

    name = TierName.MEMORY

    def __init__(
        self,
        *,
        max_entries: int = MAX_ENTRIES,
        max_bytes: int = MAX_BYTES,
        policy: Policy = "tiny_lfu",
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Hold about so much at most; 0 bytes hold nothing."""
        import moka_py

        self._max_bytes = max_bytes
        self._least_bytes = -(-max_bytes // max_entries)
        self.evicted: Counter[str] = Counter()
        """Entries that went by themselves, by cause: size, expired."""
        self._now = now
        self._ages: Counter[str] = Counter()
        self._entries: Any = moka_py.Moka(
            max_bytes,
            policy=policy,
            weigher=lambda key, entry: self._weight(key, entry[1]),
            eviction_listener=lambda _key, _entry, cause: self.evicted.update((cause,)),
        )

    def __len__(self) -> int:
        self._entries.run_pending_tasks()
        return int(self._entries.count())

    @property
    def held_bytes(self) -> int:
        """What the entries take, estimated."""
        self._entries.run_pending_tasks()
        return int(self._entries.weighted_size())

    def get(self, key: str) -> bytes | None:
        """Return the value if it is known and young enough."""
        entry = self._entries.get(self._aged(key))
        if entry is None:
            return None
        expires_at_s, value = entry
        if self._now() >= expires_at_s:
            self.drop(key)
            return None
        return bytes(value)

    def put(self, key: str, value: bytes, ttl_s: float) -> None:
        """Keep the value for ``ttl_s`` at most, if it is worth its room; one larger than the tier is not kept."""
        if self._weight(key, value) <= self._max_bytes:
            self._entries.set(self._aged(key), (self._now() + ttl_s, value), ttl=ttl_s)

    def drop(self, key: str) -> None:
        """Forget the value."""
        self._entries.remove(self._aged(key))

    def purge(self, prefix: str) -> None:
        """Forget everything for "", else all of the prefix's kind: those that begin so cannot be told from the others."""
        if prefix:
            self._ages[kind_of(prefix)] += 1
        else:
            self._entries.clear()

    def _weight(self, key: str, value: bytes) -> int:
        return max(len(key) + len(value) + _ENTRY_BYTES, self._least_bytes)

    def _aged(self, key: str) -> str:
        """Return the key under which the value is held since its kind was purged last."""
        age = self._ages[kind_of(key)]
        return f"{age}:{key}" if age else key
