"""A server on bare sockets for tests: it says whatever bytes it is told to, as late and as broken as one wants."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress


class BareServer:
    """Serves each connection by ``serve``; leaving ``listening`` ends them all."""

    def __init__(self) -> None:
        self.connections: set[asyncio.Task[None]] = set()
        """Connections being served."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        raise NotImplementedError

    def lost(self) -> None:
        """The peer hung up while it was served."""

    @asynccontextmanager
    async def listening(self) -> AsyncGenerator[int, None]:
        """Accept connections while the body runs; yield the port."""
        server = await asyncio.start_server(self._accepted, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            for task in self.connections:
                task.cancel()
            if self.connections:
                await asyncio.wait(self.connections)
            await server.wait_closed()

    async def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self.connections.add(task)
        try:
            await self.serve(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            self.lost()
        except asyncio.CancelledError:
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
            self.connections.discard(task)
