from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from coordinator.cache.guard import FAILURES_TO_OPEN, LONGEST_PROBE_S, PROBE_S, Guard
from models.errors import CacheError
from tests.virtual_time import run


class Tier:
    def __init__(self) -> None:
        self.is_back, self.asked_s, self.takes_s = False, list[float](), 0.0

    async def ping(self) -> None:
        self.asked_s.append(asyncio.get_running_loop().time())
        await asyncio.sleep(self.takes_s)
        if not self.is_back:
            raise CacheError("away")


@asynccontextmanager
async def guarded(tier: Tier) -> AsyncGenerator[Guard, None]:
    guard = Guard("redis", tier.ping)
    running = asyncio.create_task(guard.run())
    try:
        yield guard
    finally:
        running.cancel()
        await asyncio.wait([running])


def test_failures_in_a_row_open_and_a_success_between_them_does_not() -> None:
    guard = Guard("redis", Tier().ping)
    for _ in range(5):
        for _ in range(FAILURES_TO_OPEN - 1):
            guard.failed()
        guard.succeeded()
    assert not guard.is_open
    for _ in range(FAILURES_TO_OPEN):
        guard.failed()
    assert guard.is_open


def test_being_late_once_opens() -> None:
    guard = Guard("redis", Tier().ping)
    guard.failed(late=True)
    assert guard.is_open


def test_it_is_asked_in_the_background_ever_more_rarely_until_it_answers() -> None:
    async def scenario() -> None:
        tier = Tier()
        async with guarded(tier) as guard:
            await asyncio.sleep(10)
            assert not tier.asked_s
            guard.failed(late=True)
            await asyncio.sleep(60)
            gaps = [
                round(later - sooner, 3) for sooner, later in zip([10.0, *tier.asked_s], tier.asked_s, strict=False)
            ]
            assert gaps[:3] == [PROBE_S, 2 * PROBE_S, 4 * PROBE_S]
            assert max(gaps) <= LONGEST_PROBE_S + 0.05
            assert guard.is_open
            tier.is_back = True
            await asyncio.sleep(LONGEST_PROBE_S + 0.1)
            assert not guard.is_open
            asked = len(tier.asked_s)
            await asyncio.sleep(60)
            assert len(tier.asked_s) == asked

    run(scenario())


def test_one_that_answers_slowly_is_not_back() -> None:
    async def scenario() -> None:
        tier = Tier()
        tier.is_back, tier.takes_s = True, 0.5
        async with guarded(tier) as guard:
            guard.failed(late=True)
            await asyncio.sleep(30)
            assert guard.is_open
            tier.takes_s = 0.001
            await asyncio.sleep(LONGEST_PROBE_S + 0.1)
            assert not guard.is_open

    run(scenario())


def test_it_opens_again_after_it_was_back() -> None:
    async def scenario() -> None:
        tier = Tier()
        tier.is_back = True
        async with guarded(tier) as guard:
            for _ in range(3):
                guard.failed(late=True)
                assert guard.is_open
                await asyncio.sleep(1)
                assert not guard.is_open

    run(scenario())
