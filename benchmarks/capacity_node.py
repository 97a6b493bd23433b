"""The edge node under load, alone on this machine but for NATS: started here, its processor time and memory read from outside."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import msgspec
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.load import LoadEvent, LoadPlan, LoadResult
from benchmarks.turns import rss_mib
from manifests import servers
from manifests.processes import Child, Children, answers, children, free_ports
from models.errors import ConfigError

READY_S = 120.0
"""Engines load in 5 to 15 s on two cores, longer from a cold disk."""
SAMPLE_S = 0.5
"""Between two looks at the memory."""
LOAD_MORE_S = 60.0
"""How long after its own planned time the load generator may take to report. A guess."""
STAGE_METRIC = "voice_stage_seconds"
EVENT_BYTES = 16 * 1024 * 1024
"""Longest line of the load generator: its result has 200 bytes a turn."""

Buckets = Mapping[float, float]
"""Upper bound in seconds to how many observations lay at or below it."""


@dataclass(frozen=True, slots=True)
class Node:
    """A running edge node."""

    url: str
    """ws:// address of its gateway, which lets everybody in."""
    edge: tuple[Child, ...]
    """Gateway and brain: one process or two."""
    nats: Child
    metrics_urls: tuple[str, ...]
    group: Children = field(repr=False)

    def cpu_s(self) -> float:
        """Return the processor time of gateway and brain so far, all threads."""
        return sum(_cpu_s(child) for child in self.edge)

    def nats_cpu_s(self) -> float:
        """Return the processor time of NATS so far."""
        return _cpu_s(self.nats)

    def rss_mib(self) -> float:
        """Return the resident memory of gateway and brain together."""
        return rss_mib([child.pid for child in self.edge])

    async def stages(self) -> dict[str, Buckets]:
        """Return the brain's histograms of stage times so far."""
        found: dict[str, Buckets] = {}
        async with httpx.AsyncClient(timeout=5.0, trust_env=False) as client:
            for url in self.metrics_urls:
                found |= buckets_of((await client.get(url)).text)
        return found


@dataclass(frozen=True, slots=True)
class Measured:
    """One load on one node."""

    load: LoadResult
    wall_s: float
    cpu_s: float
    """Of gateway and brain while all devices were at work."""
    nats_cpu_s: float
    others_cores: float
    """Busy cores of whatever else ran on the machine meanwhile: what disturbed the measurement."""
    peak_rss_mib: float
    stages: Mapping[str, Buckets]


@asynccontextmanager
async def node(*, processes: int, devices: int, env: Mapping[str, str]) -> AsyncGenerator[Node, None]:
    """Start NATS and an edge of one process or two for so many devices; stop both when left; raise ConfigError when they do not come up.

    ``env`` are more settings of the edge; they win.
    """
    with tempfile.TemporaryDirectory(prefix="xiaozhi-capacity-") as directory:
        async with children(Path(directory)) as group:
            nats_port, gateway_port, *http_ports = free_ports(2 + processes)
            await servers.nats_server(
                group, Path(directory), "nats", {"host": "127.0.0.1", "port": nats_port}, lambda _line: None
            )
            (nats,) = group.running
            settings = {
                "EDGE_NATS_URL": f"nats://127.0.0.1:{nats_port}",
                "EDGE_AUTH": "off",
                "EDGE_GATEWAY_PORT": str(gateway_port),
                "EDGE_MAX_DEVICES": str(devices),
                **env,
            }
            roles = [""] if processes == 1 else ["brain", "gateway"]
            edge = [await _start(group, role, settings, port) for role, port in zip(roles, http_ports, strict=True)]
            for child, port in zip(edge, http_ports, strict=True):
                await group.wait_ready(child, partial(answers, f"http://127.0.0.1:{port}/readyz"), READY_S)
            urls = tuple(f"http://127.0.0.1:{port}/metrics" for port in http_ports)
            yield Node(f"ws://127.0.0.1:{gateway_port}/xiaozhi/v1/", tuple(edge), nats, urls, group)


