"""The cache tiers on real servers: what they keep, and what a turn notices when they die, hang, fill up or lie."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks.slow_door import Door
from coordinator.cache import ladder as ladders
from coordinator.cache.keys import key_of
from coordinator.cache.kinds import Kind
from coordinator.cache.ladder import Ladder
from coordinator.cache.memory import MemoryTier
from coordinator.cache.object_store import ObjectStoreTier
from coordinator.cache.redis_tier import PREFIX, RedisTier
from coordinator.cache.sealed import seal
from coordinator.cache.tiers import FarTier
from manifests.processes import Child
from models.errors import CacheError
from tests.integration.cache_servers import PATIENT_S, object_tier, once_it_can, redis_server, redis_tier
from tests.real_time import run

KEY, OTHER = key_of(Kind.SPEECH, "a"), key_of(Kind.SPEECH, "b")
VALUE = bytes(range(256)) * 96
"""24 kB, as a spoken sentence."""


def sealed(key: str = KEY, value: bytes = VALUE) -> bytes:
    return seal(key, value, made_at_s=time.time(), expires_at_s=time.time() + 60)


@asynccontextmanager
async def laddered(*far: FarTier, patient: bool = True) -> AsyncGenerator[tuple[Ladder, Counter[str]], None]:
    """Open a ladder that keeps nothing in memory, and count what it sees; a patient one waits for servers of a busy machine."""
    seen: Counter[str] = Counter()
    if patient:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ladders, "LOOK_S", PATIENT_S)
            async with laddered(*far, patient=False) as opened:
                yield opened
        return
    ladder = Ladder(MemoryTier(max_bytes=0), far, observe=lambda _kind, tier, result: seen.update([f"{tier} {result}"]))
    async with ladder.open():
        yield ladder, seen


async def until(condition: Callable[[], Coroutine[Any, Any, bool]]) -> None:
    async with asyncio.timeout(30):
        while not await condition():  # noqa: ASYNC110  # other processes: nothing to wait on
            await asyncio.sleep(0.02)


# Each tier by itself


Open = Callable[[Path], AbstractAsyncContextManager[tuple[Any, Child]]]
OPENS = [pytest.param(redis_tier, id="redis"), pytest.param(object_tier, id="object-store")]


@pytest.mark.parametrize("opened", OPENS)
def test_a_tier_keeps_what_was_put_and_knows_nothing_else(tmp_path: Path, opened: Open) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as (tier, _):
            assert await once_it_can(lambda: tier.get(KEY)) is None
            await once_it_can(lambda: tier.put(KEY, VALUE, 60))
            await tier.put(key_of(Kind.ANSWER, "a"), b"v", 60)
            assert await tier.get(KEY) == VALUE
            assert await tier.get(OTHER) is None
            assert [key async for key in tier.keys("speech:")] == [KEY]
            assert len([key async for key in tier.keys("")]) == 2
            size = await tier.size()
            assert size.entries == 2
            assert size.bytes >= len(VALUE)
            await tier.drop(KEY)
            await tier.drop(OTHER)
            assert await tier.get(KEY) is None
            await tier.ping()

    run(scenario(), timeout_s=90)


def test_redis_forgets_after_the_time_to_live_and_deletes_what_is_of_another_type(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with redis_tier(tmp_path) as (tier, _):
            await tier.put("k", b"v", 0.05)

            async def is_forgotten() -> bool:
                return await tier.get("k") is None

            await until(is_forgotten)
            await tier._client.lpush(PREFIX + "k", "not a string")
            with pytest.raises(CacheError, match="ResponseError"):
                await tier.get("k")
            await tier.drop("k")
            assert await tier.get("k") is None

    run(scenario())


def test_one_holder_at_a_time_has_a_lease_and_only_he_gives_it_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with redis_tier(tmp_path) as (tier, _):
            tokens = await asyncio.gather(*(tier.lease(KEY, 60) for _ in range(50)))
            (token,) = filter(None, tokens)
            await tier.release(KEY, "somebody else's")
            assert await tier.lease(KEY, 60) is None
            await tier.release(KEY, token)
            assert await tier.lease(KEY, 0.05)

            async def is_free() -> bool:
                return await tier.lease(KEY, 60) is not None

            await until(is_free)

    run(scenario())


def test_the_bucket_is_told_to_forget(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with object_tier(tmp_path, longest_ttl_s=86_401.0) as (tier, _):
            await once_it_can(lambda: tier.put(KEY, VALUE, 60))
            config = await asyncio.to_thread(tier._client.get_bucket_lifecycle, "answers")
            assert {rule.rule_filter.prefix: rule.expiration.days for rule in config.rules} == {
                f"{kind}/": 2 for kind in Kind
            }

    run(scenario(), timeout_s=90)


def test_a_wrong_key_of_the_store_is_a_cache_error(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with object_tier(tmp_path, secret_key="wrong") as (tier, _):
            with pytest.raises(CacheError, match=r"SignatureDoesNotMatch|AccessDenied"):
                await tier.get(KEY)

    run(scenario(), timeout_s=90)


def test_a_cluster_of_redis_is_a_tier_like_any_other(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with cluster(tmp_path) as url, RedisTier.connect(url, timeout_s=5.0) as tier:
            keys = [key_of(Kind.SPEECH, str(number)) for number in range(40)]

            async def is_up() -> bool:
                try:
                    for key in keys:
                        await tier.put(key, key.encode(), 60)
                except CacheError:
                    return False
                return True

            await until(is_up)
            assert [await tier.get(key) for key in keys] == [key.encode() for key in keys]
            assert {key async for key in tier.keys("speech:")} == set(keys)
            assert (await tier.size()).entries == 40
            token = await tier.lease(KEY, 60)
            assert token
            assert await tier.lease(KEY, 60) is None
            await tier.release(KEY, token)
            await tier.drop(keys[0])
            assert await tier.get(keys[0]) is None

    run(scenario(), timeout_s=90)


@asynccontextmanager
async def cluster(folder: Path) -> AsyncGenerator[str, None]:
    """Start three servers that share the keys; yield the cluster's address."""
    import redis.asyncio

    options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "2000")
    folders = [folder / str(number) for number in range(3)]
    for each in folders:
        each.mkdir()
    dirs = [(*options, "--dir", str(each)) for each in folders]
    async with (
        redis_server(folders[0], *dirs[0]) as (one, _),
        redis_server(folders[1], *dirs[1]) as (two, _),
        redis_server(folders[2], *dirs[2]) as (three, _),
    ):
        ports = (one, two, three)
        for number, port in enumerate(ports):
            client = redis.asyncio.Redis(port=port)
            for other in ports:
                bus_port = other + 10_000 if other < 55_536 else other
                await client.execute_command("CLUSTER MEET", "127.0.0.1", other, bus_port)
            await client.execute_command("CLUSTER", "ADDSLOTS", *range(number * 5462, min(16_384, (number + 1) * 5462)))
            await client.aclose()
        yield f"redis+cluster://127.0.0.1:{one}"


