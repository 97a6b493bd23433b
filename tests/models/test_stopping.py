from __future__ import annotations

import asyncio

from models.stopping import stopped
from tests.virtual_time import run


def test_stopped_returns_for_a_task_that_failed_while_ending() -> None:
    async def scene() -> None:
        async def stubborn() -> None:
            try:
                await asyncio.sleep(10)
            finally:
                raise ValueError

        task = asyncio.create_task(stubborn())
        await asyncio.sleep(0)
        await stopped(task)
        assert task.done()

    run(scene())
