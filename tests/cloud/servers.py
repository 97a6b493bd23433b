"""Replicas that behave by plan, on virtual time."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from cloud.pool import ReplicaPool
from cloud.replica import Replica, Upstream
from cloud.vllm_metrics import Figures
from models.errors import CompletionError, ConfigError
from models.prompts import CompletionDelta, Message, Prompt, Usage


def prompt(device_id: str = "", *, budget_ms: int = 30_000) -> Prompt:
    return Prompt(turn_id="t", messages=(Message(role="user", text="一"),), device_id=device_id, budget_ms=budget_ms)


class Server:
    """Answers with its name in ``pieces`` pieces, each after ``pause_s``; fails, hangs or is silent when told to."""

    def __init__(self, name: str, *, pause_s: float = 0.1, pieces: int = 3) -> None:
        self.replica = Replica(name=name, url=f"http://{name}")
        self.pause_s = pause_s
        self.pieces = pieces
        self.error: CompletionError | None = None
        """Raised before the first piece."""
        self.breaks_with: CompletionError | None = None
        """Raised after the first piece."""
        self.hangs = False
        self.probe_error: CompletionError | None = None
        self.figures: Figures | None = None
        self.asked = 0
        self.probed_s: list[float] = []
        self.running = 0
        self.most = 0
        self.is_open = False

    @asynccontextmanager
    async def connected(self) -> AsyncGenerator[Server, None]:
        self.is_open = True
        try:
            yield self
        finally:
            assert self.running == 0, "closed under an answer"
            self.is_open = False

    async def probe(self) -> Figures | None:
        self.probed_s.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0)
        if self.probe_error:
            raise self.probe_error
        return self.figures

    async def complete(self, prompt: Prompt) -> AsyncGenerator[CompletionDelta, None]:
        self.asked += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            if self.error:
                raise self.error
            for _ in range(self.pieces):
                await (asyncio.Event().wait() if self.hangs else asyncio.sleep(self.pause_s))
                yield CompletionDelta(text=self.replica.name, model="m")
                if self.breaks_with:
                    raise self.breaks_with
            yield CompletionDelta(text="", usage=Usage(completion_tokens=self.pieces))
        finally:
            self.running -= 1


def servers(count: int, **options: Any) -> list[Server]:
    return [Server(f"s{number:02}", **options) for number in range(count)]


@asynccontextmanager
async def pool_of(
    many: list[Server], *, seed: int = 1, settles: bool = True, per_replica: int = 8, **options: Any
) -> AsyncGenerator[ReplicaPool, None]:
    """Open a pool of these servers; ``settles`` waits for the first probes."""
    by_replica = {server.replica: server for server in many}

    def connect(replica: Replica) -> Any:
        if replica not in by_replica:
            raise ConfigError(f"{replica.name} is no address")
        return by_replica[replica].connected()

    pool = ReplicaPool(
        "p", connect, per_replica=per_replica, now=asyncio.get_running_loop().time, dice=random.Random(seed), **options
    )
    async with pool.opened([server.replica for server in many]):
        if settles:
            await asyncio.sleep(0.01)
        yield pool
    assert pool.outstanding == 0
    assert not any(server.running for server in many)


async def text_of(pool: ReplicaPool | Upstream, asked: Prompt) -> str:
    async with aclosing(pool.complete(asked)) as deltas:
        return "".join([delta.text async for delta in deltas])
