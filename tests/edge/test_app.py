from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog.testing

from coordinator import wire
from coordinator.bus import Subscription
from coordinator.fleet.tokens import mint
from coordinator.memory_bus import MemoryBus
from edge import app, engines
from edge.settings import EdgeSettings
from models.errors import CatalogError, ConfigError, DeviceAuthError, VoiceError
from tests.coordinator.streams import HeaderMemoryBus
from tests.real_time import run

SECRET = "sixteen letters!"
FOREVER_S = 2**33


def settings(**fields: Any) -> EdgeSettings:
    bench = {"engines": "scripted", "auth": "off", "gateway_port": 0, "http_port": 0, "drain_s": 0.0}
    return EdgeSettings.model_validate({**bench, **fields})


class Nats:
    """In place of NatsBus: connects to a bus in memory, and remembers that it was asked to."""

    def __init__(self) -> None:
        self.bus = HeaderMemoryBus()
        self.names: list[str] = []

    @asynccontextmanager
    async def connect(self, _url: str, *, name: str, **_options: Any) -> AsyncGenerator[MemoryBus, None]:
        self.names.append(name)
        yield self.bus


@pytest.fixture
def nats(monkeypatch: pytest.MonkeyPatch) -> Nats:
    fake = Nats()
    monkeypatch.setattr(app, "NatsBus", fake)
    return fake


@asynccontextmanager
async def running(settings: EdgeSettings, role: str = "") -> AsyncGenerator[asyncio.Event, None]:
    """Run the node beside the body, and stop it as SIGTERM would."""
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(app.run(settings, role, stop))
        try:
            yield stop
        finally:
            stop.set()


# Who may come in


@pytest.mark.parametrize("secret", ["", "fifteen letters"])
@pytest.mark.parametrize("role", ["", "gateway"])
def test_a_secret_that_can_be_guessed_is_refused_before_anything_is_started(secret: str, role: str, nats: Nats) -> None:
    guessable = settings(auth="token", device_token_secret=secret)
    with pytest.raises(ConfigError, match=r"EDGE_DEVICE_TOKEN_SECRET must have at least 16 characters.*EDGE_AUTH=off"):
        run(app.run(guessable, role, asyncio.Event()))
    assert not nats.names


def test_the_brain_alone_needs_no_secret(nats: Nats) -> None:
    async def work() -> None:
        async with running(settings(auth="token"), "brain"), nats.bus.subscribe("voice.seam.edge-1.beat") as beats:
            await anext(aiter(beats))

    run(work())
    assert nats.names == ["edge-edge-1-brain"]


def test_tokens_are_asked_for_by_default() -> None:
    door = app._authenticator(settings(auth="token", device_token_secret=SECRET))
    door.check("d", "c", mint(SECRET, "d", "c", FOREVER_S))
    with pytest.raises(DeviceAuthError):
        door.check("d", "c", mint("another secret of sixteen", "d", "c", FOREVER_S))


def test_auth_off_lets_everybody_in_and_says_so() -> None:
    with structlog.testing.capture_logs() as logs:
        door = app._authenticator(settings())
    door.check("anybody", "", "")
    assert [(entry["event"], entry["log_level"]) for entry in logs] == [("auth_off", "warning")]


# Cache tiers


@pytest.mark.parametrize(
    ("named", "told"),
    [
        ({"redis_url": "127.0.0.1:6379"}, "not a Redis address"),
        ({"s3_url": "127.0.0.1:8333"}, "not an S3 address"),
        ({"s3_url": "http://127.0.0.1:1", "s3_bucket": "Not A Bucket"}, "not an S3 bucket"),
    ],
)
def test_an_address_that_is_none_is_refused(named: dict[str, str], told: str, nats: Nats) -> None:
    with pytest.raises(ConfigError, match=told):
        run(app.run(settings(**named), "", asyncio.Event()))
    assert nats.names


# A node


async def answer_of(url: str) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False, timeout=5.0) as client:
        while True:
            try:
                return await client.get(url)
            except httpx.ConnectError:
                await asyncio.sleep(0.01)


async def first_ready(line: Subscription) -> wire.EdgeBeat:
    """Return the first beat of an edge that is ready: its gateway must have heard of its brain."""
    async for message in line:
        if (beat := wire.decode_edge_beat(message.payload)).ready:
            return beat
    raise AssertionError("the bus was closed")


def test_a_node_is_ready_tells_the_coordinator_where_it_is_and_ends_when_told(nats: Nats, unused_tcp_port: int) -> None:
    async def work() -> None:
        url = f"http://127.0.0.1:{unused_tcp_port}"
        node = settings(http_port=unused_tcp_port, region="cn-east", public_websocket_url="ws://edge.example/")
        async with nats.bus.subscribe(wire.edge_beat_subject("*")) as line, running(node):
            assert await first_ready(line) == wire.EdgeBeat(
                edge_id="edge-1", websocket_url="ws://edge.example/", region="cn-east", max_devices=150, ready=True
            )
            assert (await answer_of(f"{url}/readyz")).json() == {"status": "ready", "reasons": {}}
            metrics = (await answer_of(f"{url}/metrics")).text
            assert "active_devices 0.0" in metrics
            assert "voice_brain_turns_running 0.0" in metrics
        with pytest.raises(OSError, match=r"refused|failed"):
            await asyncio.open_connection("127.0.0.1", unused_tcp_port)

    run(work())


def test_a_node_is_not_ready_while_it_loads_its_engines(
    nats: Nats, unused_tcp_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = asyncio.Event()

    async def load_slowly(settings: EdgeSettings, observe_wait: Any) -> engines.Engines:
        await loaded.wait()
        return await engines.load_engines(settings, observe_wait)

    monkeypatch.setattr(app, "load_engines", load_slowly)

    async def work() -> None:
        url = f"http://127.0.0.1:{unused_tcp_port}/readyz"
        async with running(settings(http_port=unused_tcp_port)):
            answer = await answer_of(url)
            assert (answer.status_code, answer.json()["reasons"]) == (503, {"engines": "loading"})
            loaded.set()
            async with nats.bus.subscribe(wire.edge_beat_subject("*")) as line:
                await first_ready(line)
            assert (await answer_of(url)).status_code == 200

    run(work())


def test_a_port_in_use_is_named_with_the_setting(nats: Nats) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port}.*EDGE_HTTP_PORT"):
            run(app.run(settings(http_port=port), "", asyncio.Event()))
        with pytest.raises(ConfigError, match=f"127.0.0.1:{port}"):
            run(app.run(settings(gateway_port=port), "", asyncio.Event()))


def test_a_missing_model_keeps_the_node_from_starting(nats: Nats, tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match="xiaozhi-fleet models pull"):
        run(app.run(settings(engines="real", models_root=tmp_path), "brain", asyncio.Event()))


def test_an_unreachable_bus_keeps_the_node_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    @asynccontextmanager
    async def connect(url: str, **_options: Any) -> AsyncGenerator[MemoryBus, None]:
        raise ConfigError(f"cannot connect to NATS at {url}")
        yield MemoryBus()

    monkeypatch.setattr("edge.app.NatsBus.connect", connect)
    with pytest.raises(VoiceError, match=r"nats://127\.0\.0\.1:1"):
        run(app.run(settings(nats_url="nats://127.0.0.1:1"), "gateway", asyncio.Event()))
