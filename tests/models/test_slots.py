from __future__ import annotations

import asyncio
import random
import threading

import pytest

from models.errors import DeadlineError, OverloadedError, RecognitionError
from models.limits import FixedLimit
from models.slots import Priority, Slots
from tests import virtual_time
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


class Order:
    """Calls that wait for one slot held by nobody's call, and the order in which they got it."""

    def __init__(self, slots: Slots) -> None:
        self.slots = slots
        self.served: list[str] = []
        self.tasks: dict[str, asyncio.Task[None]] = {}
        self.go = asyncio.Event()

    async def ask(self, *names: str, priority: Priority = Priority.LIVE) -> None:
        """Have calls wait: the letters of a name are its owner, "-" for nobody's."""
        for name in names:
            owner = name.rstrip("0123456789").strip("-")
            self.tasks[name] = asyncio.create_task(self._call(name, owner, priority))
            await settle()

    async def end(self) -> None:
        self.go.set()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        assert (self.slots.busy, self.slots.waiting) == (0, 0)
        self.slots.close()

    async def _call(self, name: str, owner: str, priority: Priority) -> None:
        async with self.slots.hold(owner=owner, priority=priority):
            self.served.append(name)
            await self.go.wait()


@pytest.mark.parametrize(
    ("asked", "served"),
    [
        (["-", "a1", "b1", "c1"], ["-", "a1", "b1", "c1"]),
        (["-", "a1", "a2", "a3", "b1", "c1"], ["-", "a1", "b1", "c1", "a2", "a3"]),
        (["-", "a1", "a2", "b1", "b2", "c1"], ["-", "a1", "b1", "c1", "a2", "b2"]),
        (["-", "-1", "-2", "a1", "a2", "-3"], ["-", "-1", "-2", "a1", "-3", "a2"]),
        (["a1", "a2", "a3", "b1"], ["a1", "a2", "b1", "a3"]),
    ],
)
def test_device_that_asks_for_much_waits_behind_those_that_ask_for_little(asked: list[str], served: list[str]) -> None:
    async def check() -> None:
        order = Order(Slots("engine", 1))
        await order.ask(*asked)
        await order.end()
        assert order.served == served

    run(check())


def test_flooding_device_is_served_too_while_newcomers_keep_coming() -> None:
    async def check() -> None:
        order = Order(Slots("engine", 1))
        await order.ask("-", "a1", "a2", "b1")
        order.go.set()
        for number in range(10):
            await order.ask(f"c{number}")
        await order.end()
        assert order.served.index("a2") < order.served.index("c9")

    run(check())


def test_device_has_only_so_many_places_in_line() -> None:
    async def check() -> None:
        order = Order(Slots("engine", 1, max_per_owner=2, refusal=RecognitionError))
        await order.ask("-", "a1", "a2", "a3", "b1")
        assert isinstance(order.tasks["a3"].exception(), RecognitionError)
        await order.end()
        assert order.served == ["-", "a1", "b1", "a2"]

    run(check())


def test_live_work_goes_before_background_work_and_the_oldest_first_within_both() -> None:
    async def check() -> None:
        order = Order(Slots("engine", 1))
        await order.ask("-")
        await order.ask("a1", "b1", priority=Priority.BACKGROUND)
        await order.ask("c1", "d1")
        await order.end()
        assert order.served == ["-", "c1", "d1", "a1", "b1"]

    run(check())


def test_live_work_takes_the_place_of_the_newest_background_work_in_a_full_line() -> None:
    async def check() -> None:
        order = Order(Slots("engine", 1, max_waiting=2, refusal=RecognitionError))
        await order.ask("-")
        await order.ask("a1", "b1", "c1", priority=Priority.BACKGROUND)
        assert order.slots.is_overloaded
        assert isinstance(order.tasks["c1"].exception(), RecognitionError)
        await order.ask("d1")
        assert isinstance(order.tasks["b1"].exception(), RecognitionError)
        await order.ask("e1", "f1")
        assert isinstance(order.tasks["f1"].exception(), RecognitionError)
        await order.end()
        assert order.served == ["-", "d1", "e1"]

    run(check())


def test_call_cancelled_in_the_moment_it_gets_its_slot_hands_it_on() -> None:
    async def check() -> None:
        order = Order(Slots("engine", 1))
        async with order.slots.hold():
            await order.ask("a1", "b1")
        assert order.slots.waiting == 1
        order.tasks["a1"].cancel()
        await order.end()
        assert order.served == ["b1"]

    run(check())


def test_calls_cancelled_at_random_leave_every_slot_free() -> None:
    async def check() -> None:
        slots, dice = Slots("engine", 3, max_waiting=10), random.Random(4)

        async def call(number: int) -> None:
            priority = dice.choice(list(Priority))
            async with slots.hold(owner=f"d{number % 5}", priority=priority):
                for _ in range(dice.randrange(6)):
                    await asyncio.sleep(0)
                assert 1 <= slots.busy <= 3

        tasks = []
        for number in range(2000):
            tasks.append(asyncio.create_task(call(number)))
            if dice.random() < 0.6:
                dice.choice(tasks[-10:]).cancel()
            if dice.random() < 0.5:
                await asyncio.sleep(0)
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(one) for one in ended} == {type(None), asyncio.CancelledError, OverloadedError}
        assert (slots.busy, slots.waiting) == (0, 0)
        assert not slots.is_overloaded
        slots.close()

    run(check())


def test_over_the_limit_a_call_is_refused_although_the_line_has_room() -> None:
    async def check() -> None:
        order = Order(Slots("engine", 1, limit=FixedLimit(2), refusal=RecognitionError))
        await order.ask("-", "a1")
        assert order.slots.is_overloaded
        await order.ask("b1")
        assert isinstance(order.tasks["b1"].exception(), RecognitionError)
        await order.end()
        assert order.served == ["-", "a1"]
        assert not order.slots.is_overloaded

    run(check())


class Notes:
    limit = 100

    def __init__(self) -> None:
        self.seen: list[tuple[float, int, bool]] = []

    def observe(self, seconds: float, inflight: int, *, dropped: bool = False) -> None:
        self.seen.append((seconds, inflight, dropped))


def test_limit_learns_wait_and_work_together_and_nothing_of_what_was_cancelled() -> None:
    async def check() -> None:
        notes = Notes()
        slots = Slots("engine", 1, limit=notes, now=asyncio.get_running_loop().time)

        async def work(seconds: float, error: type[Exception] | None = None) -> None:
            async with slots.hold():
                await asyncio.sleep(seconds)
                if error:
                    raise error("late")

        tasks = [asyncio.create_task(work(seconds)) for seconds in (1, 2, 3)]
        await asyncio.sleep(0.5)
        tasks[2].cancel()
        await asyncio.wait(tasks)
        with pytest.raises(DeadlineError):
            await work(4, DeadlineError)
        assert [(round(s, 3), n, dropped) for s, n, dropped in notes.seen] == [
            (1.0, 1, False),
            (3.0, 2, False),
            (4.0, 1, True),
        ]
        slots.close()

    virtual_time.run(check())
