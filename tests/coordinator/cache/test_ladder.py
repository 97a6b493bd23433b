from __future__ import annotations

import asyncio

from coordinator.cache.ladder import Ladder
from coordinator.cache.memory import MemoryTier
from models.errors import CacheError
from tests.virtual_time import run


class FakeTier:
    def __init__(self, name: str, *, broken: bool = False, slow_s: float = 0.0) -> None:
        self.name, self.ttl_s, self.broken, self.slow_s = name, 60.0, broken, slow_s
        self.held: dict[str, bytes] = {}
        self.asked = 0

    async def get(self, key: str) -> bytes | None:
        self.asked += 1
        await asyncio.sleep(self.slow_s)
        if self.broken:
            raise CacheError("down")
        return self.held.get(key)

    async def put(self, key: str, value: bytes) -> None:
        await asyncio.sleep(self.slow_s)
        if self.broken:
            raise CacheError("down")
        self.held[key] = value


def test_a_hit_far_away_is_copied_into_the_nearer_tiers() -> None:
    async def scenario() -> None:
        near, middle, far = FakeTier("near"), FakeTier("middle"), FakeTier("far")
        far.held["k"] = b"v"
        seen: list[tuple[str, str]] = []
        ladder = Ladder([near, middle, far], observe=lambda tier, result: seen.append((tier, result)))
        assert await ladder.get("k") == b"v"
        assert near.held == middle.held == {"k": b"v"}
        assert seen == [("near", "miss"), ("middle", "miss"), ("far", "hit")]

    run(scenario())


def test_a_broken_tier_is_a_miss_and_is_then_left_alone() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        broken, far = FakeTier("broken", broken=True), FakeTier("far")
        far.held["k"] = b"v"
        ladder = Ladder([broken, far], now=loop.time)
        for _ in range(5):
            assert await ladder.get("k") == b"v"
        assert broken.asked == 2  # each hit also failed to be copied into it: 3 failures after the second
        await asyncio.sleep(5.0)
        broken.broken = False
        assert await ladder.get("k") == b"v"
        assert broken.held == {"k": b"v"}

    run(scenario())


def test_a_slow_tier_costs_no_more_than_the_limit() -> None:
    async def scenario() -> float:
        loop = asyncio.get_running_loop()
        ladder = Ladder([FakeTier("slow", slow_s=0.5)], timeout_s=0.02, now=loop.time)
        began = loop.time()
        assert await ladder.get("k") is None
        return loop.time() - began

    assert run(scenario()) == 0.02


def test_put_reaches_every_tier_that_works() -> None:
    async def scenario() -> None:
        memory, broken, far = MemoryTier(), FakeTier("broken", broken=True), FakeTier("far")
        await Ladder([memory, broken, far]).put("k", b"v")
        assert await memory.get("k") == b"v"
        assert far.held == {"k": b"v"}

    run(scenario())
