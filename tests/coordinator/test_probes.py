from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager

import httpx
import pytest
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import Message

from coordinator.metrics import Metrics, installed
from coordinator.probes import STOP_S, listening, probes, read_body, serve_http, unless_gone
from models.errors import ConfigError
from tests import virtual_time
from tests.real_time import run

VARIABLE = "COORDINATOR_HTTP_PORT"
MAX_BYTES = 1000


class Service:
    """Probes with a few routes of a process's own."""

    def __init__(self) -> None:
        self.metrics = Metrics(CollectorRegistry())
        self.reasons: dict[str, str] = {}
        self.entered = asyncio.Event()
        self.bodies: list[int | None] = []
        routes = [
            Route("/items/{name}", self.item),
            Route("/broken", self.broken),
            Route("/hangs", self.hangs),
            Route("/body", self.body, methods=["POST"]),
        ]
        self.app: Starlette = probes(self.metrics, not_ready=lambda: self.reasons, routes=routes)

    def label_values(self) -> set[tuple[str, str, str]]:
        samples = next(self.metrics.http_seconds.collect().__iter__()).samples
        return {(s.labels["handler"], s.labels["method"], s.labels["status"]) for s in samples}

    async def item(self, request: Request) -> Response:
        return JSONResponse(request.path_params["name"])

    async def broken(self, _request: Request) -> Response:
        raise RuntimeError("broken on purpose")

    async def hangs(self, _request: Request) -> Response:
        self.entered.set()
        await asyncio.Event().wait()
        return Response()

    async def body(self, request: Request) -> Response:
        self.entered.set()
        body = await read_body(request, MAX_BYTES)
        self.bodies.append(None if body is None else len(body))
        return Response(status_code=413 if body is None else 200)


@pytest.fixture
def service() -> Service:
    return Service()


@pytest.fixture
def client(service: Service) -> Iterator[TestClient]:
    with TestClient(service.app, raise_server_exceptions=False) as client:
        yield client


# The three probes


def test_a_process_that_runs_is_alive_whatever_it_waits_for(service: Service, client: TestClient) -> None:
    service.reasons = {"nats": "not connected"}
    answer = client.get("/healthz")
    assert answer.status_code == 200
    assert answer.json() == {"status": "alive", "version": installed()}


def test_a_process_is_ready_when_nothing_speaks_against_it(service: Service, client: TestClient) -> None:
    service.reasons = {"nats": "not connected", "upstream": "does not answer"}
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json() == {"status": "not ready", "reasons": service.reasons}
    service.reasons = {}
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json() == {"status": "ready", "reasons": {}}


def test_the_metrics_are_those_of_the_registry(service: Service, client: TestClient) -> None:
    service.metrics.active_devices.set(42)
    answer = client.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    assert "\nactive_devices 42.0\n" in answer.text


# The time of requests


def test_requests_are_timed_under_their_route_and_not_under_their_path(service: Service, client: TestClient) -> None:
    for name in ("a", "b", "c"):
        client.get(f"/items/{name}")
    assert service.label_values() == {("/items/{name}", "GET", "200")}


def test_made_up_paths_methods_and_hosts_add_no_label_values(service: Service, client: TestClient) -> None:
    for number in range(20):
        client.get(f"/no/such/{number}?x={number}")
        client.request(f"BREW{number}", f"/no/such/{number}")
        client.request(f"BREW{number}", "/healthz")
        client.get("/healthz", headers={"Host": f"h{number}", "X-Forwarded-Proto": f"p{number}"})
    assert service.label_values() == {
        ("unknown", "GET", "404"),
        ("unknown", "OTHER", "404"),
        ("/healthz", "OTHER", "405"),
        ("/healthz", "GET", "200"),
    }


def test_a_route_that_breaks_is_a_500_without_its_trace(service: Service, client: TestClient) -> None:
    answer = client.get("/broken")
    assert (answer.status_code, "on purpose" in answer.text) == (500, False)
    assert service.label_values() == {("/broken", "GET", "500")}


# Bodies


@pytest.mark.parametrize("size", [0, 1, MAX_BYTES])
def test_a_body_within_the_limit_is_read(service: Service, client: TestClient, size: int) -> None:
    assert client.post("/body", content=b"x" * size).status_code == 200
    assert service.bodies == [size]


def test_a_body_over_the_limit_is_not_kept(service: Service, client: TestClient) -> None:
    assert client.post("/body", content=b"x" * (MAX_BYTES + 1)).status_code == 413
    assert service.bodies == [None]


@pytest.mark.parametrize(
    ("declared", "fits"), [("", True), ("1000", True), ("1001", False), ("9" * 5000, False), ("-5", True), ("x", True)]
)
def test_a_body_that_says_it_is_too_long_is_not_waited_for(declared: str, fits: bool) -> None:
    async def never() -> Message:
        raise AssertionError("the body was read")

    async def once() -> Message:
        return {"type": "http.request", "body": b"x", "more_body": False}

    headers = [(b"content-length", declared.encode())]
    request = Request({"type": "http", "headers": headers}, once if fits else never)
    assert run(read_body(request, MAX_BYTES)) == (b"x" if fits else None)


# Clients that leave


@pytest.mark.parametrize(("gone_s", "answer"), [(1.0, None), (9.0, "done")])
def test_work_is_over_when_its_client_leaves(gone_s: float, answer: str | None) -> None:
    ended: list[str] = []

    async def receive() -> Message:
        await asyncio.sleep(gone_s)
        return {"type": "http.disconnect"}

    async def work() -> str:
        try:
            await asyncio.sleep(5)
        finally:
            ended.append("work")
        return "done"

    assert virtual_time.run(unless_gone(receive, work(), name="job")) == answer
    assert ended == ["work"]


