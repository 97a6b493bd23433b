"""A far tier for tests: in memory, and as broken as one wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from coordinator.cache.tiers import TierSize
from models.errors import CacheError


class FakeTier:
    """A FarTier."""

    def __init__(self, name: str = "redis", *, broken: bool = False, slow_s: float = 0.0) -> None:
        self.name, self.broken, self.slow_s = name, broken, slow_s
        self.held: dict[str, bytes] = {}
        self.ttl_s: dict[str, float] = {}
        self.asked: list[str] = []
        self.leases: dict[str, str] = {}

    async def _work(self, what: str) -> None:
        self.asked.append(what)
        if self.slow_s:
            await asyncio.sleep(self.slow_s)
        if self.broken:
            raise CacheError("down")

    async def get(self, key: str) -> bytes | None:
        await self._work("get")
        return self.held.get(key)

    async def put(self, key: str, stored: bytes, ttl_s: float) -> None:
        await self._work("put")
        self.held[key], self.ttl_s[key] = stored, ttl_s

    async def drop(self, key: str) -> None:
        await self._work("drop")
        self.held.pop(key, None)

    async def ping(self) -> None:
        await self._work("ping")

    async def keys(self, prefix: str) -> AsyncGenerator[str, None]:
        for key in list(self.held):
            if key.startswith(prefix):
                yield key

    async def size(self) -> TierSize:
        return TierSize(entries=len(self.held), bytes=sum(map(len, self.held.values())))


class LeasingTier(FakeTier):
    """A FarTier that lets one node at a time make a value."""

    async def lease(self, key: str, ttl_s: float) -> str | None:
        await self._work("lease")
        if key in self.leases:
            return None
        self.leases[key] = f"token-{len(self.asked)}"
        return self.leases[key]

    async def release(self, key: str, token: str) -> None:
        await self._work("release")
        if self.leases.get(key) == token:
            del self.leases[key]
