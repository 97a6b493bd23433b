"""Bounded slots for engines that block: a call takes a slot and a thread, and gives both back even when cancelled."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from typing import ParamSpec, TypeVar

from models.errors import OverloadedError, VoiceError

P = ParamSpec("P")
T = TypeVar("T")


class Slots:
    """At most ``count`` blocking calls at once, at most ``max_waiting`` in line; more are refused with ``refusal``.

    Waiting is first come, first served. ``observe_wait`` gets each wait in seconds.
    """

    def __init__(
        self,
        name: str,
        count: int,
        *,
        max_waiting: int = 64,
        refusal: type[VoiceError] = OverloadedError,
        observe_wait: Callable[[float], None] = lambda _seconds: None,
    ) -> None:
        self.name = name
        self.count = count
        self.max_waiting = max_waiting
        self._refusal = refusal
        self._free = asyncio.Semaphore(count)
        self._observe_wait = observe_wait
        self._threads = ThreadPoolExecutor(count, thread_name_prefix=f"slot-{name}")
        self._closed = False
        self.waiting = 0
        """Calls in line now."""
        self.busy = 0
        """Slots in use now."""

    @asynccontextmanager
    async def hold(self) -> AsyncGenerator[None, None]:
        """Hold one slot; raise ``refusal`` at once when the line is full or the slots are closed."""
        self._refuse_if_closed()
        if self._free.locked() and self.waiting >= self.max_waiting:
            raise self._refusal(f"{self.name}: {self.waiting} calls already wait for {self.count} slots")
        began = time.monotonic()
        self.waiting += 1
        try:
            await self._free.acquire()
        finally:
            self.waiting -= 1
        self.busy += 1
        try:
            self._observe_wait(time.monotonic() - began)
            yield
        finally:
            self.busy -= 1
            self._free.release()

    async def run(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run ``call`` in a thread of a slot held already; when cancelled, wait for the thread before raising.

        A thread cannot be stopped from outside, so ``call`` should do one bounded step. The wait keeps the rule that whoever
        holds the slot is the only one using the engine. Raises ``refusal`` when the slots were closed meanwhile.
        """
        self._refuse_if_closed()
        future = asyncio.get_running_loop().run_in_executor(self._threads, lambda: call(*args, **kwargs))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await _ended(future)
            raise

    def close(self) -> None:
        """Let running calls end and refuse new ones; does not block."""
        self._closed = True
        self._threads.shutdown(wait=False)

    def _refuse_if_closed(self) -> None:
        if self._closed:
            raise self._refusal(f"{self.name}: its slots are closed")


async def _ended(future: asyncio.Future[T]) -> None:
    """Wait until the thread behind ``future`` is done, whatever cancels meanwhile, and drop its outcome."""
    while not future.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([future])
    if not future.cancelled():
        future.exception()
