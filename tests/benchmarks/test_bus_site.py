from __future__ import annotations

import asyncio

from benchmarks.bus_site import POOL, _heard
from coordinator import wire
from coordinator.memory_bus import MemoryBus
from tests.virtual_time import run


def test_a_site_is_ready_when_so_many_workers_beat_and_can_reach_their_upstream() -> None:
    async def scenario() -> None:
        bus = MemoryBus()

        async def beat(worker_id: str, *, is_ready: bool) -> None:
            message = wire.PoolBeat(pool=POOL, worker_id=worker_id, ready=is_ready)
            await bus.publish(wire.pool_beat_subject(POOL, worker_id), wire.encode(message))
            await asyncio.sleep(0.1)

        waiting = asyncio.create_task(_heard(bus, POOL, 2))
        await asyncio.sleep(0.1)
        await beat("w1", is_ready=True)
        await beat("w1", is_ready=True)
        await beat("w2", is_ready=False)
        assert not waiting.done()
        await beat("w2", is_ready=True)
        assert waiting.done()
        assert not bus._lines

    run(scenario())
