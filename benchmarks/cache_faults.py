"""What turns notice of a cache whose servers die, hang, are slow or hold something else: answered, right, and how much later."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from benchmarks.cache_turns import answer_to, node, question, written
from benchmarks.report import percentile
from benchmarks.slow_door import Door
from coordinator.cache.object_store import ObjectStoreTier
from coordinator.cache.redis_tier import PREFIX, RedisTier
from coordinator.cache.tiers import FarTier
from manifests import servers
from manifests.processes import Child, children

TURNS = 60
"""Known and new questions in turn, while the fault lasts."""
WARM = 20
SLOW_S = 0.5


class Site:
    """Real servers, the way to Redis through a door, and a tier on each."""

    def __init__(
        self, redis: RedisTier, direct: RedisTier, store: ObjectStoreTier, door: Door, processes: Mapping[str, Child]
    ) -> None:
        """``redis`` is behind the door, ``direct`` is not."""
        self.redis, self.direct, self.store, self.door, self.processes = redis, direct, store, door, processes

    @property
    def tiers(self) -> tuple[FarTier, FarTier]:
        """Return both, nearest first."""
        return self.redis, self.store

    async def stop(self, *names: str) -> None:
        """Freeze servers."""
        for name in names:
            os.kill(self.processes[name].pid, signal.SIGSTOP)

    async def kill(self, name: str) -> None:
        """Kill a server and see it gone."""
        self.processes[name].process.kill()
        await self.processes[name].process.wait()

    async def slow(self) -> None:
        """Make the way to Redis slow."""
        self.door.delay_s = SLOW_S

    async def fill(self) -> None:
        """Give Redis no more room than it has in use."""
        await self.redis._client.config_set("maxmemory-policy", "noeviction")  # noqa: SLF001  # the tier has no such verb
        await self.redis._client.config_set("maxmemory", "1")  # noqa: SLF001  # as above

    async def change_types(self) -> None:
        """Hold a list under every key of Redis."""
        async for key in self.redis.keys(""):
            await self.redis.drop(key)
            await self.redis._client.lpush(PREFIX + key, "another type")  # noqa: SLF001  # as above

    async def damage(self) -> None:
        """Cut every object of the store short, and empty Redis, so that they are looked at."""
        async for key in self.store.keys(""):
            stored = await self.store.get(key) or b""
            await self.store.put(key, stored[: len(stored) // 2], 60)
            await self.redis.drop(key)

    async def swap(self) -> None:
        """Hold under every key of Redis what belongs to another one."""
        keys = [key async for key in self.redis.keys("")]
        values = [await self.redis.get(key) for key in keys]
        for key, value in zip(keys, values[1:] + values[:1], strict=True):
            await self.redis.put(key, value or b"", 60)


FAULTS: Mapping[str, Callable[[Site], Awaitable[None]]] = {
    "none": lambda _site: asyncio.sleep(0),
    "redis killed": lambda site: site.kill("redis"),
    "redis frozen": lambda site: site.stop("redis"),
    "redis 500 ms slow": Site.slow,
    "redis full": Site.fill,
    "redis holds another type": Site.change_types,
    "redis holds other keys' values": Site.swap,
    "s3 killed": lambda site: site.kill("seaweedfs"),
    "s3 frozen": lambda site: site.stop("seaweedfs"),
    "s3 objects cut short": Site.damage,
    "both frozen": lambda site: site.stop("redis", "seaweedfs"),
}


async def measure(folder: Path, turns: int = TURNS, faults: Mapping[str, Any] = FAULTS) -> dict[str, dict[str, Any]]:
    """Return by fault what became of the turns, and how much later their first packet came than on a node that has no such tiers."""
    results: dict[str, dict[str, Any]] = {}
    for number, (name, fault) in enumerate(faults.items()):
        place = folder / str(number)
        place.mkdir()
        async with site(place) as here:
            result = await _turns_through(here, fault, turns)
        results[name] = result
    return results


async def _turns_through(here: Site, fault: Callable[[Site], Awaitable[None]], turns: int) -> dict[str, Any]:
    """Teach both tiers some answers, break something, and ask a node that knows nothing yet for these and for new ones.

    Each question is asked of a node without tiers as well, right before: what it takes longer with them is what they add.
    """
    async with node(*here.tiers) as teacher:
        for number in range(turns):
            await teacher.turn(question(number))
        await written(teacher.ladder.writes_waiting)
    async with node(*here.tiers) as asked, node() as alone:
        for number in range(WARM):
            await asked.turn(question(turns + number))
            await alone.turn(question(turns + number))
        await written(asked.ladder.writes_waiting)
        await fault(here)
        asked.reasons.clear()
        answered = right = 0
        added_ms: list[float] = []
        for number in range(turns):
            said = question(number if number % 2 else 1_000_000 + number)
            without = await alone.turn(said)
            turn = await asked.turn(said)
            answered += turn.first_packet_ms is not None
            right += turn.words == answer_to(said)
            if turn.first_packet_ms is not None and without.first_packet_ms is not None:
                added_ms.append(turn.first_packet_ms - without.first_packet_ms)
        return {
            "turns": turns,
            "answered": answered,
            "right": right,
            "from_sound": asked.reasons["remembered-speech"],
            "added_ms": {f"p{share}": round(percentile(added_ms, share) or 0.0, 2) for share in (50, 95, 100)},
        }


@asynccontextmanager
async def site(folder: Path) -> AsyncGenerator[Site, None]:
    """Start Redis and SeaweedFS and open a tier on each."""
    async with children(folder) as group:
        redis_url = await servers.redis(group, lambda _line: None)
        redis = group.running[-1]
        s3 = await servers.seaweedfs(group, folder, lambda _line: None)
        store = group.running[-1]
        door = Door(urlsplit(redis_url).port or 0)
        async with (
            door.open() as port,
            RedisTier.connect(f"redis://127.0.0.1:{port}/0") as redis_tier,
            RedisTier.connect(redis_url) as direct,
            ObjectStoreTier.connect(
                s3["url"], "benchmark", access_key=s3["access_key"], secret_key=s3["secret_key"]
            ) as store_tier,
        ):
            await once_it_can(store_tier)
            try:
                yield Site(redis_tier, direct, store_tier, door, {"redis": redis, "seaweedfs": store})
            finally:
                door.delay_s = 0.0
                for child in (redis, store):
                    if not child.has_ended():
                        os.kill(child.pid, signal.SIGCONT)


async def once_it_can(tier: ObjectStoreTier) -> None:
    """Return when the store takes values: it answers its door before its volumes are there."""
    from models.errors import CacheError

    async with asyncio.timeout(60):
        while True:
            try:
                await tier.put("answer:warm", b"", 60)
            except CacheError:
                await asyncio.sleep(0.1)
            else:
                return
