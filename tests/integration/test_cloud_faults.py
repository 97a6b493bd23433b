"""The cloud's faults on the real road: a hierarchy, a nats-server, a cloud worker's process, and a server that answers as badly as told."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import pytest

from coordinator import wire
from coordinator.breaker import State
from coordinator.cache.answers import AnswerCache
from coordinator.cache.ladder import Ladder
from coordinator.hierarchy import Hierarchy
from coordinator.nats_bus import NatsBus
from coordinator.remote import RemoteCompleter
from coordinator.routing.policy import Conditions, Policy, PoolTerms
from coordinator.routing.router import Router
from coordinator.turns import RoutingDecision
from edge.brain.sentences import sentences
from manifests.processes import Child, Children, children, free_ports, stop_child
from manifests.servers import nats_server
from models.prompts import Message, Prompt
from models.scripted import ScriptedCompleter
from tests.bare_server import BareServer
from tests.real_time import run

POOL, OTHER = "qwen-14b", "qwen-72b"
HARD = "请详细分析电动汽车和燃油汽车的优缺点，比较它们的区别，并解释为什么"
CLOUD = ("先说结论，各有长处。", "电动汽车用起来省钱，但是充电慢。", "所以要看你怎么用。")
EDGE, REST = "电动汽车省钱。燃油汽车加油快。", "剩下的我来说，要看你怎么用。"
BROKEN = "电动汽车用起"
FIRST_TOKEN_S = 1.2
NOTICED_S = 20.0

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"


def event(body: object) -> bytes:
    return b"data: " + json.dumps(body, ensure_ascii=False).encode() + b"\n\n"


def says(text: str) -> bytes:
    return event({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]})


def letters(text: str) -> list[bytes]:
    return [says(letter) for letter in text]


HANG = 3600.0
STOP = [event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}), b"data: [DONE]\n\n"]


def status(line: str) -> list[bytes | float]:
    return [f"HTTP/1.1 {line}\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}".encode()]


FAULTS: dict[str, Sequence[bytes | float]] = {
    "refuse": (),
    "hang-before-first-token": (HEAD, HANG),
    "hang-mid-stream": (HEAD, *letters(CLOUD[0] + BROKEN), HANG),
    "slow-drip": (HEAD, *(part for letter in letters("".join(CLOUD)) for part in (letter, 0.7))),
    "slow-drip-mid-stream": (HEAD, *letters(CLOUD[0]), *(x for letter in letters(CLOUD[1]) for x in (letter, 0.7))),
    "500": status("500 Internal Server Error"),
    "429": status("429 Too Many Requests"),
    "garbage": (HEAD, b"data: <html>oops</html>\n\n"),
    "garbage-mid-stream": (HEAD, *letters(CLOUD[0] + BROKEN), b"data: \xff\xfe{\n\n"),
    "empty": (HEAD, *STOP),
    "cut-mid-stream": (HEAD, *letters(CLOUD[0] + BROKEN)),
    "healthy": (HEAD, *letters("".join(CLOUD)), *STOP),
}
NEVER_BEGUN = {"refuse", "hang-before-first-token", "slow-drip", "500", "429", "garbage", "empty"}


class Upstream(BareServer):
    """An OpenAI-compatible server that is ready and answers each question with the fault its system message names."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: Counter[str] = Counter()
        self.cured: set[str] = set()
        """Faults that are over."""
        self.open = 0
        self.url = ""

    @asynccontextmanager
    async def served(self) -> AsyncGenerator[Upstream, None]:
        async with self.listening() as port:
            self.url = f"http://127.0.0.1:{port}"
            yield self

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        if head.startswith("GET"):
            writer.write(b'HTTP/1.1 200 OK\r\nContent-Length: 11\r\nConnection: close\r\n\r\n{"data":[]}')
            await writer.drain()
            return
        length = next(line for line in head.lower().splitlines() if line.startswith("content-length:"))
        body = json.loads(await reader.readexactly(int(length.partition(":")[2])))
        fault = body["messages"][0]["content"]
        self.asked[fault] += 1
        plan = FAULTS["healthy" if fault in self.cured else fault]
        if not plan:
            return
        self.open += 1
        hung_up = asyncio.create_task(reader.read())
        try:
            for step in plan:
                if isinstance(step, bytes):
                    writer.write(step)
                    await writer.drain()
                else:
                    await asyncio.wait([hung_up], timeout=step)
                if hung_up.done():
                    return
        finally:
            self.open -= 1
            hung_up.cancel()
            await asyncio.wait([hung_up])


class Site:
    """A nats-server, workers in processes of their own, and an edge's hierarchy."""

    def __init__(self, group: Children, base: Path) -> None:
        self.group, self.base = group, base
        self.port = free_ports(1)[0]
        self.seen: list[RoutingDecision] = []
        self.edge = ScriptedCompleter(
            lambda prompt: REST if prompt.messages[-1].role == "assistant" else EDGE,
            first_token_s=0.3,
            per_token_s=0.03,
        )

    @property
    def nats_url(self) -> str:
        return f"nats://127.0.0.1:{self.port}"

    async def worker(self, pool: str, upstream: Upstream, edge: NatsBus) -> Child:
        env = {
            "CLOUD_NATS_URL": self.nats_url,
            "CLOUD_HTTP_PORT": str(free_ports(1)[0]),
            "CLOUD_POOL": pool,
            "CLOUD_UPSTREAM_URL": upstream.url,
            "CLOUD_MAX_RUNNING": "100",
            "CLOUD_LOG_FORMAT": "json",
        }
        child = await self.group.start(f"cloud-{pool}", [sys.executable, "-m", "cloud"], env=env)
        async with edge.subscribe(wire.pool_beat_subject(pool, "*")) as beats, asyncio.timeout(NOTICED_S):
            async for message in beats:
                if wire.decode_pool_beat(message.payload).ready:
                    return child
        raise AssertionError(child.tail())

    def hierarchy(self, bus: NatsBus, pools: Sequence[str]) -> Hierarchy:
        terms = tuple(PoolTerms(name=name, strength=1 - number / 10) for number, name in enumerate(pools))
        return Hierarchy(
            self.edge,
            {name: RemoteCompleter(bus, name, "edge-1") for name in pools},
            AnswerCache(Ladder()),
            Router(Policy(threshold=0.7, first_token_ms=FIRST_TOKEN_S * 1000, pools=terms), None),
            conditions=lambda: Conditions(cloud_reachable=bus.is_connected),
            observe=self.seen.append,
            dice=random.Random(1),
        )


