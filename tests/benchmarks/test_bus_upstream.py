from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager

import httpx
import msgspec

from benchmarks.bus_load import prompt_of
from benchmarks.bus_upstream import Connection, Stub, Watched
from cloud.upstream import OpenAIUpstream
from tests.real_time import run


@asynccontextmanager
async def upstream() -> AsyncGenerator[tuple[str, Stub], None]:
    stub = Stub()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(stub), "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", stub


def test_the_plan_is_answered_and_watched() -> None:
    async def scenario() -> None:
        async with upstream() as (url, stub), OpenAIUpstream.connect(url, "m") as client:
            async with aclosing(client.complete(prompt_of("8 2 1 whole"))) as deltas:
                assert "".join([delta.text async for delta in deltas]) == "好" * 8
            async with httpx.AsyncClient(trust_env=False) as watcher:
                assert (await watcher.get(f"{url}/v1/models")).json()["data"] == []
                watched = msgspec.json.decode((await watcher.get(f"{url}/watched")).content, type=Watched)
            (ending,) = watched.endings
            assert (ending.name, ending.is_whole, len(ending.written_s)) == ("whole", True, 8)
            assert watched.open == 0
            assert not stub.endings, "told once"

    run(scenario())


def test_a_stream_closed_early_is_noted_with_what_was_written() -> None:
    async def scenario() -> None:
        async with upstream() as (url, stub), OpenAIUpstream.connect(url, "m") as client:
            async with aclosing(client.complete(prompt_of("400 1 5 cut"))) as deltas:
                await anext(deltas)
            async with asyncio.timeout(10):
                while not stub.endings:  # noqa: ASYNC110  # the other side of a socket: nothing to wait on
                    await asyncio.sleep(0.005)
            (ending,) = stub.endings
            assert not ending.is_whole
            assert 1 <= len(ending.written_s) < 400
            assert stub.open == 0

    run(scenario())
