from __future__ import annotations

import asyncio

import pytest

from edge.background import running
from models.errors import ConfigError
from tests.virtual_time import run


def test_the_work_ends_with_the_body() -> None:
    async def scenario() -> None:
        ended = asyncio.Event()

        async def work() -> None:
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        async with running(work(), "work"):
            await asyncio.sleep(1)
            assert not ended.is_set()
        assert ended.is_set()

    run(scenario())


def test_a_failure_of_the_work_ends_the_body_and_is_raised_as_it_is() -> None:
    async def scenario() -> None:
        async def work() -> None:
            raise ConfigError("broken")

        with pytest.raises(ConfigError, match="broken"):
            async with running(work(), "work"):
                await asyncio.Event().wait()

    run(scenario())


def test_a_failure_of_the_body_ends_the_work_and_is_raised_as_it_is() -> None:
    async def scenario() -> None:
        with pytest.raises(ConfigError, match="body"):
            async with running(asyncio.Event().wait(), "work"):  # type: ignore[arg-type]  # what it returns is not looked at
                raise ConfigError("body")

    run(scenario())
