"""Gathers work of many devices into one call of an engine: N items or T milliseconds, whichever comes first."""

from __future__ import annotations

import asyncio
from collections import deque
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
    result: asyncio.Future[Out]

    def fail(self, failure: BaseException) -> None:
        """Hand over ``failure`` unless nobody waits any more."""
        if not self.result.done():
            self.result.set_exception(failure)


class Batcher(Generic[In, Out]):
    """Runs ``call`` on up to ``max_items`` items at once in a thread of ``slots``, one batch at a time.

    An idle engine starts at once; what arrives while it works is the next batch. With ``wait_ms`` above 0 a batch that is not full is
    held back that long for more. ``call`` blocks and returns one result per item in order; what it raises, all waiters of the batch
    get. At most ``max_waiting`` items are in line; more are refused with ``refusal``. A task exists only while there is work.
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
    ) -> None:
        self._call = call
        self._slots = slots
        self._max_items = max_items
        self._wait_s = wait_ms / 1000
        self._max_waiting = max_waiting
        self._refusal = refusal
        self._line: deque[_Waiter[In, Out]] = deque()
        self._running: list[_Waiter[In, Out]] = []
        self._full = asyncio.Event()
        self._task: asyncio.Task[Sequence[Out]] | None = None
        self._closed = False

    async def submit(self, item: In) -> Out:
        """Return the result for ``item``; raise ``refusal`` at once when the line is full or closed, or what its batch raised.

        Cancelled in line, the item is dropped at once; cancelled while its batch runs, this waits for the thread, because a thread
        cannot be stopped. The other items notice neither.
        """
        if self._closed or len(self._line) >= self._max_waiting:
            why = "is closed" if self._closed else f"has {len(self._line)} items in line already"
            raise self._refusal(f"{self._slots.name}: the batcher {why}")
        waiter = _Waiter[In, Out](item, asyncio.get_running_loop().create_future())
        self._line.append(waiter)
        if len(self._line) >= self._max_items:
            self._full.set()
        self._begin()
        try:
            return await waiter.result
        except asyncio.CancelledError:
            await self._drop(waiter)
            raise

    async def close(self) -> None:
        """Refuse what is in line and what comes, and wait for the running batch."""
        self._closed = True
        for waiter in self._take(len(self._line)):
            waiter.fail(self._refusal(f"{self._slots.name}: the batcher was closed"))
        if self._task is not None:
            if not self._running:
                self._task.cancel()
            await asyncio.wait([self._task])

    def _begin(self) -> None:
        """Start the next batch unless one is at work or nobody waits."""
        if self._task is None and self._line:
            self._task = asyncio.create_task(self._one_batch(), name=f"batch-{self._slots.name}")
            self._task.add_done_callback(self._deliver)

    async def _one_batch(self) -> Sequence[Out]:
        if self._wait_s > 0:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._wait_s):
                    await self._full.wait()
        async with self._slots.hold():
            self._running = self._take(self._max_items)
            if not self._running:
                return ()
            results = await self._slots.run(self._call, [waiter.item for waiter in self._running])
        if len(results) != len(self._running):
            raise RuntimeError(f"{self._slots.name}: {len(results)} results for a batch of {len(self._running)}")
        return results

    def _deliver(self, task: asyncio.Task[Sequence[Out]]) -> None:
        """Hand the batch's results, or its failure, to those who still wait, and begin the next one."""
        batch, self._running, self._task = self._running, [], None
        if task.cancelled():
            for waiter in batch:
                waiter.result.cancel()
        elif (failure := task.exception()) is not None:
            # Refused before it took its items, the batch fails with those it would have taken.
            for waiter in batch or self._take(self._max_items):
                waiter.fail(failure)
        else:
            for waiter, value in zip(batch, task.result(), strict=True):
                if not waiter.result.done():
                    waiter.result.set_result(value)
        self._begin()

    def _take(self, most: int) -> list[_Waiter[In, Out]]:
        """Take up to ``most`` items out of the line."""
        taken = [self._line.popleft() for _ in range(min(len(self._line), most))]
        if len(self._line) < self._max_items:
            self._full.clear()
        return taken

    async def _drop(self, waiter: _Waiter[In, Out]) -> None:
        """Take a cancelled ``waiter`` out of the line, or wait until the batch it is in has ended."""
        task = self._task
        if waiter in self._line:
            self._line.remove(waiter)
            if task is not None and not self._line and not self._running:
                task.cancel()
                await _settled(task)
        elif task is not None and waiter in self._running:
            await _settled(task)


async def _settled(task: asyncio.Task[Sequence[Out]]) -> None:
    """Wait until ``task`` is done, whatever cancels meanwhile."""
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([task])
