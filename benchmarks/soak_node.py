"""The edge node of a soak in a process of its own: ``python -m benchmarks.soak_node`` says where it listens, then how it does.

Gateway on real sockets, brain as the product assembles it, Opus both ways, an in-memory bus between them; only the engines are
scripted. The caches are so small that they are full after a few hundred turns: what grows later grows without end.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Coroutine
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Any

import msgspec
import structlog
from prometheus_client import CollectorRegistry

from benchmarks.soak_engines import engines
from benchmarks.soak_memory import own_fds, own_rss_mib
from coordinator import wire
from coordinator.cache.ladder import Ladder
from coordinator.cache.memory import MemoryTier
from coordinator.memory_bus import MemoryBus
from coordinator.metrics import Metrics
from coordinator.turns import TurnRecord
from edge.assembly import assembled
from edge.engines import Engines
from edge.gateway.server import Gateway
from edge.observers import GatewayMetrics
from edge.routing import Roads, routed
from edge.settings import EdgeSettings

NODE = "soak"
SAMPLE_S = 0.25
END_SILENCE_MS, HINT_SILENCE_MS = 120, 60
"""Two frames end a question, so that a turn is short."""
CACHED_ANSWERS = 256
TOLERANCE = 20.0
"""Of the stages' limits: calls of milliseconds vary many times over on a busy machine, and refusing is another benchmark's."""


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """A node at one moment."""

    answered: int
    other: int
    """Turns that ended in any other way: interrupted, failed, silent."""
    sessions: int
    rss_mib: float
    tasks: int
    fds: int


class Listening(msgspec.Struct, frozen=True, kw_only=True):
    """The node is up."""

    url: str
    pid: int


class _Everybody:
    """Lets every device in."""

    def check(self, device_id: str, client_id: str, token: str) -> None:
        """Let it in."""


class SoakNode:
    """A running node, seen from inside."""

    def __init__(self, gateway: Gateway, outcomes: Counter[str]) -> None:
        self.url = "ws://{}:{}/xiaozhi/v1/".format(*gateway.address)
        self._gateway = gateway
        self._outcomes = outcomes

    def counts(self) -> Counts:
        """Look."""
        answered = self._outcomes["answered"]
        return Counts(
            answered=answered,
            other=sum(self._outcomes.values()) - answered,
            sessions=self._gateway.active_devices,
            rss_mib=round(own_rss_mib(), 3),
            tasks=len(asyncio.all_tasks()),
            fds=own_fds(),
        )


@asynccontextmanager
async def node(max_devices: int, parts: Engines) -> AsyncGenerator[SoakNode, None]:
    """Run a node on a free port of the loopback address; nothing of it runs when this is left."""
    settings = EdgeSettings.model_validate(
        {
            "node_id": NODE,
            "engines": "scripted",
            "max_devices": max_devices,
            "auth": "off",
            "end_silence_ms": END_SILENCE_MS,
            "hint_silence_ms": HINT_SILENCE_MS,
            "stage_tolerance": TOLERANCE,
        }
    )
    bus, metrics, outcomes = MemoryBus(), Metrics(CollectorRegistry()), Counter[str]()
    ladder = Ladder(MemoryTier(max_entries=CACHED_ANSWERS, max_bytes=1 << 20), observe=metrics.observe_cache)
    async with AsyncExitStack() as stack:
        router = await stack.enter_async_context(routed(settings, metrics))
        assembly = await stack.enter_async_context(
            assembled(settings, parts, ladder, router, roads=Roads(bus, NODE), nats=bus, seam_bus=bus, metrics=metrics)
        )
        brain = assembly.brain
        await stack.enter_async_context(_running(brain.run(), "brain"))
        await stack.enter_async_context(_running(_count(bus, outcomes), "outcomes"))
        await brain.ready.wait()
        gateway = await stack.enter_async_context(
            Gateway(
                bus,
                node_id=NODE,
                authenticator=_Everybody(),
                host="127.0.0.1",
                port=0,
                max_devices=max_devices,
                observer=GatewayMetrics(metrics),
            )
        )
        yield SoakNode(gateway, outcomes)


async def _count(bus: MemoryBus, outcomes: Counter[str]) -> None:
    async with bus.subscribe(wire.turn_subject(NODE), max_pending=10_000) as records:
        async for record in records:
            outcomes[msgspec.msgpack.decode(record.payload, type=TurnRecord).outcome] += 1


@asynccontextmanager
async def _running(work: Coroutine[Any, Any, None], name: str) -> AsyncGenerator[None, None]:
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


async def serve(max_devices: int, tell: Callable[[msgspec.Struct], None], parts: Engines) -> None:
    """Tell where the node listens and, every SAMPLE_S, how it does, until the parent closes our standard input or is gone."""
    parent = os.getppid()
    over = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), over.set)
    async with node(max_devices, parts) as here:
        gc.collect()
        gc.freeze()
        tell(Listening(url=here.url, pid=os.getpid()))
        while not over.is_set() and os.getppid() == parent:
            tell(here.counts())
            with suppress(TimeoutError):
                async with asyncio.timeout(SAMPLE_S):
                    await over.wait()


def main() -> None:
    """Serve as many devices as the first argument says; the parent ends this, not Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))

    def tell(event: msgspec.Struct) -> None:
        sys.stdout.buffer.write(msgspec.json.encode(event) + b"\n")
        sys.stdout.buffer.flush()

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        runner.run(serve(int(sys.argv[1]), tell, engines()))


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes the loop that the product runs on: uvloop's, where that is installed."""
    try:
        import uvloop
    except ImportError:
        return None
    factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    return factory


if __name__ == "__main__":
    main()
