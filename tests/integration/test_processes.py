"""The coordinator and a cloud worker as real processes on a real nats-server, from their start to SIGTERM."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from coordinator import wire
from coordinator.fleet.tokens import TokenAuthenticator
from coordinator.metrics import Metrics
from coordinator.nats_bus import NatsBus
from coordinator.probes import probes, serve_http
from coordinator.remote import RemoteCompleter
from manifests.processes import Child, Children, children, free_ports
from manifests.servers import nats_server
from models.errors import CloudUnreachableError, CompletionError, OverloadedError
from models.prompts import Message, Prompt
from tests.real_time import run

SECRET = "correct horse battery staple"
POOL = "qwen-14b"
PROMPT = Prompt(turn_id="t", messages=(Message(role="user", text="水的沸点是多少度？"),))
DEVICE = {"Device-Id": "aa:bb:cc:dd:ee:ff", "Client-Id": "uuid-1"}
READY_S = 30.0
"""A Python process is up after about a second; the rest is for a busy machine."""
ENDS_S = 6.0
"""A process with nothing under way ends at once; asyncio and uvicorn look up to 0.2 s later."""


def quiet(_line: str) -> None:
    pass


async def until(condition: Callable[[], bool], within_s: float = READY_S) -> None:
    async with asyncio.timeout(within_s):
        while not condition():  # noqa: ASYNC110  # other processes: nothing to wait on
            await asyncio.sleep(0.02)


class Site:
    """A nats-server and the processes on it."""

    def __init__(self, group: Children, base: Path) -> None:
        self.group, self.base = group, base
        self.nats_port = free_ports(1)[0]
        self.nats_url = f"nats://127.0.0.1:{self.nats_port}"

    async def start_nats(self) -> None:
        await nats_server(self.group, self.base, "nats", {"host": "127.0.0.1", "port": self.nats_port}, quiet)

    async def stop_nats(self) -> None:
        (child,) = (child for child in self.group.running if child.name == "nats")
        child.process.kill()
        await child.process.wait()
        self.group.running.remove(child)

    async def start(self, module: str, **environ: str) -> Process:
        prefix = module.upper()
        (port,) = free_ports(1)
        env = {
            f"{prefix}_NATS_URL": self.nats_url,
            f"{prefix}_HTTP_PORT": str(port),
            f"{prefix}_LOG_FORMAT": "json",
            **environ,
        }
        child = await self.group.start(module, [sys.executable, "-m", module], env=env)
        return Process(child, f"http://127.0.0.1:{port}")


class Process:
    """One of our processes and its probes."""

    def __init__(self, child: Child, url: str) -> None:
        self.child, self.url = child, url

    async def get(self, path: str) -> httpx.Response:
        async with httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=10) as client:
            return await client.get(path)

    async def post(self, path: str, **options: object) -> httpx.Response:
        async with httpx.AsyncClient(base_url=self.url, trust_env=False, timeout=10) as client:
            return await client.post(path, **options)  # type: ignore[arg-type]  # a test's options

    async def reasons(self) -> dict[str, str] | None:
        """Return what keeps it from being ready, None before it answers."""
        try:
            answer = await self.get("/readyz")
        except httpx.HTTPError:
            return None
        reasons: dict[str, str] = answer.json()["reasons"]
        assert (answer.status_code == 200) is (not reasons)
        return reasons

    async def waits_for(self, *names: str) -> None:
        """Return once it waits for exactly these; none is being ready."""
        async with asyncio.timeout(READY_S):
            while (reasons := await self.reasons()) is None or set(reasons) != set(names):
                assert not self.child.has_ended(), self.child.tail()
                await asyncio.sleep(0.05)

    async def metric(self, name: str, **labels: str) -> float:
        text = (await self.get("/metrics")).text
        return sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        )

    async def shows(self, value: float, metric: str) -> None:
        """Return once the metric has this value."""
        async with asyncio.timeout(READY_S):
            while await self.metric(metric) != value:  # noqa: ASYNC110  # another process: nothing to wait on
                await asyncio.sleep(0.02)

    async def ends(self, number: signal.Signals = signal.SIGTERM, within_s: float = ENDS_S) -> list[dict[str, object]]:
        """Signal it, expect success, and return what it logged."""
        self.child.process.send_signal(number)
        async with asyncio.timeout(within_s):
            assert await self.child.process.wait() == 0, self.child.tail()
        return [json.loads(line) for line in self.child.log.read_text().splitlines()]


@asynccontextmanager
async def site(base: Path) -> AsyncGenerator[Site, None]:
    async with children(base) as group:
        made = Site(group, base)
        await made.start_nats()
        yield made


class Deaf:
    """A server that takes connections and says nothing."""

    def __init__(self) -> None:
        self.called = asyncio.Event()
        self.url = ""

    @asynccontextmanager
    async def listening(self) -> AsyncGenerator[Deaf, None]:
        async with await asyncio.start_server(self._take, "127.0.0.1", 0) as server:
            self.url = f"nats://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            yield self

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.called.set()
        await reader.read()
        writer.close()


class Model:
    """An OpenAI-compatible server that says a planned answer, word by word when it is let."""

    def __init__(self, words: str = "一百度") -> None:
        self.words = words
        self.is_loaded = True
        self.open = 0
        self.asked = 0
        self.go_on = asyncio.Event()
        self.go_on.set()

    @asynccontextmanager
    async def served(self) -> AsyncGenerator[str, None]:
        routes = [Route("/v1/models", self.models), Route("/v1/chat/completions", self.complete, methods=["POST"])]
        app = probes(Metrics(CollectorRegistry()), not_ready=dict, routes=routes)
        async with serve_http(app, "127.0.0.1", 0, variable="MODEL_PORT") as port:
            yield f"http://127.0.0.1:{port}"

    async def models(self, _request: Request) -> Response:
        return JSONResponse({"data": []}, 200 if self.is_loaded else 503)

    async def complete(self, request: Request) -> Response:
        assert (await request.json())["stream"] is True
        self.asked += 1
        return StreamingResponse(self._events(), media_type="text/event-stream")

    async def _events(self) -> AsyncIterator[str]:
        self.open += 1
        try:
            for word in self.words:
                yield self._event({"choices": [{"delta": {"content": word}}]})
                await self.go_on.wait()
            yield self._event({"choices": [{"delta": {}, "finish_reason": "stop"}]})
            yield "data: [DONE]\n\n"
        finally:
            self.open -= 1

    def _event(self, event: object) -> str:
        return f"data: {json.dumps(event)}\n\n"


async def ask(bus: NatsBus) -> str:
    async with aclosing(RemoteCompleter(bus, POOL, "edge-1").complete(PROMPT)) as deltas:
        return "".join([delta.text async for delta in deltas])


# The coordinator


def test_a_coordinator_sends_devices_to_the_edge_it_hears_of(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with site(tmp_path) as here, NatsBus.connect(here.nats_url, name="edge") as edge:
            coordinator = await here.start("coordinator", COORDINATOR_DEVICE_TOKEN_SECRET=SECRET)
            await coordinator.waits_for()
            assert (await coordinator.get("/healthz")).json()["status"] == "alive"
            answer = await coordinator.post("/xiaozhi/ota/", headers=DEVICE, content=b"{}")
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")

            beat = wire.EdgeBeat(edge_id="edge-1", websocket_url="ws://edge-1:8000/xiaozhi/v1/")
            await edge.publish(wire.edge_beat_subject("edge-1"), b"nonsense first")
            await edge.publish(wire.edge_beat_subject("edge-1"), wire.encode(beat))
            await coordinator.shows(1, "voice_edges_alive")
            answer = await coordinator.post("/xiaozhi/ota/", headers=DEVICE, content=b"{}")
            assert answer.status_code == 200
            assert int(answer.headers["content-length"]) == len(answer.content)
            websocket = answer.json()["websocket"]
            assert websocket["url"] == beat.websocket_url
            TokenAuthenticator(SECRET).check(DEVICE["Device-Id"], DEVICE["Client-Id"], websocket["token"])

            assert await coordinator.metric("voice_boots_total", result="answered") == 1
            assert await coordinator.metric("voice_dropped_total", kind="edge-beat") == 1
            assert await coordinator.metric("voice_bus_connected") == 1
            timed = {"handler": "/xiaozhi/ota/", "method": "POST", "status": "200"}
            assert await coordinator.metric("http_request_duration_seconds_count", **timed) == 1
            said = await coordinator.ends()
            assert {"coordinator_ready", "device_booted"} <= {str(line["event"]) for line in said}
            assert SECRET not in coordinator.child.log.read_text()
            assert websocket["token"] not in coordinator.child.log.read_text()

    run(scenario(), timeout_s=90)


def test_a_coordinator_outlives_its_nats_and_says_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with site(tmp_path) as here:
            coordinator = await here.start(
                "coordinator",
                COORDINATOR_DEVICE_TOKEN_SECRET=SECRET,
                COORDINATOR_WEBSOCKET_URL="ws://fallback/xiaozhi/v1/",
            )
            await coordinator.waits_for()
            await here.stop_nats()
            await coordinator.waits_for("nats")
            assert await coordinator.metric("voice_bus_connected") == 0
            answer = await coordinator.post("/xiaozhi/ota/", headers=DEVICE, content=b"{}")
            assert answer.json()["websocket"]["url"] == "ws://fallback/xiaozhi/v1/", "devices are still answered"
            await here.start_nats()
            await coordinator.waits_for()
            async with NatsBus.connect(here.nats_url, name="edge") as edge:
                beat = wire.EdgeBeat(edge_id="edge-1", websocket_url="ws://edge-1")
                await edge.publish(wire.edge_beat_subject("edge-1"), wire.encode(beat))
                await coordinator.shows(1, "voice_edges_alive")
            await here.stop_nats()
            await coordinator.ends(signal.SIGINT)

    run(scenario(), timeout_s=90)


# A cloud worker


def test_a_worker_answers_with_what_its_upstream_says(tmp_path: Path) -> None:
    async def scenario() -> None:
        model = Model()
        model.is_loaded = False
        async with (
            site(tmp_path) as here,
            model.served() as url,
            NatsBus.connect(here.nats_url, name="edge") as edge,
            edge.subscribe(wire.pool_beat_subject(POOL, "w1")) as beats,
        ):
            with pytest.raises(CloudUnreachableError, match="no worker"):
                await ask(edge)
            worker = await here.start(
                "cloud",
                CLOUD_POOL=POOL,
                CLOUD_WORKER_ID="w1",
                CLOUD_UPSTREAM_URL=url,
                CLOUD_UPSTREAM_API_KEY=SECRET,
                CLOUD_MAX_RUNNING="1",
            )
            await worker.waits_for(f"pool {POOL}")
            model.is_loaded = True
            await worker.waits_for()
            async with asyncio.timeout(READY_S):
                async for message in beats:
                    beat = wire.decode_pool_beat(message.payload)
                    if beat.ready:
                        break
            assert beat == wire.PoolBeat(pool=POOL, worker_id="w1", model=POOL, max_running=1)

            assert await ask(edge) == "一百度"
            assert await worker.metric("voice_cloud_requests_total", result="answered") == 1

            model.go_on.clear()
            asking = asyncio.create_task(ask(edge))
            await until(lambda: model.open == 1)
            assert await worker.metric("voice_cloud_requests_running") == 1
            with pytest.raises(OverloadedError):
                await ask(edge)
            asking.cancel()
            await asyncio.wait([asking])
            await until(lambda: model.open == 0)
            assert await worker.metric("voice_cloud_requests_running") == 0
            assert await worker.metric("voice_cloud_requests_total", result="cancelled") == 1

            model.words, _ = "二", model.go_on.set()
            assert await ask(edge) == "二", "the place is free again"
            await worker.ends()
            said = worker.child.log.read_text()
            assert "worker_ready" in said
            assert SECRET not in said
            assert PROMPT.question not in said

    run(scenario(), timeout_s=90)


def test_a_worker_told_to_end_finishes_what_it_began(tmp_path: Path) -> None:
    async def scenario() -> None:
        model = Model()
        model.go_on.clear()
        async with (
            site(tmp_path) as here,
            model.served() as url,
            NatsBus.connect(here.nats_url, name="edge") as edge,
        ):
            worker = await here.start("cloud", CLOUD_POOL=POOL, CLOUD_UPSTREAM_URL=url, CLOUD_DRAIN_S="30")
            await worker.waits_for()
            asking = asyncio.create_task(ask(edge))
            await until(lambda: model.open == 1)
            worker.child.process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(READY_S):
                while True:  # until the signal has arrived
                    try:
                        refused = asyncio.create_task(ask(edge))
                        await asyncio.wait([refused], timeout=0.2)
                        if refused.done():
                            assert isinstance(refused.exception(), CloudUnreachableError), "it has left the pool"
                            break
                    finally:
                        refused.cancel()
                        await asyncio.wait([refused])
            model.go_on.set()
            assert await asking == "一百度"
            async with asyncio.timeout(ENDS_S):
                assert await worker.child.process.wait() == 0

    run(scenario(), timeout_s=90)


def test_a_worker_told_to_end_does_not_wait_for_ever(tmp_path: Path) -> None:
    async def scenario() -> None:
        model = Model()
        model.go_on.clear()
        async with (
            site(tmp_path) as here,
            model.served() as url,
            NatsBus.connect(here.nats_url, name="edge") as edge,
        ):
            worker = await here.start("cloud", CLOUD_POOL=POOL, CLOUD_UPSTREAM_URL=url, CLOUD_DRAIN_S="0.2")
            await worker.waits_for()
            asking = asyncio.create_task(ask(edge))
            await until(lambda: model.open == 1)
            await worker.ends()
            await until(lambda: model.open == 0)
            with pytest.raises(CompletionError):
                await asking

    run(scenario(), timeout_s=90)


# Starts that are given up


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(
    ("module", "environ"),
    [
        ("coordinator", {"COORDINATOR_DEVICE_TOKEN_SECRET": SECRET}),
        ("cloud", {}),
        ("edge", {"EDGE_AUTH": "off", "EDGE_GATEWAY_PORT": "0"}),
    ],
)
def test_a_process_that_waits_for_nats_ends_when_told(
    tmp_path: Path, module: str, environ: dict[str, str], number: signal.Signals
) -> None:
    async def scenario() -> None:
        async with children(tmp_path) as group, Deaf().listening() as nats:
            here = Site(group, tmp_path)
            here.nats_url = nats.url
            waits = {f"{module.upper()}_NATS_CONNECT_S": "60", **environ}
            process = await here.start(module, **waits)
            async with asyncio.timeout(READY_S):
                await nats.called.wait()
            assert not [line for line in await process.ends(number) if line.get("level") == "error"]

    run(scenario(), timeout_s=90)


# Starts that fail


@pytest.mark.parametrize(
    ("module", "environ", "words"),
    [
        ("coordinator", {"COORDINATOR_DEVICE_TOKEN_SECRT": SECRET}, "did you mean COORDINATOR_DEVICE_TOKEN_SECRET?"),
        ("coordinator", {}, "COORDINATOR_DEVICE_TOKEN_SECRET must have"),
        ("cloud", {"CLOUD_POOL": "a b"}, "CLOUD_POOL: "),
        ("cloud", {"CLOUD_UPSTREAM_URL": "vllm:8000"}, "write http://host:port"),
    ],
)
def test_a_start_that_fails_is_one_line(tmp_path: Path, module: str, environ: dict[str, str], words: str) -> None:
    async def scenario() -> None:
        async with site(tmp_path) as here:
            process = await here.start(module, **environ)
            async with asyncio.timeout(READY_S):
                assert await process.child.process.wait() == 2
            lines = [line for line in process.child.log.read_text().splitlines() if not line.startswith("{")]
            assert len(lines) == 1
            assert words in lines[0]
            assert SECRET not in lines[0]

    run(scenario(), timeout_s=60)


def test_a_port_in_use_is_one_line_that_names_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with site(tmp_path) as here, Model().served() as url:
            port = url.rpartition(":")[2]
            process = await here.start("cloud", CLOUD_HTTP_PORT=port, CLOUD_UPSTREAM_URL=url)
            async with asyncio.timeout(READY_S):
                assert await process.child.process.wait() == 2
            lines = [line for line in process.child.log.read_text().splitlines() if not line.startswith("{")]
            assert len(lines) == 1
            assert f":{port}" in lines[0]
            assert "CLOUD_HTTP_PORT" in lines[0]

    run(scenario(), timeout_s=60)
