"""Gathers work of many devices into one call of an engine: N items or T milliseconds, whichever comes first."""

from __future__ import annotations

import asyncio
from bisect import insort
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Generic, TypeVar

from models.errors import OverloadedError, VoiceError
from models.slots import Slots

In = TypeVar("In")
Out = TypeVar("Out")


@dataclass(eq=False, slots=True)
class _Waiter(Generic[In, Out]):
    """An item in line and the place its result goes to."""

    item: In
    priority: int
    result: asyncio.Future[Out]

    def fail(self, failure: BaseException) -> None:
        """Hand over ``failure`` unless nobody waits any more."""
        if not self.result.done():
            self.result.set_exception(failure)


class Batcher(Generic[In, Out]):
    """Runs ``call`` on up to ``max_items`` items at once in a thread of ``slots``, as many batches at a time as there are slots.

    An idle engine starts at once; what arrives while it works is the next batch: lower priorities first, within one the oldest. With
    ``wait_ms`` above 0 a batch that is not full is held back that long for more. ``call`` blocks and returns one result per item in
    order; what it raises, all waiters of the batch get. At most ``max_waiting`` items are in line; then the newest of the highest
    priority is refused with ``refusal``. The first in line is always taken; of the others all, or those that ``admit`` says yes to,
    given the items taken so far: so that short work need not wait for long work beside it. A task exists only while there is work.
    """

    def __init__(
        self,
        call: Callable[[list[In]], Sequence[Out]],
        slots: Slots,
        *,
        max_items: int = 32,
        wait_ms: float = 0.0,
        max_waiting: int = 1024,
        refusal: type[VoiceError] = OverloadedError,
        admit: Callable[[Sequence[In], In], bool] | None = None,
    ) -> None:
        self._call = call
        self._slots = slots
        self._max_items = max_items
        self._wait_s = wait_ms / 1000
        self._max_waiting = max_waiting
        self._refusal = refusal
        self._admit = admit
        self._line: list[_Waiter[In, Out]] = []
        self._running: dict[asyncio.Task[Sequence[Out]], list[_Waiter[In, Out]]] = {}
        self._gathering: asyncio.Task[Sequence[Out]] | None = None
        self._full = asyncio.Event()
        self._closed = False

    @property
    def waiting(self) -> int:
        """Items in line now, without the running batches."""
        return len(self._line)

    async def submit(self, item: In, priority: int = 0) -> Out:
        """Return the result for ``item``; raise ``refusal`` when the line is closed or full, or what its batch raised.

        A full line refuses at once, unless somebody of a higher number waits: then that one is refused. Cancelled in line, the item is
        dropped at once; cancelled while its batch runs, this waits for the thread, because a thread cannot be stopped. The other items
        notice neither.
        """
        self._make_room(priority)
        # Not _Waiter[In, Out](...): that is 1.6 us more, 2,500 times a second at 150 devices.
        waiter: _Waiter[In, Out] = _Waiter(item, priority, asyncio.get_running_loop().create_future())
        line = self._line
        if not line or line[-1].priority <= priority:
            line.append(waiter)
        else:
            insort(line, waiter, key=lambda other: other.priority)
        if len(line) >= self._max_items:
            self._full.set()
        self._begin()
        try:
            return await waiter.result
        except asyncio.CancelledError:
            await self._drop(waiter)
            raise

    async def close(self) -> None:
        """Refuse what is in line and what comes, and wait for the running batches."""
        self._closed = True
        line, self._line = self._line, []
        for waiter in line:
            waiter.fail(self._refusal(f"{self._slots.name}: the batcher was closed"))
        tasks = list(self._running)
        if self._gathering is not None:
            self._gathering.cancel()
            tasks.append(self._gathering)
        if tasks:
            await asyncio.wait(tasks)

    def _make_room(self, priority: int) -> None:
        """Leave a place in line for ``priority``, if need be that of the last one behind it; else raise ``refusal``."""
        if self._closed:
            raise self._refusal(f"{self._slots.name}: the batcher is closed")
        if len(self._line) < self._max_waiting:
            return
        if not self._line or self._line[-1].priority <= priority:
            raise self._refusal(f"{self._slots.name}: the batcher has {len(self._line)} items in line already")
        self._line.pop().fail(self._refusal(f"{self._slots.name}: something more urgent needs the place in line"))

    def _begin(self) -> None:
        """Start the next batch unless one gathers already, every slot has one, or nobody waits."""
        if self._gathering is None and self._line and len(self._running) < self._slots.count:
            self._gathering = asyncio.create_task(self._one_batch(), name=f"batch-{self._slots.name}")
            self._gathering.add_done_callback(self._deliver)

    async def _one_batch(self) -> Sequence[Out]:
        if self._wait_s > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._wait_s):
                    await self._full.wait()
        async with self._slots.hold():
            own, self._gathering = self._gathering, None
            if own is None or not (batch := self._take()):
                return ()
            self._running[own] = batch
            self._begin()
            results = await self._slots.run(self._call, [waiter.item for waiter in batch])
        if len(results) != len(batch):
            raise RuntimeError(f"{self._slots.name}: {len(results)} results for a batch of {len(batch)}")
        return results

    def _deliver(self, task: asyncio.Task[Sequence[Out]]) -> None:
        """Hand the batch's results, or its failure, to those who still wait, and begin the next one."""
        batch = self._running.pop(task, [])
        if task is self._gathering:
            self._gathering = None
        if task.cancelled():
            for waiter in batch:
                waiter.result.cancel()
        elif (failure := task.exception()) is not None:
            # Refused before it took its items, the batch fails with those it would have taken.
            for waiter in batch or self._take():
                waiter.fail(failure)
        else:
            for waiter, value in zip(batch, task.result(), strict=True):
                if not waiter.result.done():
                    waiter.result.set_result(value)
        self._begin()

    def _take(self) -> list[_Waiter[In, Out]]:
        """Take the next batch out of the line."""
        if self._admit is None:
            taken, left = self._line[: self._max_items], self._line[self._max_items :]
        else:
            taken, left = _parted(self._line, self._max_items, self._admit)
        self._line = left
        if len(left) < self._max_items:
            self._full.clear()
        return taken

    async def _drop(self, waiter: _Waiter[In, Out]) -> None:
        """Take a cancelled ``waiter`` out of the line, or wait until the batch it is in has ended."""
        if waiter in self._line:
            self._line.remove(waiter)
            if self._gathering is not None and not self._line:
                self._gathering.cancel()
                await _settled(self._gathering)
            return
        for task, batch in self._running.items():
            if waiter in batch:
                await _settled(task)
                return


def _parted(
    line: Sequence[_Waiter[In, Out]], most: int, admit: Callable[[Sequence[In], In], bool]
) -> tuple[list[_Waiter[In, Out]], list[_Waiter[In, Out]]]:
    """Return the first in line with up to ``most`` in all whom ``admit`` lets be beside it, and the others, both in order."""
    taken, left = list[_Waiter[In, Out]](), list[_Waiter[In, Out]]()
    for waiter in line:
        is_wanted = not taken or (len(taken) < most and admit([one.item for one in taken], waiter.item))
        (taken if is_wanted else left).append(waiter)
    return taken, left


async def _settled(task: asyncio.Task[Sequence[Out]]) -> None:
    """Wait until ``task`` is done, whatever cancels meanwhile."""
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([task])