async def measure(node: Node, plan: LoadPlan) -> Measured:
    """Put the load on the node and return what devices and node showed; raise ConfigError when the generator fails."""
    import psutil

    before = await node.stages()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.load"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=EVENT_BYTES,
    )
    assert process.stdin is not None  # noqa: S101 - asked for above
    process.stdin.write(msgspec.json.encode(plan))
    process.stdin.close()
    peak = _Peak(node)
    watching = asyncio.create_task(peak.watch(), name="memory")
    try:
        async with asyncio.timeout(_longest_s(plan)):
            await _event(process, "full")
            marks = (asyncio.get_running_loop().time(), node.cpu_s(), node.nats_cpu_s(), _busy_s(psutil))
            await _event(process, "over")
            after = (asyncio.get_running_loop().time(), node.cpu_s(), node.nats_cpu_s(), _busy_s(psutil))
            load = await _event(process, "result")
    except TimeoutError as error:
        raise ConfigError(f"the load generator did not end within {_longest_s(plan):.0f} s") from error
    finally:
        watching.cancel()
        if process.returncode is None and not process.stdout.at_eof():  # type: ignore[union-attr]  # a pipe, see above
            process.kill()
        await process.wait()
        await asyncio.wait([watching])
    assert isinstance(load, LoadResult)  # noqa: S101 - asked for above
    wall_s, cpu_s, nats_s, busy_s = (end - begin for begin, end in zip(marks, after, strict=True))
    others = max(0.0, busy_s - cpu_s - nats_s) / wall_s - load.cpu_cores
    return Measured(load, wall_s, cpu_s, nats_s, max(0.0, others), peak.mib, difference(before, await node.stages()))


def buckets_of(text: str) -> dict[str, Buckets]:
    """Return the stages' histograms in an exposition of metrics."""
    found: dict[str, dict[float, float]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == f"{STAGE_METRIC}_bucket":
                found.setdefault(sample.labels["stage"], {})[float(sample.labels["le"])] = sample.value
    return dict(found)


def difference(before: Mapping[str, Buckets], after: Mapping[str, Buckets]) -> dict[str, Buckets]:
    """Return what the histograms gained."""
    return {
        stage: {bound: count - before.get(stage, {}).get(bound, 0.0) for bound, count in buckets.items()}
        for stage, buckets in after.items()
    }


def quantile_ms(buckets: Buckets, share: float) -> float | None:
    """Return the quantile, ``share`` in (0, 1], by linear interpolation inside its bucket as Prometheus does; None for no data.

    In the open bucket it is that bucket's lower bound.
    """
    bounds = sorted(buckets)
    total = buckets[bounds[-1]] if bounds else 0.0
    if total <= 0:
        return None
    rank, lower_s, below = share * total, 0.0, 0.0
    for bound_s in bounds:
        count = buckets[bound_s]
        if count >= rank:
            if bound_s == float("inf"):
                return lower_s * 1000
            return (lower_s + (bound_s - lower_s) * (rank - below) / (count - below)) * 1000
        lower_s, below = bound_s, count
    return lower_s * 1000


@dataclass(slots=True)
class _Peak:
    node: Node
    mib: float = 0.0

    async def watch(self) -> None:
        while True:
            self.mib = max(self.mib, self.node.rss_mib())
            await asyncio.sleep(SAMPLE_S)


async def _start(group: Children, role: str, settings: Mapping[str, str], port: int) -> Child:
    command = [sys.executable, "-m", "edge", *([role] if role else [])]
    return await group.start(f"edge-{role or 'node'}", command, env={**settings, "EDGE_HTTP_PORT": str(port)})


async def _event(process: asyncio.subprocess.Process, kind: str) -> LoadEvent:
    assert process.stdout is not None  # noqa: S101 - asked for above
    line = await process.stdout.readline()
    if not line:
        raise ConfigError(f"the load generator ended before it said {kind}: see its error above")
    event: LoadEvent = msgspec.json.decode(line, type=LoadEvent)
    if msgspec.to_builtins(event)["type"] != kind:
        raise ConfigError(f"the load generator did not say {kind}")
    return event


def _longest_s(plan: LoadPlan) -> float:
    turn_s = 2 * 60.0
    return plan.devices * plan.stagger_s + (plan.seconds or plan.turns * turn_s) + LOAD_MORE_S


def _cpu_s(child: Child) -> float:
    import psutil

    try:
        times = psutil.Process(child.pid).cpu_times()
    except psutil.Error as error:
        raise ConfigError(f"{child.name} is gone; its log ends:\n{child.tail()}") from error
    return float(times.user + times.system)


def _busy_s(psutil: object) -> float:
    times = psutil.cpu_times()  # type: ignore[attr-defined]  # a module without types
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))
