"""The real servers of the one-machine site, and the cache tiers on them when they work, die and hang."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from coordinator.cache.object_store import ObjectStoreTier
from coordinator.nats_bus import NatsBus
from coordinator.nats_users import new_seed
from manifests import servers
from manifests.processes import Children, children
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


# S3


@asynccontextmanager
async def object_tier(
    group: Children, base: Path, bucket: str = "answers", **options: object
) -> AsyncGenerator[ObjectStoreTier, None]:
    s3 = await servers.seaweedfs(group, base, quiet)
    keys = {"access_key": s3["access_key"], "secret_key": s3["secret_key"], "timeout_s": PATIENT_S}
    async with ObjectStoreTier.connect(s3["url"], bucket, **{**keys, **options}) as tier:  # type: ignore[arg-type]  # a test's options
        yield tier


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
                    assert await once_it_can(partial(tier.get, "answer:k")) == expected
                    await once_it_can(partial(tier.put, "answer:k", b"v", 60))
                (child,) = group.running
                assert any(path.exists() for path in child.remains)
            assert not any(path.exists() for path in child.remains)

    run(scenario(), timeout_s=180)