# Under the ladder, as a turn sees them


@pytest.mark.parametrize("opened", OPENS)
def test_a_killed_server_is_a_miss_and_is_then_left_alone(tmp_path: Path, opened: Open) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as (tier, child), laddered(tier) as (ladder, seen):
            await once_it_can(lambda: tier.put(KEY, sealed(), 60))
            assert await once(ladder) == VALUE
            child.process.kill()
            await child.process.wait()
            for number in range(5):
                assert await ladder.get(key_of(Kind.SPEECH, str(number))) is None
                ladder.put(key_of(Kind.SPEECH, f"{number} more"), VALUE)
            assert seen[f"{tier.name} skipped"] >= 1
            assert seen[f"{tier.name} hit"] == 1

    run(scenario(), timeout_s=90)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGSTOP")
@pytest.mark.parametrize("opened", OPENS)
def test_a_frozen_server_costs_the_limit_once_and_is_asked_again_when_it_thaws(tmp_path: Path, opened: Open) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as (tier, child), laddered(tier, patient=False) as (ladder, seen):
            await once_it_can(lambda: tier.put(KEY, sealed(), 60))
            assert await once(ladder) == VALUE
            os.kill(child.pid, signal.SIGSTOP)
            try:
                for number in range(5):
                    assert await ladder.get(key_of(Kind.SPEECH, str(number))) is None
            finally:
                os.kill(child.pid, signal.SIGCONT)
            assert seen[f"{tier.name} error"] == 1
            assert seen[f"{tier.name} skipped"] == 4

            async def is_back() -> bool:
                return await ladder.beyond(KEY, again=True) == VALUE

            await until(is_back)

    run(scenario(), timeout_s=90)


