"""The endpoint over scripted pools, each behind a real worker and the real road in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import httpx
import msgspec
from starlette.applications import Starlette

from cloud.worker import PoolWorker
from coordinator.bus import Bus
from coordinator.memory_bus import MemoryBus
from coordinator.openai_api.request import RequestLimits
from coordinator.openai_api.routes import OpenAIApi
from coordinator.remote import RemoteCompleter
from coordinator.routing.policy import Policy, PoolTerms
from coordinator.routing.router import Router
from models.scripted import ScriptedCompleter

KEY = "a-key-of-sixteen-characters"
TERMS = (
    PoolTerms(name="qwen-72b", price=5.0, strength=1.0),
    PoolTerms(name="qwen-14b", price=1.0, strength=0.8),
    PoolTerms(name="qwen-vl", price=2.0, strength=0.7, vision=True),
)
ALWAYS_CLOUD, NEVER_CLOUD = 0.0, 2.0


@dataclass
class Site:
    """An endpoint, its pools and a client."""

    app: Starlette
    api: OpenAIApi
    http: httpx.AsyncClient
    pools: Mapping[str, ScriptedCompleter]
    results: list[tuple[str, str]] = field(default_factory=list)

    async def ask(self, question: str = "你好", **changes: Any) -> httpx.Response:
        body = {"model": "qwen-14b", "messages": [{"role": "user", "content": question}]} | changes
        return await self.http.post("/v1/chat/completions", json=body)

    @property
    def running(self) -> dict[str, int]:
        return {name: pool.calls.running for name, pool in self.pools.items()}


@asynccontextmanager
async def site(
    pools: Mapping[str, ScriptedCompleter | None],
    *,
    threshold: float = ALWAYS_CLOUD,
    api_keys: Collection[str] = (KEY,),
    limits: RequestLimits | None = None,
    max_running: int = 64,
    policy: Policy | None = None,
    bus: Bus | None = None,
) -> AsyncGenerator[Site, None]:
    """Serve ``pools``, None for one without a worker; nothing of an answer may be left when this ends."""
    bus, clock = bus or MemoryBus(), asyncio.get_running_loop().time
    served = {name: pool for name, pool in pools.items() if pool is not None}
    workers = [PoolWorker(bus, name, pool, worker_id=f"w-{name}") for name, pool in served.items()]
    running = [asyncio.create_task(worker.run()) for worker in workers]
    for worker in workers:
        await worker.ready.wait()
    results: list[tuple[str, str]] = []
    api = OpenAIApi(
        {name: RemoteCompleter(bus, name, "api", now=clock) for name in pools},
        Router(
            policy or Policy(version=7, router="complexity", threshold=threshold, pools=TERMS), None, now=lambda: 1e9
        ),
        api_keys=api_keys,
        limits=limits,
        max_running=max_running,
        observe=lambda pool, result: results.append((pool, result)),
        now=lambda: 1e9,
    )
    app = Starlette(routes=api.routes)
    headers = {"Authorization": f"Bearer {KEY}"} if api_keys else {}
    try:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://localhost", headers=headers
        ) as http:
            yield Site(app, api, http, served, results)
        assert api.running == 0
    finally:
        for task in running:
            task.cancel()
        for task in running:
            with suppress(asyncio.CancelledError):
                await task


def events(stream: str) -> list[Any]:
    """Return the server-sent events of a stream, the last one as the text it is."""
    assert stream.endswith("\n\n")
    found = [line.removeprefix("data: ") for line in stream.removesuffix("\n\n").split("\n\n")]
    return [text if text == "[DONE]" else msgspec.json.decode(text) for text in found]
