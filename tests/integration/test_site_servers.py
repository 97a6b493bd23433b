"""The real servers of the one-machine site, and the cache tiers on them when they work, die and hang."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from coordinator.bus import NatsBus
from coordinator.cache.ladder import FAILURES_TO_OPEN, CacheTier, Ladder
from coordinator.cache.object_store import ObjectStoreTier, wrap
from coordinator.cache.redis_tier import PREFIX, RedisTier
from coordinator.nats_users import new_seed
from manifests import servers
from manifests.processes import Child, Children, children
from models.errors import CacheError
from tests.real_time import run

BASE = Path(__file__).parents[2] / "manifests" / "base"
PATIENT_S = 5.0
"""Time-out of a tier that is to be seen waiting, or to survive a busy machine."""


def quiet(_line: str) -> None:
    pass


async def until(condition: Callable[[], Awaitable[bool]], within_s: float = 20.0) -> None:
    async with asyncio.timeout(within_s):
        while not await condition():  # noqa: ASYNC110  # other processes: nothing to wait on
            await asyncio.sleep(0.02)


# NATS


def test_a_message_crosses_the_leaf_both_ways(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with children(tmp_path) as group:
            nats = await servers.nats(group, tmp_path, quiet)
            seed = (nats.keys / "cloud.nk").read_text().strip()
            async with (
                NatsBus.connect(nats.hub_url, name="cloud", nkey_seed=seed) as cloud,
                NatsBus.connect(nats.leaf_url, name="edge") as edge,
            ):
                ways = ((edge, cloud, "voice.complete.qwen-14b.edge-1"), (cloud, edge, "voice.answer.edge-1.a"))
                for sender, receiver, subject in ways:
                    async with receiver.subscribe(subject) as line:
                        heard = asyncio.create_task(anext(aiter(line)))

                        async def arrives(
                            sender: NatsBus = sender, heard: asyncio.Task = heard, subject: str = subject
                        ) -> bool:
                            await sender.publish(subject, b"hello")  # the leaf learns of listeners a moment later
                            await asyncio.wait([heard], timeout=0.05)
                            return heard.done()

                        await until(arrives)
                        assert (await heard).payload == b"hello"

    run(scenario(), timeout_s=90)


def test_the_edge_goes_on_alone_when_the_hub_is_killed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with children(tmp_path) as group:
            leaf_url = (await servers.nats(group, tmp_path, quiet)).leaf_url
            async with (
                NatsBus.connect(leaf_url, name="gateway") as gateway,
                NatsBus.connect(leaf_url, name="brain") as brain,
                brain.subscribe("voice.up.edge-1") as line,
            ):
                hub = next(child for child in group.running if child.name == "nats-hub")
                hub.process.kill()
                await hub.process.wait()
                await gateway.publish("voice.up.edge-1", b"opus")
                assert (await anext(aiter(line))).payload == b"opus"
                assert gateway.is_connected

    run(scenario(), timeout_s=90)


@pytest.mark.parametrize("config", ["nats-hub/nats-hub.conf", "edge/nats-leaf.conf"])
def test_the_servers_configuration_in_the_manifests_is_understood(config: str) -> None:
    command = [servers.program("nats-server"), "-t", "-c", str(BASE / config)]
    env = {"HUB_URL": "nats-leaf://token-with-digits-1@hub.example:7422", "HUB_SEED": new_seed()[0]}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


# Redis


@asynccontextmanager
async def redis_tier(
    directory: Path, *, ttl_s: float = 60.0, timeout_s: float = PATIENT_S
) -> AsyncGenerator[tuple[RedisTier, Child], None]:
    async with children(directory) as group:
        url = await servers.redis(group, quiet)
        async with RedisTier.connect(url, ttl_s=ttl_s, timeout_s=timeout_s) as tier:
            yield tier, group.running[0]


def test_redis_keeps_what_was_put_and_knows_nothing_else(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with redis_tier(tmp_path) as (tier, _):
            value = bytes(range(256)) * 400
            assert await tier._client.ping()
            assert await tier.get("k") is None
            await tier.put("k", value)
            assert await tier.get("k") == value
            assert 0 < await tier._client.pttl(PREFIX + "k") <= 60_000

    run(scenario())


def test_redis_forgets_after_the_time_to_live(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with redis_tier(tmp_path, ttl_s=0.05) as (tier, _):
            await tier.put("k", b"v")

            async def is_forgotten() -> bool:
                return await tier.get("k") is None

            await until(is_forgotten)

    run(scenario())


def test_another_type_under_the_key_is_a_cache_error(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with redis_tier(tmp_path) as (tier, _):
            await tier._client.lpush(PREFIX + "k", "not a string")
            with pytest.raises(CacheError, match="ResponseError"):
                await tier.get("k")
            await tier.put("k", b"v")
            assert await tier.get("k") == b"v"

    run(scenario())


# S3


@asynccontextmanager
async def object_tier(
    group: Children, base: Path, bucket: str = "answers", **options: object
) -> AsyncGenerator[ObjectStoreTier, None]:
    s3 = await servers.seaweedfs(group, base, quiet)
    keys = {"access_key": s3["access_key"], "secret_key": s3["secret_key"], "timeout_s": PATIENT_S}
    async with ObjectStoreTier.connect(s3["url"], bucket, **{**keys, **options}) as tier:  # type: ignore[arg-type]  # a test's options
        yield tier


def test_the_object_store_keeps_answers_and_nothing_damaged_or_old(tmp_path: Path) -> None:
    clock = [1_000_000.0]

    async def scenario() -> None:
        async with children(tmp_path) as group, object_tier(group, tmp_path, ttl_s=60, now=lambda: clock[0]) as tier:
            assert await tier.get("answer:none") is None, "a bucket that is missing is a miss"
            value = bytes(range(256)) * 400
            await tier.put("answer:k", value)
            assert await tier.get("answer:k") == value
            assert await tier.get("answer:other") is None
            stored = bytearray(wrap(value, clock[0] + 60))
            stored[100] ^= 1
            tier._write("answer:damaged", bytes(stored))
            assert await tier.get("answer:damaged") is None
            tier._write("answer:cut", b"short")
            assert await tier.get("answer:cut") is None
            clock[0] += 60
            assert await tier.get("answer:k") is None, "too old"

    run(scenario(), timeout_s=90)


def test_a_wrong_key_is_a_cache_error(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with children(tmp_path) as group, object_tier(group, tmp_path, secret_key="wrong") as tier:
            with pytest.raises(CacheError, match=r"SignatureDoesNotMatch|AccessDenied"):
                await tier.get("answer:k")

    run(scenario(), timeout_s=90)


async def once_it_can(call: Callable[[], Awaitable[bytes | None]]) -> bytes | None:
    """Return what ``call`` returns; SeaweedFS answers its door before its volumes are back, so try for a while."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await call()
            except CacheError:
                await asyncio.sleep(0.1)


