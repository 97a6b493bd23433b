from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from typing import Any, cast

import pytest

from cloud.app import PROBE_S, _Upstream, run
from cloud.settings import CloudSettings
from cloud.upstream import OpenAIUpstream
from coordinator import wire
from coordinator.bus import MemoryBus
from coordinator.remote import RemoteCompleter
from coordinator.settings import load
from models.errors import CloudUnreachableError, ConfigError
from models.prompts import Message, Prompt
from tests import real_time, virtual_time


class Replica:
    """An upstream that is ready by plan, one entry a probe."""

    def __init__(self, *plan: bool) -> None:
        self.plan = list(plan)
        self.asked_at_s: list[float] = []

    async def is_ready(self) -> bool:
        self.asked_at_s.append(asyncio.get_running_loop().time())
        await asyncio.sleep(0)
        return self.plan.pop(0) if len(self.plan) > 1 else self.plan[0]


def test_an_upstream_is_asked_every_second_and_believed() -> None:
    async def scenario() -> None:
        replica = Replica(False, True, False)
        health = _Upstream(cast("OpenAIUpstream", replica))
        assert not health.is_ready, "before the first probe"
        watching = asyncio.create_task(health.watch())
        seen: list[bool] = []
        for _ in range(4):
            await asyncio.sleep(PROBE_S / 2)
            seen.append(health.is_ready)
            await asyncio.sleep(PROBE_S / 2)
        assert seen == [False, True, False, False]
        assert replica.asked_at_s[:4] == pytest.approx([0.0, 1.0, 2.0, 3.0])
        watching.cancel()
        await asyncio.wait([watching])

    virtual_time.run(scenario())


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({}, "cannot connect to NATS"),
        ({"CLOUD_NATS_NKEY_SEED_FILE": "/no/such/file"}, "/no/such/file"),
        ({"CLOUD_NATS_URL": "nats://h:notaport"}, "no NATS address"),
    ],
)
def test_what_keeps_a_worker_from_starting_is_a_config_error(
    unused_tcp_port: int, environ: dict[str, Any], words: str
) -> None:
    settings = {"CLOUD_NATS_URL": f"nats://127.0.0.1:{unused_tcp_port}", "CLOUD_NATS_CONNECT_S": "0.1", **environ}

    async def scenario() -> None:
        with pytest.raises(ConfigError, match=words):
            await run(load(CloudSettings, settings), "", asyncio.Event())

    real_time.run(scenario())


def test_a_worker_serves_its_pool_until_it_is_told_to_stop(
    monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    bus = MemoryBus()

    @asynccontextmanager
    async def connect(*_where: object, **_options: object) -> AsyncGenerator[MemoryBus, None]:
        yield bus

    monkeypatch.setattr("cloud.app.NatsBus.connect", connect)
    settings = {"CLOUD_POOL": "p", "CLOUD_WORKER_ID": "w", "CLOUD_UPSTREAM_URL": f"http://127.0.0.1:{unused_tcp_port}"}
    prompt = Prompt(turn_id="t", messages=(Message(role="user", text="一"),))

    async def ask() -> None:
        async with aclosing(RemoteCompleter(bus, "p", "edge-1").complete(prompt)) as deltas:
            async for _ in deltas:
                pass

    async def scenario() -> None:
        stop = asyncio.Event()
        async with bus.subscribe(wire.pool_beat_subject("p", "*")) as beats:
            running = asyncio.create_task(run(load(CloudSettings, {**settings, "CLOUD_HTTP_PORT": "0"}), "", stop))
            beat = wire.decode_pool_beat((await anext(aiter(beats))).payload)
            assert beat == wire.PoolBeat(pool="p", worker_id="w", model="p", max_running=8, ready=False)
        with pytest.raises(CloudUnreachableError, match="ConnectError"):
            await ask()
        stop.set()
        await running
        with pytest.raises(CloudUnreachableError, match="no worker serves this pool"):
            await ask()

    real_time.run(scenario())
