from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress

import pytest

from edge.brain.flow import prefetch
from tests.virtual_time import run


class Source:
    def __init__(self, count: int, *, step_s: float = 1.0, fails: Exception | BaseException | None = None) -> None:
        self.made = 0
        self.is_closed = False
        self._count, self._step_s, self._fails = count, step_s, fails

    async def items(self) -> AsyncGenerator[int, None]:
        try:
            for number in range(self._count):
                await asyncio.sleep(self._step_s)
                self.made += 1
                yield number
            if self._fails:
                raise self._fails
        finally:
            await asyncio.sleep(0.5)
            self.is_closed = True


def test_items_arrive_in_order_while_the_next_is_made() -> None:
    async def scene() -> tuple[list[int], float]:
        seen = []
        async with prefetch(Source(4).items(), 2) as items:
            async for item in items:
                await asyncio.sleep(1)
                seen.append(item)
        return seen, asyncio.get_running_loop().time()

    seen, took_s = run(scene())
    assert seen == [0, 1, 2, 3]
    assert took_s == pytest.approx(5.0)


def test_full_line_makes_the_source_wait() -> None:
    async def scene() -> int:
        source = Source(100)
        async with prefetch(source.items(), 3) as items:
            async for _ in items:
                await asyncio.sleep(50)
                break
        return source.made

    assert run(scene()) == 5  # one read, three in line, one in hand


@pytest.mark.parametrize("fails", [ValueError("broken"), asyncio.CancelledError()])
def test_error_is_raised_after_the_items_before_it(fails: BaseException) -> None:
    async def scene() -> list[int]:
        seen: list[int] = []

        async def read() -> None:
            async with prefetch(Source(2, fails=fails).items(), 2) as items:
                async for item in items:
                    seen.append(item)  # noqa: PERF401 - what was seen before the failure counts

        with pytest.raises((ValueError, RuntimeError)):
            await read()
        return seen

    assert run(scene()) == [0, 1]


@pytest.mark.parametrize("leave_at_s", [0.0, 0.5, 1.0, 2.5, 100.0])
def test_leaving_at_any_time_closes_the_source_before_it_returns(leave_at_s: float) -> None:
    async def scene() -> None:
        source = Source(5)
        async with prefetch(source.items(), 2):
            await asyncio.sleep(leave_at_s)
        assert source.is_closed or source.made == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(scene())


def test_cancelling_twice_still_waits_for_the_source() -> None:
    async def scene() -> None:
        source = Source(5)

        async def read() -> None:
            async with prefetch(source.items(), 2) as items:
                async for _ in items:
                    await asyncio.sleep(100)

        reader = asyncio.create_task(read())
        await asyncio.sleep(1.5)
        reader.cancel()
        await asyncio.sleep(0.1)
        reader.cancel()
        with suppress(asyncio.CancelledError):
            await reader
        assert reader.cancelled()
        assert source.is_closed

    run(scene())
