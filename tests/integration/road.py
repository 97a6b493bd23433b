"""The road to the cloud for tests that break it: servers, workers and a stub upstream as processes, a network that swallows, a load of turns."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import httpx
import msgspec

from benchmarks.bus_upstream import Ending, Watched
from coordinator import wire
from coordinator.cache.answers import AnswerCache
from coordinator.cache.ladder import Ladder
from coordinator.hierarchy import Hierarchy
from coordinator.nats_bus import NatsBus
from coordinator.remote import Asker, RemoteCompleter
from coordinator.routing.policy import Conditions, Policy, PoolTerms
from coordinator.routing.router import Router
from manifests.processes import Child, Children, accepts_connections, children, free_ports
from manifests.servers import nats_server
from models.errors import CompletionError
from models.prompts import Message, Prompt
from models.scripted import ScriptedCompleter

POOL = "qwen-14b"
TOKENS = 8
TURN_EVERY_S = 0.05
PROMPT_S = 1.0
"""A turn that takes longer is not well: the answers here take a tenth of it."""
WELL_S = 2.0
"""So long all turns must be well again before the fault counts as over."""
LIMIT_S = 30.0
"""What a busy machine may take where seconds are promised; figures are printed."""
EDGE_SAYS = "我自己来。"
"""What the edge's own model answers."""
ANSWER_S = 3.0
"""Within which a device is to be answered, by whomever."""
PINGS = {"ping_interval": "2s", "ping_max": 2}


def prompt_of(plan: str) -> Prompt:
    return Prompt(turn_id="t", messages=(Message(role="user", text=plan),), budget_ms=8_000)


