"""The endpoint for people outside on real sockets: streams, clients that leave, and the official client where it is installed."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from prometheus_client import CollectorRegistry

from coordinator.bus import Bus
from coordinator.metrics import Metrics
from coordinator.nats_bus import NatsBus
from coordinator.probes import probes, serve_http
from manifests.processes import children, free_ports
from manifests.servers import nats_server
from models.scripted import ScriptedCompleter
from tests.coordinator.openai_api.site import KEY, Site, site
from tests.real_time import run

WITHIN_S = 10.0


@asynccontextmanager
async def served(bus: Bus | None = None, **pools: ScriptedCompleter) -> AsyncGenerator[tuple[Site, str], None]:
    """Serve the pools, their names written with ``_``, and yield the address."""
    async with site({name.replace("_", "-"): pool for name, pool in pools.items()}, bus=bus) as door:
        app = probes(Metrics(CollectorRegistry()), not_ready=dict, routes=door.api.routes)
        async with serve_http(app, "127.0.0.1", 0, variable="COORDINATOR_HTTP_PORT") as port:
            yield door, f"http://127.0.0.1:{port}"


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(WITHIN_S):
        while not condition():  # noqa: ASYNC110  # other sockets: nothing to wait on
            await asyncio.sleep(0.01)


def body(**changes: Any) -> dict[str, Any]:
    return {"model": "qwen-14b", "messages": [{"role": "user", "content": "你好"}]} | changes


HEADERS = {"Authorization": f"Bearer {KEY}"}


def test_words_arrive_while_the_model_still_writes() -> None:
    async def work() -> list[str]:
        writer = ScriptedCompleter(lambda _: "一二三四五", per_token_s=0.2)
        async with (
            served(qwen_14b=writer) as (_, url),
            httpx.AsyncClient(base_url=url, headers=HEADERS) as http,
            http.stream("POST", "/v1/chat/completions", json=body(stream=True)) as answer,
        ):
            lines = answer.aiter_lines()
            async for line in lines:
                if '"一"' in line:
                    assert writer.calls.running == 1
                    break
            return [line async for line in lines if line]

    *chunks, last = run(work())
    assert last == "data: [DONE]"
    assert len(chunks) == 5


async def leaves(
    url: str, door: Site, writer: ScriptedCompleter, *, is_streamed: bool, way: str
) -> list[tuple[str, str]]:
    """Ask, hang up while the model writes, and return what became of it once the model has stopped."""
    reader, sender = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    payload = msgspec.json.encode(body(stream=is_streamed))
    head = f"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {KEY}\r\n"
    head += f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
    sender.write(head.encode() + payload)
    await sender.drain()
    await until(lambda: writer.calls.running == 1)
    if is_streamed:
        await reader.readuntil("一".encode())
    if way == "reset":
        raw = sender.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        sender.transport.abort()
    sender.close()
    await until(lambda: not any(door.running.values()) and not door.api.running)
    return door.results


def endless() -> ScriptedCompleter:
    return ScriptedCompleter(lambda _: "一" * 1000, first_token_s=0.05, per_token_s=0.05)


@pytest.mark.parametrize("is_streamed", [False, True])
@pytest.mark.parametrize("way", ["close", "reset"])
def test_client_that_leaves_stops_the_model(is_streamed: bool, way: str) -> None:
    async def work() -> list[tuple[str, str]]:
        writer = endless()
        async with served(qwen_14b=writer) as (door, url):
            return await leaves(url, door, writer, is_streamed=is_streamed, way=way)

    (result,) = run(work())
    assert result[1] == "client-gone"


def test_client_that_leaves_stops_the_model_behind_a_real_nats_server(tmp_path: Path) -> None:
    async def work() -> list[tuple[str, str]]:
        writer, port = endless(), free_ports(1)[0]
        async with children(tmp_path) as group:
            await nats_server(group, tmp_path, "nats", {"host": "127.0.0.1", "port": port}, lambda _line: None)
            async with (
                NatsBus.connect(f"nats://127.0.0.1:{port}", name="coordinator") as bus,
                served(bus, qwen_14b=writer) as (door, url),
            ):
                return await leaves(url, door, writer, is_streamed=True, way="close")

    assert run(work()) == [("qwen-14b", "client-gone")]


def test_refusals_leave_the_connection_usable() -> None:
    async def work() -> list[int]:
        async with served(qwen_14b=ScriptedCompleter()) as (_, url), httpx.AsyncClient(base_url=url) as http:
            path = "/v1/chat/completions"
            wrong = await http.post(path, json=body())
            large = await http.post(
                path, content=b" " * 2_000_000, headers=HEADERS | {"Content-Type": "application/json"}
            )
            right = await http.post(path, json=body(), headers=HEADERS)
            return [wrong.status_code, large.status_code, right.status_code]

    assert run(work()) == [401, 413, 200]


def test_official_client_is_served() -> None:
    openai = pytest.importorskip("openai", reason="the official client is not installed")

    async def work() -> None:
        pools = {"qwen_14b": ScriptedCompleter(lambda _: "你好。"), "qwen_vl": ScriptedCompleter(lambda _: "一只猫")}
        async with served(**pools) as (_, url):
            client = openai.AsyncOpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0)
            async with client:
                await with_official_client(client, openai)

    run(work())


async def with_official_client(client: Any, openai: Any) -> None:
    assert [model.id async for model in client.models.list()] == ["auto", "qwen-14b", "qwen-vl"]
    messages = [{"role": "user", "content": "你好"}]
    said = await client.chat.completions.create(model="auto", messages=messages, max_tokens=20)
    assert (said.choices[0].message.content, said.choices[0].finish_reason) == ("你好。", "stop")
    stream = await client.chat.completions.create(
        model="qwen-14b", messages=messages, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "你好。"
    assert chunks[-1].usage.completion_tokens == 3
    with pytest.raises(openai.BadRequestError) as refused:
        await client.chat.completions.create(model="auto", messages=messages, temperature=0.2)
    assert refused.value.param == "temperature"
    with pytest.raises(openai.NotFoundError):
        await client.chat.completions.create(model="gpt-4o", messages=messages)
    with pytest.raises(openai.AuthenticationError):
        await client.with_options(api_key="wrong").models.list()
