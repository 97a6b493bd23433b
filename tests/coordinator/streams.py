"""JetStream as the unit tests meet it: a bus in memory with headers, and servers that answer as the test says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager

from coordinator.bus import Headers
from coordinator.memory_bus import MemoryBus


class HeaderMemoryBus(MemoryBus):
    """A MemoryBus that remembers the headers of what was sent."""

    def __init__(self) -> None:
        super().__init__()
        self.headers: list[Mapping[str, str]] = []

    async def publish(self, subject: str, payload: bytes, *, reply: str = "", headers: Headers = None) -> None:
        if headers:
            self.headers.append(headers)
        await super().publish(subject, payload, reply=reply)


@asynccontextmanager
async def server(
    bus: MemoryBus, answers: Mapping[str, object], prefix: str = "$JS.hub.API."
) -> AsyncGenerator[list[str], None]:
    """Answer requests by the first words of their subject; bytes go out as they are, others as JSON; yields what was asked."""
    asked: list[str] = []

    async def serve() -> None:
        async with bus.subscribe("$JS.>") as requests:
            async for request in requests:
                asked.append(request.subject.removeprefix(prefix))
                for begin, answer in answers.items():
                    if asked[-1].startswith(begin):
                        payload = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
                        await bus.publish(request.reply, payload)

    task = asyncio.create_task(serve())
    await asyncio.sleep(0)
    try:
        yield asked
    finally:
        task.cancel()
        await asyncio.wait([task])


def refusal(code: int, err_code: int, description: str) -> dict[str, object]:
    return {"error": {"code": code, "err_code": err_code, "description": description}}


class Pushing:
    """A server whose consumers the test pushes to."""

    def __init__(self, bus: HeaderMemoryBus, stream: str) -> None:
        self._bus, self._stream = bus, stream
        self.inboxes: asyncio.Queue[str] = asyncio.Queue()

    async def run(self) -> None:
        async with self._bus.subscribe(f"$JS.hub.API.CONSUMER.CREATE.{self._stream}") as requests:
            async for request in requests:
                await self._bus.publish(request.reply, b'{"name": "c"}')
                self.inboxes.put_nowait(json.loads(request.payload)["config"]["deliver_subject"])


@asynccontextmanager
async def pushing(bus: HeaderMemoryBus, stream: str = "S") -> AsyncGenerator[Pushing, None]:
    there = Pushing(bus, stream)
    task = asyncio.create_task(there.run())
    await asyncio.sleep(0)
    try:
        yield there
    finally:
        task.cancel()
        await asyncio.wait([task])
