from __future__ import annotations

import asyncio
import time

from benchmarks.slow_door import Door
from tests.real_time import run


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while piece := await reader.read(100):
        writer.write(piece)
    writer.close()


async def said(port: int, text: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(text)
    try:
        async with asyncio.timeout(5):
            return await reader.read(100)
    finally:
        writer.close()


def test_what_goes_in_comes_back_late_or_cut_as_told() -> None:
    async def scenario() -> None:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        door = Door(server.sockets[0].getsockname()[1])
        async with door.open() as port:
            assert await said(port, b"hello") == b"hello"
            door.delay_s = 0.1
            began_s = time.monotonic()
            assert await said(port, b"hello") == b"hello"
            assert time.monotonic() - began_s >= 0.1
            door.delay_s, door.pass_bytes = 0.0, 3
            assert await said(port, b"hello") in {b"", b"hel"}
        server.close()
        await server.wait_closed()

    run(scenario())


def test_a_server_that_is_away_shuts_the_door(unused_tcp_port: int) -> None:
    async def scenario() -> None:
        async with Door(unused_tcp_port).open() as port:
            assert await said(port, b"hello") == b""

    run(scenario())
