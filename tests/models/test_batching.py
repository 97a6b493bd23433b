from __future__ import annotations

import asyncio
import threading

import pytest

from models.batching import Batcher
from models.errors import RecognitionError, StageError
from models.slots import Slots
from tests.real_time import run


class Engine:
    """Doubles numbers; keeps the batches it got; while ``shut`` it stands still inside a call."""

    def __init__(self, *, shut: bool = False, bad: int = -1, short: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.began = threading.Event()
        self.open = threading.Event()
        self._bad = bad
        self._short = short
        if not shut:
            self.open.set()

    def __call__(self, items: list[int]) -> list[int]:
        self.batches.append(items)
        self.began.set()
        assert self.open.wait(10)
        if self._bad in items:
            raise RecognitionError("planned")
        return [2 * item for item in items][: -1 if self._short else None]

    async def has_begun(self) -> None:
        await asyncio.to_thread(self.began.wait, 10)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def start(batcher: Batcher[int, int], *items: int) -> list[asyncio.Task[int]]:
    return [asyncio.create_task(batcher.submit(item)) for item in items]


def check(scenario, engine: Engine, count: int = 1, **options) -> None:
    """Run ``scenario(batcher)`` over ``count`` slots and close; the runner fails on a task left behind."""

    async def work() -> None:
        slots = Slots("engine", count)
        batcher = Batcher[int, int](engine, slots, **options)
        await scenario(batcher)
        await batcher.close()
        slots.close()

    run(work())


def test_an_idle_engine_takes_a_single_item_at_once():
    engine = Engine()

    async def scenario(batcher: Batcher[int, int]) -> None:
        assert await batcher.submit(1) == 2

    check(scenario, engine)
    assert engine.batches == [[1]]


def test_what_arrives_while_the_engine_works_is_the_next_batch():
    engine = Engine(shut=True)

    async def scenario(batcher: Batcher[int, int]) -> None:
        first = start(batcher, 1)
        await engine.has_begun()
        rest = start(batcher, 2, 3, 4)
        await settle()
        engine.open.set()
        assert await asyncio.gather(*first, *rest) == [2, 4, 6, 8]

    check(scenario, engine)
    assert engine.batches == [[1], [2, 3, 4]]


def test_a_batch_is_never_larger_than_allowed():
    engine = Engine()

    async def scenario(batcher: Batcher[int, int]) -> None:
        assert await asyncio.gather(*start(batcher, *range(7))) == [0, 2, 4, 6, 8, 10, 12]

    check(scenario, engine, max_items=3)
    assert engine.batches == [[0, 1, 2], [3, 4, 5], [6]]


def test_a_full_batch_does_not_wait_for_the_time_to_pass():
    engine = Engine()

    async def scenario(batcher: Batcher[int, int]) -> None:
        assert await asyncio.gather(*start(batcher, 1, 2)) == [2, 4]

    check(scenario, engine, max_items=2, wait_ms=3_600_000)
    assert engine.batches == [[1, 2]]


def test_a_batch_that_is_not_full_starts_when_the_time_has_passed():
    engine = Engine()

    async def scenario(batcher: Batcher[int, int]) -> None:
        assert await batcher.submit(1) == 2

    check(scenario, engine, max_items=2, wait_ms=1)


def test_a_bad_batch_fails_its_own_waiters_only():
    engine = Engine(shut=True, bad=2)

    async def scenario(batcher: Batcher[int, int]) -> None:
        first = start(batcher, 1)
        await engine.has_begun()
        rest = start(batcher, 2, 3, 4)
        await settle()
        engine.open.set()
        results = await asyncio.gather(*first, *rest, return_exceptions=True)
        assert [type(result) for result in results] == [int, RecognitionError, RecognitionError, int]

    check(scenario, engine, max_items=2)


def test_an_engine_that_loses_a_result_fails_all_rather_than_mixing_them_up():
    async def scenario(batcher: Batcher[int, int]) -> None:
        results = await asyncio.gather(*start(batcher, 1, 2), return_exceptions=True)
        assert [type(result) for result in results] == [RuntimeError, RuntimeError]

    check(scenario, Engine(short=True))


def test_an_item_cancelled_in_line_never_reaches_the_engine():
    engine = Engine(shut=True)

    async def scenario(batcher: Batcher[int, int]) -> None:
        first = start(batcher, 1)
        await engine.has_begun()
        second, third = start(batcher, 2, 3)
        await settle()
        second.cancel()
        await settle()
        assert second.cancelled()
        engine.open.set()
        assert await asyncio.gather(*first, third) == [2, 6]

    check(scenario, engine)
    assert engine.batches == [[1], [3]]


def test_an_item_cancelled_in_a_running_batch_ends_with_it_and_harms_nobody():
    engine = Engine(shut=True)

    async def scenario(batcher: Batcher[int, int]) -> None:
        first, second = start(batcher, 1, 2)
        await engine.has_begun()
        first.cancel()
        await settle()
        assert not first.done()
        engine.open.set()
        assert await second == 4
        with pytest.raises(asyncio.CancelledError):
            await first
        assert await batcher.submit(3) == 6

    check(scenario, engine)
    assert engine.batches == [[1, 2], [3]]


def test_cancelling_the_only_item_that_gathers_leaves_nothing_behind():
    engine = Engine()

    async def scenario(batcher: Batcher[int, int]) -> None:
        [only] = start(batcher, 1)
        await settle()
        only.cancel()
        with pytest.raises(asyncio.CancelledError):
            await only
        assert len(asyncio.all_tasks()) == 1

    check(scenario, engine, wait_ms=3_600_000)
    assert engine.batches == []


def test_an_item_that_comes_while_the_last_one_is_dropped_is_served():
    engine = Engine()

    async def scenario(batcher: Batcher[int, int]) -> None:
        [only] = start(batcher, 1)
        await settle()
        only.cancel()
        [late] = start(batcher, 2)
        assert await late == 4
        assert only.cancelled()

    check(scenario, engine, wait_ms=1)
    assert engine.batches == [[2]]


def test_a_full_line_refuses_with_the_given_error():
    engine = Engine(shut=True)

    async def scenario(batcher: Batcher[int, int]) -> None:
        first = start(batcher, 1)
        await engine.has_begun()
        rest = start(batcher, 2, 3)
        await settle()
        with pytest.raises(StageError, match="2 items"):
            await batcher.submit(4)
        engine.open.set()
        assert await asyncio.gather(*first, *rest) == [2, 4, 6]

    check(scenario, engine, max_waiting=2, refusal=StageError)


def test_a_batch_that_gets_no_slot_fails_its_waiters():
    async def scenario(batcher: Batcher[int, int]) -> None:
        batcher._slots.close()
        results = await asyncio.gather(*start(batcher, 1, 2), return_exceptions=True)
        assert [str(result) for result in results] == ["engine: its slots are closed"] * 2

    check(scenario, Engine())


def test_closing_refuses_the_line_and_waits_for_the_running_batch():
    engine = Engine(shut=True)

    async def scenario(batcher: Batcher[int, int]) -> None:
        [first] = start(batcher, 1)
        await engine.has_begun()
        [second] = start(batcher, 2)
        await settle()
        closing = asyncio.create_task(batcher.close())
        await settle()
        assert not closing.done()
        engine.open.set()
        await closing
        assert await first == 2
        for refused in (second, *start(batcher, 3)):
            with pytest.raises(StageError, match="closed"):
                await refused

    check(scenario, engine, refusal=StageError)


def test_closing_while_a_batch_gathers_ends_it():
    async def scenario(batcher: Batcher[int, int]) -> None:
        [only] = start(batcher, 1)
        await settle()
        await batcher.close()
        with pytest.raises(StageError, match="closed"):
            await only

    check(scenario, Engine(), wait_ms=3_600_000, refusal=StageError)


def test_the_urgent_goes_before_what_came_earlier_and_the_old_before_the_new():
    engine = Engine(shut=True)

    async def scenario(batcher: Batcher[int, int]) -> None:
        first = start(batcher, 1)
        await engine.has_begun()
        rest = [
            asyncio.create_task(batcher.submit(item, priority)) for item, priority in ((2, 1), (3, 0), (4, 1), (5, 0))
        ]
        await settle()
        assert batcher.waiting == 4
        engine.open.set()
        assert await asyncio.gather(*first, *rest) == [2, 4, 6, 8, 10]
        assert batcher.waiting == 0

    check(scenario, engine, max_items=2)
    assert engine.batches == [[1], [3, 5], [2, 4]]


def test_a_full_line_lets_the_urgent_push_out_the_newest_of_the_others():
    engine = Engine(shut=True)

    async def scenario(batcher: Batcher[int, int]) -> None:
        first = start(batcher, 1)
        await engine.has_begun()
        old, new = (asyncio.create_task(batcher.submit(item, 1)) for item in (2, 3))
        await settle()
        with pytest.raises(StageError, match="2 items"):
            await batcher.submit(4, 1)
        urgent = start(batcher, 5)
        with pytest.raises(StageError, match="urgent"):
            await new
        more = start(batcher, 6)
        with pytest.raises(StageError, match="urgent"):
            await old
        with pytest.raises(StageError, match="2 items"):
            await batcher.submit(7)
        engine.open.set()
        assert await asyncio.gather(*first, *urgent, *more) == [2, 10, 12]

    check(scenario, engine, max_waiting=2, refusal=StageError)
    assert engine.batches == [[1], [5, 6]]


def test_a_batch_holds_only_what_goes_together_and_the_first_in_line_never_waits_for_it():
    engine = Engine(shut=True)

    async def scenario(batcher: Batcher[int, int]) -> None:
        first = start(batcher, 1)
        await engine.has_begun()
        rest = start(batcher, 20, 3, 22, 5, 24)
        await settle()
        engine.open.set()
        assert await asyncio.gather(*first, *rest) == [2, 40, 6, 44, 10, 48]

    check(scenario, engine, max_items=2, admit=lambda taken, item: (max(taken) < 10) == (item < 10))
    assert engine.batches == [[1], [20, 22], [3, 5], [24]]


def test_every_slot_has_a_batch_of_its_own():
    engine = Engine(shut=True)

    async def scenario(batcher: Batcher[int, int]) -> None:
        tasks = start(batcher, 1, 2, 3, 4, 5)
        while len(engine.batches) < 2:
            await engine.has_begun()
            await settle()
        assert batcher.waiting == 1
        tasks[2].cancel()
        await settle()
        assert not tasks[2].done()
        engine.open.set()
        await asyncio.wait(tasks)
        assert tasks[2].cancelled()
        assert [task.result() for task in tasks if not task.cancelled()] == [2, 4, 8, 10]

    check(scenario, engine, count=2, max_items=2)
    assert sorted(engine.batches) == [[1, 2], [3, 4], [5]]


def test_closing_waits_for_the_batches_of_all_slots():
    engine = Engine(shut=True)

    async def scenario(batcher: Batcher[int, int]) -> None:
        tasks = start(batcher, 1, 2)
        while len(engine.batches) < 2:
            await engine.has_begun()
            await settle()
        closing = asyncio.create_task(batcher.close())
        await settle()
        assert not closing.done()
        engine.open.set()
        await closing
        assert await asyncio.gather(*tasks) == [2, 4]

    check(scenario, engine, count=2, max_items=1)
