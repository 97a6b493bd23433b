"""A TCP door before a server that is slow, or shut in the middle of what passes: what a network does to a cache."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress


class Door:
    """A TCP proxy before a server."""

    def __init__(self, port: int) -> None:
        self.delay_s = 0.0
        """How long each piece waits on its way to the server."""
        self.pass_bytes: int | None = None
        """After how many bytes to the server a connection is cut, None for never."""
        self.port = 0
        self._server_port = port

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[int, None]:
        """Listen; yield the port."""
        connections: set[asyncio.Task[None]] = set()

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.create_task(self._serve(reader, writer))
            connections.add(task)
            task.add_done_callback(connections.discard)
            task.add_done_callback(lambda _task: writer.close())

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for task in list(connections):
                task.cancel()
            await asyncio.gather(*connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
        except OSError:
            return
        answering = asyncio.create_task(self._answer(up_reader, writer))
        passed = 0
        try:
            with suppress(OSError):
                while piece := await reader.read(65_536):
                    await asyncio.sleep(self.delay_s)
                    if self.pass_bytes is not None and passed + len(piece) > self.pass_bytes:
                        up_writer.write(piece[: self.pass_bytes - passed])
                        await up_writer.drain()
                        return
                    passed += len(piece)
                    up_writer.write(piece)
                    await up_writer.drain()
        finally:
            up_writer.close()
            writer.close()
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while piece := await reader.read(65_536):
                writer.write(piece)
                await writer.drain()