def test_a_used_directory_is_taken_up_again_and_no_socket_stays(tmp_path: Path) -> None:
    deep = tmp_path / ("long-name-" * 9)  # a Unix socket's path may have 107 characters
    deep.mkdir()

    async def scenario() -> None:
        for expected in (None, b"v"):
            async with children(deep) as group:
                async with object_tier(group, deep) as tier:
                    assert await once_it_can(lambda tier=tier: tier.get("answer:k")) == expected
                    await once_it_can(lambda tier=tier: tier.put("answer:k", b"v"))
                (child,) = group.running
                assert any(path.exists() for path in child.remains)
            assert not any(path.exists() for path in child.remains)

    run(scenario(), timeout_s=180)


# Killed and stopped servers under the ladder


Open = Callable[[Path], AbstractAsyncContextManager[tuple[CacheTier, Child]]]


@asynccontextmanager
async def object_tier_and_child(directory: Path) -> AsyncGenerator[tuple[ObjectStoreTier, Child], None]:
    async with children(directory) as group, object_tier(group, directory) as tier:
        yield tier, group.running[0]


OPENS = [pytest.param(redis_tier, id="redis"), pytest.param(object_tier_and_child, id="object-store")]


async def look_up_until_left_alone(tier: CacheTier, fail: Callable[[], None]) -> tuple[list[str], float]:
    """Return what the ladder observed of a hit, the failures after ``fail`` and one more, and the longest look-up in seconds."""
    seen: list[str] = []
    patient = Ladder([tier], timeout_s=PATIENT_S)
    ladder = Ladder([tier], observe=lambda _tier, result: seen.append(result))
    await once_it_can(lambda: tier.put("answer:k", b"v"))
    assert await patient.get("answer:k") == b"v"
    fail()
    longest_s = 0.0
    for _ in range(FAILURES_TO_OPEN + 1):
        began = time.monotonic()
        assert await ladder.get("answer:k") is None
        longest_s = max(longest_s, time.monotonic() - began)
    return seen, longest_s


@pytest.mark.parametrize("opened", OPENS)
def test_a_killed_server_is_a_miss_and_is_then_left_alone(tmp_path: Path, opened: Open) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as (tier, child):
            seen, _ = await look_up_until_left_alone(tier, child.process.kill)
            assert seen == [*["error"] * FAILURES_TO_OPEN, "skipped"]

    run(scenario(), timeout_s=90)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGSTOP")
@pytest.mark.parametrize("opened", OPENS)
def test_a_stopped_server_costs_the_limit_only_and_is_then_left_alone(tmp_path: Path, opened: Open) -> None:
    async def scenario() -> None:
        async with opened(tmp_path) as (tier, child):
            try:
                seen, longest_s = await look_up_until_left_alone(tier, lambda: os.kill(child.pid, signal.SIGSTOP))
            finally:
                os.kill(child.pid, signal.SIGCONT)
            assert seen == [*["error"] * FAILURES_TO_OPEN, "skipped"]
            assert longest_s < PATIENT_S / 2, "the ladder's limit counts, not the tier's"

    run(scenario(), timeout_s=90)