@asynccontextmanager
async def site(base: Path) -> AsyncGenerator[tuple[Site, NatsBus], None]:
    async with children(base) as group:
        made = Site(group, base)
        config = {"host": "127.0.0.1", "port": made.port}
        await nats_server(group, base, "nats", config, lambda _line: None)
        async with NatsBus.connect(made.nats_url, name="edge") as edge:
            yield made, edge


async def asked(hierarchy: Hierarchy, fault: str) -> str:
    """Return what was said."""
    messages = (Message(role="system", text=fault), Message(role="user", text=HARD))
    prompt = Prompt(turn_id="t", messages=messages)
    async with aclosing(sentences(hierarchy.complete(prompt))) as pieces:
        return "".join([piece.text async for piece in pieces])


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(NOTICED_S):
        while not condition():  # noqa: ASYNC110  # another process: nothing to wait on
            await asyncio.sleep(0.02)


def expected(fault: str) -> set[str]:
    """Return the answers without a half sentence; a cloud that dies early leaves the edge more to say."""
    if fault in NEVER_BEGUN:
        return {EDGE}
    return {EDGE, "先说结论，" + REST, CLOUD[0] + REST}


async def tried(here: Site, bus: NatsBus, upstream: Upstream, fault: str) -> None:
    """See one fault through on a pool of its own, until it is over."""
    hierarchy = here.hierarchy(bus, [POOL])
    said = set(await asyncio.gather(*(asked(hierarchy, fault) for _ in range(5))))
    said |= {await asked(hierarchy, fault) for _ in range(2)}
    assert said <= expected(fault), fault
    breaker = hierarchy.pools.breaker(POOL)
    assert breaker.opened == 1, fault
    assert upstream.asked[fault] <= 7, fault
    upstream.cured.add(fault)
    async with asyncio.timeout(NOTICED_S):
        while await asked(hierarchy, fault) != "".join(CLOUD):
            pass  # the edge answers until a probe finds it well
    assert breaker.state is State.CLOSED, fault


def test_each_fault_is_answered_by_the_edge_and_the_pool_left_alone_until_it_is_well(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Upstream().served() as upstream, site(tmp_path) as (here, bus):
            await here.worker(POOL, upstream, bus)
            async with asyncio.TaskGroup() as tasks:
                for fault in FAULTS:
                    if fault != "healthy":
                        tasks.create_task(tried(here, bus, upstream, fault))
            await until(lambda: upstream.open == 0)
            assert here.edge.calls.running == 0

    run(scenario(), timeout_s=120)


@pytest.mark.parametrize("fault", ["refuse", "hang-before-first-token", "hang-mid-stream", "429"])
def test_with_a_second_pool_the_cloud_answers_again_after_five_failures_at_most(tmp_path: Path, fault: str) -> None:
    async def scenario() -> None:
        async with Upstream().served() as bad, Upstream().served() as good, site(tmp_path) as (here, bus):
            good.cured.add(fault)
            await here.worker(POOL, bad, bus)
            await here.worker(OTHER, good, bus)
            hierarchy = here.hierarchy(bus, [POOL, OTHER])
            said = set(await asyncio.gather(*(asked(hierarchy, fault) for _ in range(5))))
            assert said <= expected(fault) | {"".join(CLOUD)}
            assert hierarchy.pools.breaker(POOL).opened == 1
            here.seen.clear()
            while await asked(hierarchy, fault) != "".join(CLOUD):
                pass  # a busy machine
            assert here.seen[-1].pool == OTHER

    run(scenario(), timeout_s=90)


def test_a_worker_killed_or_a_link_cut_is_answered_by_the_edge(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with Upstream().served() as upstream, site(tmp_path) as (here, bus):
            worker = await here.worker(POOL, upstream, bus)
            hierarchy = here.hierarchy(bus, [POOL])
            asking = asyncio.create_task(asked(hierarchy, "hang-mid-stream"))
            await until(lambda: upstream.open == 1)
            worker.process.kill()
            assert await asking in expected("hang-mid-stream")
            here.group.running.remove(worker)
            here.seen.clear()
            assert await asked(hierarchy, "healthy") == EDGE
            assert [decision.reason for decision in here.seen] == ["complex", "cloud-unreachable"]
            await stop_child(next(child for child in here.group.running if child.name == "nats"))
            await until(lambda: not bus.is_connected)
            here.seen.clear()
            assert await asked(hierarchy, "healthy") == EDGE
            assert [decision.reason for decision in here.seen] == ["cloud-unreachable"]

    run(scenario(), timeout_s=90)
