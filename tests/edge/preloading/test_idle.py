from __future__ import annotations

import asyncio

import pytest

from edge.preloading.idle import IdleTime
from models.errors import SynthesisError
from tests.virtual_time import run


class Engines:
    def __init__(self) -> None:
        self.busy = False

    def idle(self, calm_s: float = 5.0) -> IdleTime:
        return IdleTime(is_busy=lambda: self.busy, calm_s=calm_s)


def test_idle_time_begins_when_nobody_was_busy_for_the_whole_calm() -> None:
    async def scenario() -> None:
        engines, loop = Engines(), asyncio.get_running_loop()
        loop.call_later(3.0, setattr, engines, "busy", True)
        loop.call_later(4.0, setattr, engines, "busy", False)
        await engines.idle().come()
        assert 8.0 <= loop.time() <= 9.5

    run(scenario())


def test_work_that_nobody_disturbs_comes_to_its_end() -> None:
    async def work() -> str:
        await asyncio.sleep(7)
        return "made"

    async def scenario() -> None:
        assert await Engines().idle().use(work()) == "made"

    run(scenario())


def test_work_stops_when_somebody_comes_and_nothing_of_it_runs() -> None:
    ended: list[float] = []

    async def scenario() -> None:
        loop, engines = asyncio.get_running_loop(), Engines()

        async def work() -> None:
            try:
                await asyncio.sleep(100)
            finally:
                await asyncio.sleep(0.5)
                ended.append(loop.time())

        loop.call_later(2.0, setattr, engines, "busy", True)
        assert await engines.idle().use(work()) is None
        assert len(ended) == 1
        assert ended[0] == loop.time() < 3

    run(scenario())


def test_what_the_work_raises_is_raised() -> None:
    async def work() -> None:
        await asyncio.sleep(1)
        raise SynthesisError("no voice")

    async def scenario() -> None:
        with pytest.raises(SynthesisError):
            await Engines().idle().use(work())

    run(scenario())


def test_cancelling_stops_the_work() -> None:
    ended: list[bool] = []

    async def work() -> None:
        try:
            await asyncio.sleep(100)
        finally:
            ended.append(True)

    async def scenario() -> None:
        task = asyncio.create_task(Engines().idle().use(work()))
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait([task])
        assert ended == [True]

    run(scenario())
