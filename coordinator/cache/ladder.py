"""The cache as a ladder of tiers: the first one that knows answers, and a broken one is a miss.

A tier that fails or is slow costs a look-up at most ``timeout_s``; after ``FAILURES_TO_OPEN`` in a row it is left alone for ``OPEN_S``. No
error leaves the ladder: a cache may fail, a request may not.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Literal, Protocol

from models.errors import CacheError

TIMEOUT_S = 0.02
"""What a slow tier may add to a turn; the figure of the fault matrix."""
PUT_TIMEOUT_S = 0.25
"""What a slow tier may cost once an answer is complete: its speech still plays meanwhile. A guess."""
FAILURES_TO_OPEN = 3
OPEN_S = 5.0
"""A dead server is asked again this often. A guess."""

Result = Literal["hit", "miss", "error", "skipped"]


class CacheTier(Protocol):
    """One place that remembers bytes for a while."""

    @property
    def name(self) -> str:
        """Label for metrics: memory, redis, object-store."""
        ...

    @property
    def ttl_s(self) -> float:
        """How long this tier keeps a value."""
        ...

    async def get(self, key: str) -> bytes | None:
        """Return the value, None when unknown; raise CacheError when broken."""
        ...

    async def put(self, key: str, value: bytes) -> None:
        """Keep the value for ``ttl_s``; raise CacheError when broken."""
        ...


class _Breaker:
    """Counts failures in a row and says when to leave a tier alone."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._failures = 0
        self._open_until = 0.0

    @property
    def is_open(self) -> bool:
        return self._now() < self._open_until

    def succeeded(self) -> None:
        self._failures = 0

    def failed(self) -> None:
        self._failures += 1
        if self._failures >= FAILURES_TO_OPEN:
            self._open_until = self._now() + OPEN_S


def _ignore(_tier: str, _result: Result) -> None:
    """Observe nothing."""


class Ladder:
    """Tiers from the nearest to the farthest; a hit is copied into the nearer ones."""

    def __init__(
        self,
        tiers: Sequence[CacheTier],
        *,
        timeout_s: float = TIMEOUT_S,
        observe: Callable[[str, Result], None] = _ignore,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tiers = tuple(tiers)
        self._breakers = {tier.name: _Breaker(now) for tier in tiers}
        self._timeout_s = timeout_s
        self._observe = observe

    async def get(self, key: str) -> bytes | None:
        """Return the value from the nearest tier that knows it, None when none does."""
        for depth, tier in enumerate(self._tiers):
            value = await self._get(tier, key)
            if value is not None:
                for nearer in self._tiers[:depth]:
                    await self._put(nearer, key, value)
                return value
        return None

    async def put(self, key: str, value: bytes) -> None:
        """Keep the value in every tier that can."""
        for tier in self._tiers:
            await self._put(tier, key, value)

    async def _get(self, tier: CacheTier, key: str) -> bytes | None:
        breaker = self._breakers[tier.name]
        if breaker.is_open:
            self._observe(tier.name, "skipped")
            return None
        try:
            async with asyncio.timeout(self._timeout_s):
                value = await tier.get(key)
        except (CacheError, TimeoutError):
            breaker.failed()
            self._observe(tier.name, "error")
            return None
        breaker.succeeded()
        self._observe(tier.name, "miss" if value is None else "hit")
        return value

    async def _put(self, tier: CacheTier, key: str, value: bytes) -> None:
        breaker = self._breakers[tier.name]
        if breaker.is_open:
            return
        try:
            async with asyncio.timeout(PUT_TIMEOUT_S):
                await tier.put(key, value)
        except (CacheError, TimeoutError):
            breaker.failed()
            self._observe(tier.name, "error")
        else:
            breaker.succeeded()
