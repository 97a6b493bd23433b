from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from coordinator.cache import write_behind
from coordinator.cache.guard import Guard
from coordinator.cache.write_behind import MAX_WAITING, MAX_WAITING_BYTES, WriteBehind
from tests.coordinator.cache.tiers import FakeTier
from tests.virtual_time import run

Seen = list[tuple[str, str, str]]


def writer(tier: FakeTier) -> tuple[WriteBehind, Guard, Seen]:
    guard, seen = Guard(tier.name, tier.ping), Seen()
    return WriteBehind(tier, guard, lambda *what: seen.append(what)), guard, seen


@asynccontextmanager
async def writing(line: WriteBehind) -> AsyncGenerator[None, None]:
    task = asyncio.create_task(line.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def test_values_are_written_in_order_and_the_last_of_one_key_once() -> None:
    async def scenario() -> None:
        tier = FakeTier()
        line, _, seen = writer(tier)
        for key, value in (("a", b"1"), ("b", b"2"), ("a", b"3")):
            line.put(key, value, 60)
        assert (len(line), line.bytes) == (2, 2)
        async with writing(line):
            await line.emptied(1)
        assert tier.held == {"a": b"3", "b": b"2"}
        assert [key for key, _, _ in seen] == ["b", "a"]
        assert (len(line), line.bytes) == (0, 0)

    run(scenario())


def test_a_drop_takes_back_what_waits_and_deletes_what_is_there() -> None:
    async def scenario() -> None:
        tier = FakeTier()
        tier.held["a"] = b"old"
        line, _, _ = writer(tier)
        line.put("a", b"new", 60)
        line.drop("a")
        async with writing(line):
            await line.emptied(1)
        assert not tier.held

    run(scenario())


def test_the_line_is_bounded_in_values_and_bytes() -> None:
    line, _, seen = writer(FakeTier())
    for number in range(MAX_WAITING + 5):
        line.put(str(number), b"v", 60)
    assert len(line) == MAX_WAITING
    assert [result for _, _, result in seen] == ["write-dropped"] * 5
    line, _, seen = writer(FakeTier())
    line.put("a", bytes(MAX_WAITING_BYTES), 60)
    line.put("b", b"v", 60)
    assert (len(line), len(seen)) == (1, 1)


def test_a_tier_that_is_left_alone_is_written_to_when_it_is_back() -> None:
    async def scenario() -> None:
        tier = FakeTier(broken=True)
        line, guard, seen = writer(tier)
        guarding = asyncio.create_task(guard.run())
        line.put("a", b"1", 60)
        guard.failed(late=True)
        line.put("b", b"2", 60)
        async with writing(line):
            began_s = asyncio.get_running_loop().time()
            await line.emptied(10)
            assert asyncio.get_running_loop().time() == began_s, "nobody waits for it"
            await asyncio.sleep(20)
            assert not seen
            tier.broken = False
            await asyncio.sleep(10)
        assert tier.held == {"a": b"1", "b": b"2"}
        guarding.cancel()
        await asyncio.wait([guarding])

    run(scenario())


def test_a_slow_write_ends_after_its_time_and_the_tier_is_left_alone() -> None:
    async def scenario() -> None:
        line, guard, seen = writer(FakeTier(slow_s=60))
        line.put("a", b"1", 60)
        async with writing(line):
            began_s = asyncio.get_running_loop().time()
            await line.emptied(10)
            assert asyncio.get_running_loop().time() - began_s == write_behind.WRITE_S
        assert guard.is_open
        assert seen == [("a", "redis", "write-failed")]

    run(scenario())


def test_a_failing_write_does_not_end_the_writing() -> None:
    async def scenario() -> None:
        tier = FakeTier(broken=True)
        line, _, seen = writer(tier)
        async with writing(line):
            line.put("a", b"1", 60)
            await line.emptied(1)
            tier.broken = False
            line.put("b", b"2", 60)
            await line.emptied(1)
        assert tier.held == {"b": b"2"}
        assert [result for _, _, result in seen] == ["write-failed", "written"]

    run(scenario())
