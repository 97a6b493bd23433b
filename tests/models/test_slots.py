from __future__ import annotations

import asyncio
import threading

import pytest

from models.errors import RecognitionError
from models.slots import Slots
from tests.real_time import run


class Gate:
    """A blocking call that tells when it began and waits until it is let through."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.open = threading.Event()
        self.ended = False

    def __call__(self) -> str:
        self.began.set()
        assert self.open.wait(10)
        self.ended = True
        return "through"

    async def has_begun(self) -> None:
        await asyncio.to_thread(self.began.wait, 10)


async def held(slots: Slots, call) -> object:
    async with slots.hold():
        return await slots.run(call)


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_a_call_returns_its_result_from_a_thread_of_the_slot():
    async def check() -> None:
        slots = Slots("engine", 1)
        async with slots.hold():
            assert slots.busy == 1
            name = await slots.run(lambda: threading.current_thread().name)
        assert name.startswith("slot-engine")
        assert (slots.busy, slots.waiting) == (0, 0)
        slots.close()

    run(check())


def test_a_call_that_raises_frees_its_slot():
    async def check() -> None:
        slots = Slots("engine", 1)
        with pytest.raises(ZeroDivisionError):
            await held(slots, lambda: 1 // 0)
        assert await held(slots, lambda: 2) == 2
        slots.close()

    run(check())


def test_cancelling_while_the_thread_runs_waits_for_the_thread_and_frees_the_slot():
    async def check() -> None:
        slots, gate = Slots("engine", 1), Gate()
        task = asyncio.create_task(held(slots, gate))
        await gate.has_begun()
        task.cancel()
        await settle()
        task.cancel()
        await settle()
        assert not task.done()
        assert slots.busy == 1
        gate.open.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert gate.ended
        assert slots.busy == 0
        slots.close()

    run(check())


def test_a_thread_that_fails_after_its_caller_was_cancelled_is_not_heard_of():
    async def check() -> None:
        slots, gate = Slots("engine", 1), Gate()
        task = asyncio.create_task(held(slots, lambda: gate() and 1 // 0))
        await gate.has_begun()
        task.cancel()
        await settle()
        gate.open.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        slots.close()

    run(check())


def test_cancelling_in_line_leaves_the_line_to_the_others():
    async def check() -> None:
        slots, gate = Slots("engine", 1), Gate()
        first = asyncio.create_task(held(slots, gate))
        await gate.has_begun()
        second = asyncio.create_task(held(slots, lambda: "second"))
        third = asyncio.create_task(held(slots, lambda: "third"))
        await settle()
        assert slots.waiting == 2
        second.cancel()
        await settle()
        assert second.cancelled()
        assert slots.waiting == 1
        gate.open.set()
        assert (await first, await third) == ("through", "third")
        slots.close()

    run(check())


def test_a_full_line_refuses_at_once_with_the_given_error():
    async def check() -> None:
        slots, gate = Slots("engine", 1, max_waiting=1, refusal=RecognitionError), Gate()
        first = asyncio.create_task(held(slots, gate))
        await gate.has_begun()
        second = asyncio.create_task(held(slots, lambda: "second"))
        await settle()
        with pytest.raises(RecognitionError, match="engine"):
            await held(slots, lambda: "third")
        gate.open.set()
        assert (await first, await second) == ("through", "second")
        slots.close()

    run(check())


def test_waiting_is_first_come_first_served():
    async def check() -> None:
        slots, gate, order = Slots("engine", 1), Gate(), []
        first = asyncio.create_task(held(slots, gate))
        await gate.has_begun()
        later = []
        for number in range(5):
            later.append(asyncio.create_task(held(slots, lambda number=number: order.append(number))))
            await settle()
        gate.open.set()
        await asyncio.gather(first, *later)
        assert order == [0, 1, 2, 3, 4]
        slots.close()

    run(check())


def test_no_more_calls_run_at_once_than_there_are_slots():
    async def check() -> None:
        slots = Slots("engine", 2)
        running, most, lock = 0, 0, threading.Lock()

        def call() -> None:
            nonlocal running, most
            with lock:
                running += 1
                most = max(most, running)
            with lock:
                running -= 1

        await asyncio.gather(*(held(slots, call) for _ in range(20)))
        assert 1 <= most <= 2
        slots.close()

    run(check())


def test_each_wait_is_observed():
    async def check() -> None:
        waits: list[float] = []
        slots = Slots("engine", 1, observe_wait=waits.append)
        await asyncio.gather(held(slots, lambda: 1), held(slots, lambda: 2))
        assert len(waits) == 2
        assert min(waits) >= 0
        slots.close()

    run(check())


def test_an_observer_that_raises_does_not_cost_the_slot():
    async def check() -> None:
        def observe(_seconds: float) -> None:
            raise LookupError

        slots = Slots("engine", 1, observe_wait=observe)
        for _ in range(2):
            with pytest.raises(LookupError):
                await held(slots, lambda: 1)
        assert slots.busy == 0
        slots.close()

    run(check())


def test_closed_slots_refuse_and_let_the_running_call_end():
    async def check() -> None:
        slots, gate = Slots("engine", 1, refusal=RecognitionError), Gate()
        first = asyncio.create_task(held(slots, gate))
        await gate.has_begun()
        second = asyncio.create_task(held(slots, lambda: "second"))
        await settle()
        slots.close()
        with pytest.raises(RecognitionError, match="closed"):
            await held(slots, lambda: "third")
        gate.open.set()
        assert await first == "through"
        with pytest.raises(RecognitionError, match="closed"):
            await second

    run(check())
