from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from cloud.app import PROBE_S, _Upstream, run
from cloud.settings import CloudSettings
from cloud.upstream import OpenAIUpstream
from coordinator.settings import load
from models.errors import ConfigError
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
