"""The road as it is in the field, on one machine: a hub, an edge's leaf, cloud workers and a stub upstream, each a process of its own."""

from __future__ import annotations

import asyncio
import sys
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import msgspec

from benchmarks.bus_loop import cpu_s
from benchmarks.bus_upstream import Watched
from coordinator import wire
from coordinator.bus import Bus
from coordinator.nats_bus import NatsBus
from coordinator.remote import Asker
from manifests.processes import Children, accepts_connections, children, free_ports
from manifests.servers import nats_server

POOL, STUB_POOL = "qwen-14b", "stub"
EDGE = "edge-1"
MAX_RUNNING = 1000
"""More than is ever asked at once: what is measured is the road, not its door."""
READY_S = 30.0


@dataclass(frozen=True, slots=True)
class Site:
    """What runs, and the edge's ear."""

    group: Children
    edge: NatsBus
    asker: Asker
    upstream_url: str

    def used_s(self) -> dict[str, float]:
        """Return the CPU seconds of each process by its name so far, this one's as "edge"."""
        return {"edge": time.process_time(), **{child.name: cpu_s(child.pid) for child in self.group.running}}

    async def watched(self) -> Watched:
        """Return what the upstream saw since it was last asked."""
        async with httpx.AsyncClient(timeout=READY_S, trust_env=False) as client:
            answer = await client.get(f"{self.upstream_url}/watched")
        return msgspec.json.decode(answer.content, type=Watched)


@asynccontextmanager
async def site(workers: int) -> AsyncGenerator[Site, None]:
    """Start all of it, and stop all of it when left; raises ConfigError for what does not start."""
    with tempfile.TemporaryDirectory(prefix="xiaozhi-bus-") as folder:
        base = Path(folder)
        async with children(base) as group:
            hub_url, leaf_url = await _servers(group, base)
            upstream_url = await _upstream(group)
            for number in range(workers):
                await _worker(group, f"worker-{number + 1}", hub_url, upstream_url)
            stub = ["-m", "benchmarks.bus_worker", hub_url, STUB_POOL, "1"]
            await group.start("stub-worker", [sys.executable, *stub])
            async with NatsBus.connect(leaf_url, name=EDGE) as edge, Asker.open(edge, EDGE) as asker:
                await _heard(edge, POOL, workers)
                await _heard(edge, STUB_POOL, 1)
                yield Site(group, edge, asker, upstream_url)


async def _servers(group: Children, base: Path) -> tuple[str, str]:
    hub_port, link_port, leaf_port = free_ports(3)
    link = {"remotes": [{"url": f"nats-leaf://127.0.0.1:{link_port}"}]}
    leafnodes = {"host": "127.0.0.1", "port": link_port}
    hub: dict[str, object] = {"host": "127.0.0.1", "port": hub_port, "leafnodes": leafnodes}
    leaf: dict[str, object] = {"host": "127.0.0.1", "port": leaf_port, "leafnodes": link}
    await nats_server(group, base, "hub", hub, lambda _line: None)
    await nats_server(group, base, "leaf", leaf, lambda _line: None)
    return f"nats://127.0.0.1:{hub_port}", f"nats://127.0.0.1:{leaf_port}"


async def _upstream(group: Children) -> str:
    (port,) = free_ports(1)
    child = await group.start("upstream", [sys.executable, "-m", "benchmarks.bus_upstream", str(port)])
    await group.wait_ready(child, lambda: accepts_connections(port), READY_S)
    return f"http://127.0.0.1:{port}"


async def _worker(group: Children, name: str, hub_url: str, upstream_url: str) -> None:
    settings = {
        "CLOUD_NATS_URL": hub_url,
        "CLOUD_HTTP_PORT": "0",
        "CLOUD_POOL": POOL,
        "CLOUD_UPSTREAM_URL": upstream_url,
        "CLOUD_MAX_RUNNING": str(MAX_RUNNING),
        "CLOUD_WORKER_ID": name,
        "CLOUD_LOG_FORMAT": "json",
    }
    await group.start(name, [sys.executable, "-m", "cloud"], env=settings)


async def _heard(edge: Bus, pool: str, workers: int) -> None:
    """Return once so many workers of the pool beat and are ready."""
    ready: set[str] = set()
    async with edge.subscribe(wire.pool_beat_subject(pool, "*")) as beats, asyncio.timeout(READY_S):
        async for message in beats:
            beat = wire.decode_pool_beat(message.payload)
            if beat.ready:
                ready.add(beat.worker_id)
            if len(ready) == workers:
                return
