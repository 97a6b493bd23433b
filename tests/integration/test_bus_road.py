from __future__ import annotations

import asyncio

from benchmarks.bus_load import added_ms, cancels, full_answer, prompt_of, rate_of
from benchmarks.bus_site import EDGE, POOL, STUB_POOL, site
from coordinator.remote import RemoteCompleter
from tests.real_time import run


def test_a_site_starts_is_measured_and_leaves_nothing() -> None:
    async def scenario() -> None:
        async with site(1) as here:
            road = RemoteCompleter(here.edge, POOL, EDGE, asker=here.asker)
            stub = RemoteCompleter(here.edge, STUB_POOL, EDGE, asker=here.asker)
            await full_answer(road, prompt_of("8 0 0 -"), 8)()
            added = await added_ms(road, stub, 3)
            assert added["n"] == 3
            rate = await rate_of(here, full_answer(stub, prompt_of("1 0 0 -"), 1), askers=2, seconds=0.2)
            assert rate.per_s > 0
            assert rate.failed == 0
            ended = await cancels(here, road, 4, at_once=2)
            assert ended["cancel_ms"]["n"] > 0
            assert ended["never_closed"] == 0
            assert (await here.watched()).open == 0
            assert here.asker.waiting == 0
            pids = [child.pid for child in here.group.running]
        await asyncio.sleep(0)
        assert len(pids) == 5
        assert all(child.has_ended() for child in here.group.running)

    run(scenario(), timeout_s=90)