def test_cancelling_the_wait_for_work_cancels_the_work() -> None:
    async def scenario() -> list[str]:
        ended: list[str] = []

        async def work() -> None:
            try:
                await asyncio.sleep(5)
            finally:
                ended.append("work")

        waiting = asyncio.create_task(unless_gone(asyncio.Event().wait, work(), name="job"))  # type: ignore[arg-type]
        await asyncio.sleep(1)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        return ended

    assert virtual_time.run(scenario()) == ["work"]


# On a real port


def test_what_is_written_to_a_connection_is_sent_at_once() -> None:
    with listening("127.0.0.1", 0, variable=VARIABLE) as listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


@asynccontextmanager
async def served(service: Service) -> AsyncGenerator[int, None]:
    async with serve_http(service.app, "127.0.0.1", 0, variable=VARIABLE) as port:
        yield port


def http(port: int) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=20)


def test_the_probes_answer_on_a_free_port() -> None:
    async def scenario() -> None:
        async with served(Service()) as port, http(port) as client:
            assert (await client.get("/readyz")).status_code == 200
            answer = await client.get("/healthz")
            assert "server" not in answer.headers

    run(scenario())


def test_a_port_in_use_is_named_with_the_variable_that_sets_it() -> None:
    async def scenario() -> None:
        async with served(Service()) as port:
            with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{port}: .*in use.*; set {VARIABLE}"):
                async with serve_http(Service().app, "127.0.0.1", port, variable=VARIABLE):
                    pass

    run(scenario())


def test_an_address_of_another_machine_is_a_config_error() -> None:
    async def scenario() -> None:
        with pytest.raises(ConfigError, match=VARIABLE):
            async with serve_http(Service().app, "192.0.2.1", 0, variable=VARIABLE):
                pass

    run(scenario())


def test_the_port_is_free_again_afterwards() -> None:
    async def scenario() -> None:
        async with served(Service()) as port:
            pass
        async with serve_http(Service().app, "127.0.0.1", port, variable=VARIABLE) as again, http(again) as client:
            assert again == port
            assert (await client.get("/healthz")).status_code == 200

    run(scenario())


def test_an_idle_connection_does_not_hold_up_the_end() -> None:
    async def scenario() -> None:
        async with served(Service()) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: h\r\n\r\n")
            await reader.readuntil(b"}")
        async with asyncio.timeout(STOP_S):
            assert await reader.read() == b"", "the server hung up"
        writer.close()
        await writer.wait_closed()

    run(scenario())


def test_a_request_that_never_ends_holds_up_the_end_for_a_while_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coordinator.probes.STOP_S", 0.2)

    async def scenario() -> None:
        service = Service()
        async with served(service) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /hangs HTTP/1.1\r\nHost: h\r\n\r\n")
            await service.entered.wait()
        await reader.read()
        writer.close()
        await writer.wait_closed()

    run(scenario())


def test_a_peer_that_hangs_up_in_the_middle_of_a_body_raises_nothing() -> None:
    async def scenario() -> None:
        service = Service()
        async with served(service) as port:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST /body HTTP/1.1\r\nHost: h\r\nContent-Length: 900\r\n\r\nsome")
            await service.entered.wait()
            writer.close()
            await writer.wait_closed()
        assert service.bodies == [None]

    run(scenario())


@pytest.mark.parametrize(
    "garbage", [b"\x16\x03\x01\x02\x00", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * 5000]
)
def test_what_is_not_http_is_refused_and_the_server_serves_on(garbage: bytes) -> None:
    async def scenario() -> None:
        async with served(Service()) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(garbage + b"\r\n\r\n")
            try:
                said = await reader.read()
            except ConnectionError:
                said = b""
            assert said == b"" or b" 400 " in said
            writer.close()
            async with http(port) as client:
                assert (await client.get("/healthz")).status_code == 200

    run(scenario())


def test_a_websocket_is_not_spoken_here() -> None:
    async def scenario() -> None:
        upgrade = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "eA==",
        }
        async with served(Service()) as port, http(port) as client:
            assert (await client.get("/healthz", headers=upgrade)).status_code == 200

    run(scenario())


def test_an_end_that_is_cancelled_still_ends_the_server() -> None:
    async def serving(is_up: asyncio.Event, stop: asyncio.Event) -> None:
        async with served(Service()):
            is_up.set()
            await stop.wait()

    async def scenario() -> None:
        is_up, stop = asyncio.Event(), asyncio.Event()
        task = asyncio.create_task(serving(is_up, stop))
        await is_up.wait()
        stop.set()
        for _ in range(3):
            await asyncio.sleep(0)
            task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()

    run(scenario())


def test_a_failure_inside_leaves_with_the_server_stopped() -> None:
    async def scenario() -> None:
        with pytest.raises(RuntimeError, match="inside"):
            await fail_inside()

    async def fail_inside() -> None:
        async with served(Service()):
            raise RuntimeError("inside")

    run(scenario())


def test_the_listener_is_closed_when_a_start_is_cancelled() -> None:
    async def scenario() -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]

        async def start() -> None:
            async with serve_http(Service().app, "127.0.0.1", port, variable=VARIABLE):
                pass

        task = asyncio.create_task(start())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        socket.create_server(("127.0.0.1", port)).close()

    run(scenario())
