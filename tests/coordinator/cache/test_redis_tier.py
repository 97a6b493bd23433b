from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.cache.keys import key_of
from coordinator.cache.kinds import Kind
from coordinator.cache.ladder import Ladder
from coordinator.cache.redis_tier import RedisTier, _escaped
from models.errors import CacheError, ConfigError
from tests.real_time import run

PATIENT_S = 5.0


@pytest.mark.parametrize("url", ["", "127.0.0.1:6379", "http://127.0.0.1:6379"])
def test_a_bad_address_names_itself(url: str) -> None:
    async def scenario() -> None:
        async with RedisTier.connect(url):
            pass

    with pytest.raises(ConfigError, match="not a Redis address"):
        run(scenario())


@pytest.mark.parametrize("scheme", ["redis", "redis+cluster"])
def test_a_server_that_is_away_is_a_cache_error(unused_tcp_port: int, scheme: str) -> None:
    async def scenario() -> None:
        async with RedisTier.connect(f"{scheme}://127.0.0.1:{unused_tcp_port}") as tier:
            for call in (
                tier.get("k"),
                tier.put("k", b"v", 60),
                tier.drop("k"),
                tier.ping(),
                tier.size(),
                tier.lease("k", 1),
                tier.release("k", "token"),
            ):
                with pytest.raises(CacheError):
                    await call

    run(scenario())


@given(st.text(max_size=20))
def test_an_escaped_text_has_no_wildcard_left(text: str) -> None:
    escaped = _escaped(text)
    for place, character in enumerate(escaped):
        if character in "*?[":
            assert escaped[place - 1] == "\\"


REPLIES = {
    "no-number": b":abc\r\n",
    "no-length": b"$abc\r\n",
    "negative-length": b"$-5\r\n",
    "no-count": b"*abc\r\n",
    "http": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "number": b":5\r\n",
    "list": b"*1\r\n:1\r\n",
    "map": b"%1\r\n+a\r\n+b\r\n",
    "too-long": b"$3\r\nabcdefgh\r\n",
    "loading": b"-LOADING Redis is loading the dataset in memory\r\n",
    "no-text": b"-\xff\xfe\r\n",
    "empty": b"\r\n",
}


@asynccontextmanager
async def liar(reply: bytes) -> AsyncGenerator[int, None]:
    """Serve ``reply`` to every command but those with which a client introduces itself; yield the port."""
    connections: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while asked := await reader.read(65_536):
                introductions = asked.count(b"SETINFO")
                writer.write(b"+OK\r\n" * introductions if introductions else reply)
                await writer.drain()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(serve(reader, writer))
        connections.add(task)
        task.add_done_callback(lambda _task: writer.close())

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in connections:
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)


@pytest.mark.parametrize("reply", REPLIES.values(), ids=REPLIES)
def test_a_server_that_answers_what_no_redis_would_is_a_cache_error(reply: bytes) -> None:
    async def scenario() -> None:
        async with liar(reply) as port, RedisTier.connect(f"redis://127.0.0.1:{port}", timeout_s=PATIENT_S) as tier:
            for call in (tier.get("k"), tier.put("k", b"v", 60), tier.size()):
                with pytest.raises(CacheError, match="redis"):
                    await call

    run(scenario())


def test_a_liar_in_a_ladder_is_a_miss() -> None:
    async def scenario() -> None:
        key = key_of(Kind.ANSWER, "question")
        async with (
            liar(b":5\r\n") as port,
            RedisTier.connect(f"redis://127.0.0.1:{port}", timeout_s=PATIENT_S) as tier,
            Ladder(None, [tier]).open() as ladder,
        ):
            assert await ladder.get(key) is None

    run(scenario())
