from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.cache.flight import Flights
from models.errors import CompletionError
from tests.virtual_time import run


class Source:
    def __init__(self, count: int = 4, *, fails: Callable[[], BaseException] | None = None) -> None:
        self.begun, self.is_closed = 0, 0
        self._count, self._fails = count, fails

    async def pieces(self) -> AsyncGenerator[int, None]:
        self.begun += 1
        try:
            for number in range(self._count):
                await asyncio.sleep(1)
                yield number
            if self._fails:
                raise self._fails()
        finally:
            try:
                await asyncio.sleep(0.5)
            finally:
                self.is_closed += 1


async def heard(flights: Flights[str, int], source: Source, key: str = "k") -> list[int]:
    async with aclosing(flights.join(key, source.pieces)) as pieces:
        return [piece async for piece in pieces]


def test_all_who_want_the_same_hear_it_from_the_beginning_and_it_is_made_once() -> None:
    async def scenario() -> None:
        flights, source = Flights[str, int](), Source()

        async def late(after_s: float) -> tuple[list[int], float]:
            await asyncio.sleep(after_s)
            return await heard(flights, source), asyncio.get_running_loop().time()

        for pieces, at_s in await asyncio.gather(*(late(number / 50) for number in range(150))):
            assert pieces == [0, 1, 2, 3]
            assert at_s <= 5
        assert (source.begun, source.is_closed, len(flights)) == (1, 1, 0)

    run(scenario())


def test_the_first_may_leave_and_the_others_hear_all() -> None:
    async def scenario() -> None:
        flights, source = Flights[str, int](), Source()
        first, second = (asyncio.create_task(heard(flights, source)) for _ in range(2))
        await asyncio.sleep(1.5)
        first.cancel()
        assert await second == [0, 1, 2, 3]
        assert source.is_closed == 1

    run(scenario())


def test_it_ends_when_the_last_one_leaves_before_that_one_has_left() -> None:
    async def scenario() -> None:
        flights, source = Flights[str, int](), Source()
        tasks = [asyncio.create_task(heard(flights, source)) for _ in range(3)]
        await asyncio.sleep(1.5)
        for task in tasks:
            assert source.is_closed == 0
            task.cancel()
            await asyncio.wait([task])
        assert source.is_closed == 1
        assert len(flights) == 0
        assert await heard(flights, source) == [0, 1, 2, 3]

    run(scenario())


@pytest.mark.parametrize(
    ("fails", "raised"),
    [
        (lambda: CompletionError("no"), CompletionError),
        (lambda: OSError("no"), RuntimeError),
        (asyncio.CancelledError, RuntimeError),
    ],
)
def test_a_failure_reaches_everybody_after_what_came_before(
    fails: Callable[[], BaseException], raised: type[Exception]
) -> None:
    async def scenario() -> None:
        flights, source = Flights[str, int](), Source(2, fails=fails)

        async def listen() -> tuple[list[int], Exception | None]:
            got: list[int] = []
            try:
                async with aclosing(flights.join("k", source.pieces)) as pieces:
                    async for piece in pieces:
                        got.append(piece)  # noqa: PERF401 - what came before the error counts
            except raised as error:
                return got, error
            return got, None

        results = await asyncio.gather(*(listen() for _ in range(3)))
        assert [got for got, _ in results] == [[0, 1]] * 3
        errors = [error for _, error in results]
        assert None not in errors
        assert len(set(map(id, errors))) == 3

    run(scenario())


def test_closing_ends_all_with_an_error() -> None:
    async def scenario() -> None:
        flights, source = Flights[str, int](), Source()
        listening = asyncio.create_task(heard(flights, source))
        await asyncio.sleep(1.5)
        await flights.close(CompletionError("closed"))
        assert source.is_closed == 1
        with pytest.raises(CompletionError, match="closed"):
            await listening

    run(scenario())


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.tuples(st.integers(0, 50), st.integers(0, 60)), max_size=12))
def test_random_joins_and_leaves_leave_nothing(seed: int, listeners: list[tuple[int, int]]) -> None:
    async def scenario() -> None:
        dice, flights = random.Random(seed), Flights[str, int]()
        sources = [Source(dice.randrange(4)) for _ in range(2)]

        async def listen(after: int, stay: int) -> None:
            which = dice.randrange(2)
            await asyncio.sleep(after / 10)
            try:
                async with asyncio.timeout(stay / 10):
                    assert await heard(flights, sources[which], str(which)) == list(range(sources[which]._count))
            except TimeoutError:
                pass

        await asyncio.gather(*(listen(*listener) for listener in listeners))
        assert len(flights) == 0
        assert all(source.begun == source.is_closed for source in sources)

    run(scenario())
