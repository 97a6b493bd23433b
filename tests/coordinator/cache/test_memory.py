from __future__ import annotations

from coordinator.cache.memory import MemoryTier
from tests.virtual_time import run


def test_a_value_is_forgotten_when_its_time_is_over() -> None:
    clock = [0.0]

    async def scenario() -> None:
        tier = MemoryTier(ttl_s=10, now=lambda: clock[0])
        await tier.put("k", b"v")
        clock[0] = 9.9
        assert await tier.get("k") == b"v"
        clock[0] = 10.0
        assert await tier.get("k") is None
        assert (len(tier), tier.held_bytes) == (0, 0)

    run(scenario())


def test_what_was_used_longest_ago_makes_room() -> None:
    async def scenario() -> None:
        tier = MemoryTier(max_entries=2)
        await tier.put("a", b"1")
        await tier.put("b", b"2")
        await tier.get("a")
        await tier.put("c", b"3")
        assert [await tier.get(key) for key in "abc"] == [b"1", None, b"3"]

    run(scenario())


def test_bytes_are_bounded_and_a_giant_is_not_kept() -> None:
    async def scenario() -> None:
        tier = MemoryTier(max_bytes=100)
        await tier.put("big", b"x" * 98)
        assert await tier.get("big") is None
        for number in range(20):
            await tier.put(f"k{number:02}", b"x" * 17)
            assert tier.held_bytes <= 100
        assert len(tier) == 5

    run(scenario())


def test_replacing_a_value_does_not_count_it_twice() -> None:
    async def scenario() -> None:
        tier = MemoryTier()
        await tier.put("k", b"12345")
        await tier.put("k", b"1")
        assert tier.held_bytes == 2

    run(scenario())