class Hole:
    """A way to a port that can start to swallow everything, as a network does that drops packets."""

    def __init__(self, target: int) -> None:
        self.port = free_ports(1)[0]
        self._target = target
        self._open = asyncio.Event()
        self._open.set()
        self._tasks: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def dug(self) -> AsyncGenerator[None, None]:
        server = await asyncio.start_server(self._accepted, "127.0.0.1", self.port)
        try:
            yield
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            if self._tasks:
                await asyncio.wait(self._tasks)
            await server.wait_closed()

    def swallow(self) -> None:
        self._open.clear()

    def heal(self) -> None:
        self._open.set()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        try:
            await self._open.wait()
            there, back = await asyncio.open_connection("127.0.0.1", self._target)
            async with asyncio.TaskGroup() as ways:
                ways.create_task(self._carry(reader, back))
                ways.create_task(self._carry(there, writer))
        except* (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                await self._open.wait()
                writer.write(data)
        finally:
            writer.close()
        raise ConnectionResetError


class Site:
    """Servers, workers and a stub upstream as processes, and the edge's ear in this one."""

    def __init__(self, group: Children, base: Path) -> None:
        self.group, self.base = group, base
        self.nats_port, self.upstream_port = free_ports(2)
        self.edge: NatsBus
        self.asker: Asker
        self.nats: Child
        self.workers: dict[str, Child] = {}

    async def serve(self) -> None:
        config: dict[str, object] = {"host": "127.0.0.1", "port": self.nats_port, **PINGS}
        await nats_server(self.group, self.base, "nats", config, lambda _line: None)
        self.nats = self.group.running[-1]

    async def upstream(self) -> None:
        command = [sys.executable, "-m", "benchmarks.bus_upstream", str(self.upstream_port)]
        child = await self.group.start("upstream", command)
        await self.group.wait_ready(child, lambda: accepts_connections(self.upstream_port), LIMIT_S)

    async def worker(self, name: str, nats_port: int | None = None, *, upstream_urls: Sequence[str] = ()) -> None:
        env = {
            "CLOUD_NATS_URL": f"nats://127.0.0.1:{nats_port or self.nats_port}",
            "CLOUD_HTTP_PORT": "0",
            "CLOUD_POOL": POOL,
            "CLOUD_UPSTREAM_URL": ",".join(upstream_urls) or f"http://127.0.0.1:{self.upstream_port}",
            "CLOUD_MAX_RUNNING": "100",
            "CLOUD_WORKER_ID": name,
            "CLOUD_LOG_FORMAT": "json",
        }
        self.workers[name] = await self.group.start(name, [sys.executable, "-m", "cloud"], env=env)

    async def ready(self) -> None:
        missing = set(self.workers)
        if not missing:
            return
        async with self.edge.subscribe(wire.pool_beat_subject(POOL, "*")) as beats, asyncio.timeout(LIMIT_S):
            async for message in beats:
                beat = wire.decode_pool_beat(message.payload)
                missing -= {beat.worker_id} if beat.ready else set()
                if not missing:
                    return

    async def kill(self, child: Child) -> None:
        child.process.kill()
        await child.process.wait()
        self.group.running.remove(child)

    async def watched(self) -> Watched:
        async with httpx.AsyncClient(trust_env=False) as client:
            answer = await client.get(f"http://127.0.0.1:{self.upstream_port}/watched")
        return msgspec.json.decode(answer.content, type=Watched)

    @property
    def completer(self) -> RemoteCompleter:
        return RemoteCompleter(self.edge, POOL, "edge-1", asker=self.asker)

    @property
    def hierarchy(self) -> Hierarchy:
        """An edge that asks the pool first and has a model of its own."""
        policy = Policy(router="complexity", threshold=0.0, first_token_ms=1500.0, pools=(PoolTerms(name=POOL),))
        return Hierarchy(
            ScriptedCompleter(unknown=EDGE_SAYS),
            {POOL: self.completer},
            AnswerCache(Ladder()),
            Router(policy, None),
            conditions=lambda: Conditions(cloud_reachable=self.edge.is_connected),
        )

    async def ending(self) -> Ending:
        """Return how the next named answer ended."""
        while not (endings := (await self.watched()).endings):  # noqa: ASYNC110  # as above
            await asyncio.sleep(0.02)
        return endings[0]

    async def ask(self, plan: str = f"{TOKENS} 20 5 -") -> str:
        async with aclosing(self.completer.complete(prompt_of(plan))) as deltas:
            return "".join([delta.text async for delta in deltas])

    async def nothing_is_left(self) -> None:
        """See that no request is under way at the upstream, in the edge's ear, or at the workers that are alive."""
        assert self.asker.waiting == 0
        async with asyncio.timeout(LIMIT_S):
            while (await self.watched()).open:  # noqa: ASYNC110  # another process: nothing to wait on
                await asyncio.sleep(0.05)
            if all(child.has_ended() for child in self.workers.values()):
                return
            async with self.edge.subscribe(wire.pool_beat_subject(POOL, "*")) as beats:
                idle: set[str] = set()
                alive = {name for name, child in self.workers.items() if not child.has_ended()}
                async for message in beats:
                    beat = wire.decode_pool_beat(message.payload)
                    idle |= {beat.worker_id} if beat.running == beat.waiting == 0 else set()
                    if alive <= idle:
                        return


@asynccontextmanager
async def site(base: Path, *, workers: int = 2) -> AsyncGenerator[Site, None]:
    async with children(base) as group:
        made = Site(group, base)
        await made.serve()
        await made.upstream()
        for number in range(workers):
            await made.worker(f"w{number + 1}")
        async with NatsBus.connect(f"nats://127.0.0.1:{made.nats_port}", name="edge") as edge:
            made.edge = edge
            async with Asker.open(edge, "edge-1") as made.asker:
                await made.ready()
                yield made
                await made.nothing_is_left()


async def well_again_after_s(
    made: Site,
    fault: Callable[[], Awaitable[None]],
    *,
    ask: Callable[[], Awaitable[str]] | None = None,
    within_s: float = PROMPT_S,
) -> float:
    """Ask a turn every so often, do the fault, and return how long after it the first of only well turns was asked.

    A turn is well that ``ask``, the site's own when not given, answers ``within_s``. Returns once all asked within ``WELL_S`` were.
    """
    ask, ill = ask or made.ask, list[float]()

    async def turn() -> None:
        asked_s = time.monotonic()
        try:
            is_well = await ask() in {"好" * TOKENS, EDGE_SAYS}
        except CompletionError:
            is_well = False
        if not is_well or time.monotonic() - asked_s > within_s:
            ill.append(asked_s)

    async with asyncio.timeout(LIMIT_S), asyncio.TaskGroup() as tasks:

        async def load() -> None:
            while True:
                tasks.create_task(turn())
                await asyncio.sleep(TURN_EVERY_S)

        loading = tasks.create_task(load())
        await asyncio.sleep(1.0)
        ill.clear()
        began_s = time.monotonic()
        await fault()
        while time.monotonic() - max([began_s, *ill]) < WELL_S + 3 * within_s:  # noqa: ASYNC110  # until nothing happens
            await asyncio.sleep(0.1)
        loading.cancel()
    return max([began_s, *ill]) - began_s


def told(fault: str, took_s: float) -> None:
    """Show a figure, which no assertion hangs on."""
    print(f"{fault} {took_s:.2f} s")  # noqa: T201  # read with pytest -s