def test_a_full_redis_keeps_no_more_and_still_answers(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with redis_tier(tmp_path, "--maxmemory", "3mb", "--maxmemory-policy", "noeviction") as (tier, _):
            await tier.put(KEY, sealed(), 60)
            with pytest.raises(CacheError):
                await filled(tier)
            async with laddered(tier) as (ladder, seen):
                assert await once(ladder) == VALUE
                ladder.put(OTHER, VALUE)

                async def has_failed() -> bool:
                    return seen["redis write-failed"] == 1

                await until(has_failed)
                assert await once(ladder) == VALUE, "one failed write does not shut the door"

    run(scenario(), timeout_s=60)


async def filled(tier: RedisTier) -> None:
    for number in range(1000):
        await tier.put(key_of(Kind.SPEECH, str(number)), VALUE, 60)


def test_another_type_under_the_key_is_a_miss(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with redis_tier(tmp_path) as (tier, _), laddered(tier) as (ladder, seen):
            await tier._client.lpush(PREFIX + KEY, "not a string")
            assert await ladder.get(KEY) is None
            assert seen["redis error"] == 1
            ladder.put(KEY, VALUE)

            async def is_written() -> bool:
                return await ladder.beyond(KEY, again=True) == VALUE

            await until(is_written)

    run(scenario())


def test_a_redis_that_is_half_a_second_late_costs_the_limit_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with redis_server(tmp_path) as (port, _):
            door = Door(port)
            async with door.open() as slow_port, RedisTier.connect(f"redis://127.0.0.1:{slow_port}/0") as tier:
                await tier.put(KEY, sealed(), 60)
                async with laddered(tier, patient=False) as (ladder, seen):
                    door.delay_s = 0.5
                    assert await ladder.get(KEY) is None
                    assert await ladder.get(OTHER) is None
                    assert (seen["redis error"], seen["redis skipped"]) == (1, 1)
                    door.delay_s = 0.0

                    async def is_back() -> bool:
                        return await ladder.beyond(KEY, again=True) == VALUE

                    await until(is_back)

    run(scenario(), timeout_s=60)


@pytest.mark.parametrize("passed", [0, 20, 60, 1_000, 20_000])
def test_a_write_cut_in_the_middle_leaves_nothing_or_what_was_there(tmp_path: Path, passed: int) -> None:
    async def scenario() -> None:
        async with redis_server(tmp_path) as (port, _):
            door = Door(port)
            async with (
                door.open() as cut_port,
                RedisTier.connect(f"redis://127.0.0.1:{cut_port}/0") as tier,
                RedisTier.connect(f"redis://127.0.0.1:{port}/0") as direct,
                laddered(direct) as (ladder, _),
            ):
                await direct.put(OTHER, sealed(OTHER), 60)
                door.pass_bytes = passed
                for key in (KEY, OTHER):
                    with pytest.raises(CacheError):
                        await tier.put(key, sealed(key, VALUE[::-1]), 60)
                assert await ladder.get(KEY) is None
                assert await ladder.get(OTHER) == VALUE

    run(scenario())


@pytest.mark.parametrize("opened", OPENS)
def test_what_is_damaged_cut_or_another_ones_is_never_given_out(tmp_path: Path, opened: Open) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as (tier, _), laddered(tier) as (ladder, seen):
            whole = sealed()
            flipped = bytearray(whole)
            flipped[200] ^= 1
            for number, lie in enumerate((whole[:-1], bytes(flipped), sealed(OTHER), b"", b"<html>503</html>")):
                await once_it_can(lambda lie=lie: tier.put(KEY, lie, 60))  # type: ignore[misc]  # bound at once
                assert await once(ladder) is None
                assert seen[f"{tier.name} damaged"] == number + 1

                async def is_deleted() -> bool:
                    return await tier.get(KEY) is None

                await until(is_deleted)

    run(scenario(), timeout_s=90)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 4\r\n\r\noops",
        b"HTTP/1.1 200 OK\r\ncontent-length: 50000\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwrong",
        b"HTTP/1.1 403 Forbidden\r\ncontent-type: application/xml\r\ncontent-length: 9\r\n\r\n<garbage>",
        b"not HTTP at all\r\n\r\n",
        b"",
    ],
    ids=["503", "500", "truncated", "wrong", "garbage", "no-http", "closed"],
)
def test_a_store_that_answers_anything_else_is_a_miss(answer: bytes) -> None:
    async def scenario() -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            async with (
                ObjectStoreTier.connect(f"http://127.0.0.1:{port}", "answers", access_key="a", secret_key="b") as tier,
                laddered(tier) as (ladder, seen),
            ):
                for number in range(5):
                    assert await ladder.get(key_of(Kind.SPEECH, str(number))) is None
                assert not seen["object-store hit"]
        finally:
            server.close()
            await server.wait_closed()

    run(scenario(), timeout_s=60)


async def once(ladder: Ladder) -> bytes | None:
    """Return what the ladder has beyond memory, also when its far tiers were left alone for a moment."""
    for _ in range(200):
        if not all(guard.is_open for guard in ladder._guards.values()):
            return await ladder.beyond(KEY, again=True)
        await asyncio.sleep(0.05)
    raise AssertionError("the tiers stay shut")
