"""Bounded slots for engines that block: a call takes a slot and a thread, and gives both back even when cancelled."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from enum import IntEnum
from typing import ParamSpec, TypeVar

from models.errors import OverloadedError, VoiceError
from models.limits import FixedLimit, Intake, Limit

P = ParamSpec("P")
T = TypeVar("T")

MAX_PER_OWNER = 8
"""Calls one device may have in line: a turn needs two. A guess."""
_NO_LIMIT = FixedLimit(sys.maxsize)


class Priority(IntEnum):
    """Who gets a slot first."""

    LIVE = 0
    """Somebody waits for it: a final transcript, an answer, a sentence."""
    BACKGROUND = 1
    """Nobody would miss it: a partial transcript, warming."""


@dataclass(frozen=True, eq=False, slots=True)
class _Place:
    """A call in line."""

    owner: str
    priority: Priority
    granted: asyncio.Future[None]


class Slots:
    """At most ``count`` blocking calls at once, at most ``max_waiting`` in line; more are refused with ``refusal``.

    With a ``limit`` the calls in flight, under way and in line, are bounded by it too: refused at once rather than served late. The line
    is first come, first served within a priority, but calls of one owner count as asked one after another, the next when the one before
    got its slot; so a device that asks for much at once waits behind those that ask for little. ``observe_wait`` gets each wait in
    seconds, ``limit`` each call's wait and work together.
    """

    def __init__(
        self,
        name: str,
        count: int,
        *,
        max_waiting: int = 64,
        max_per_owner: int = MAX_PER_OWNER,
        limit: Limit | None = None,
        refusal: type[VoiceError] = OverloadedError,
        observe_wait: Callable[[float], None] = lambda _seconds: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.count = count
        self.max_waiting = max_waiting
        self._max_per_owner = max_per_owner
        self._refusal = refusal
        self._intake = Intake(name, limit or _NO_LIMIT, refusal=refusal, now=now)
        self._line: list[_Place] = []
        self._observe_wait = observe_wait
        self._now = now
        self._threads = ThreadPoolExecutor(count, thread_name_prefix=f"slot-{name}")
        self._closed = False
        self.busy = 0
        """Slots in use now."""

    @property
    def waiting(self) -> int:
        """Calls in line now."""
        return len(self._line)

    @property
    def is_overloaded(self) -> bool:
        """Whether one more call would be refused."""
        return self._intake.is_full or self._has_full_line

    @asynccontextmanager
    async def hold(self, *, owner: str = "", priority: Priority = Priority.LIVE) -> AsyncGenerator[None, None]:
        """Hold one slot; raise ``refusal`` at once over the limit, when the line is full, or when the slots are closed.

        ``owner`` names the device the work is for, "" for nobody's. Background work is refused from half the limit on, and out of a full
        line when live work comes.
        """
        self._refuse_what_has_no_room(owner, priority)
        with self._intake.call(background=priority is Priority.BACKGROUND):
            began_s = self._now()
            await self._acquire(owner, priority)
            try:
                self._observe_wait(self._now() - began_s)
                yield
            finally:
                self._release()

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

    async def _acquire(self, owner: str, priority: Priority) -> None:
        if self.busy < self.count:
            self.busy += 1
            return
        if self._has_full_line and (last := self._last_in_background()):
            self._line.remove(last)
            last.granted.set_exception(self._refusal(f"{self.name}: live work needs the place in line"))
        place = _Place(owner, priority, asyncio.get_running_loop().create_future())
        self._line.append(place)
        try:
            await place.granted
        except asyncio.CancelledError:
            if place.granted.cancelled():
                self._line.remove(place)
            elif place.granted.exception() is None:
                self._release()
            raise

    def _release(self) -> None:
        """Hand the slot to the next in line, or leave it free."""
        waiting = [place for place in self._line if not place.granted.cancelled()]
        if not waiting:
            self.busy -= 1
            return
        place = min(waiting, key=lambda place: place.priority)
        self._line.remove(place)
        if place.owner:
            # Its owner's other calls go to the end: they count as asked only now.
            self._line.sort(key=lambda other: other.owner == place.owner)
        place.granted.set_result(None)

    @property
    def _has_full_line(self) -> bool:
        return self.busy >= self.count and self.waiting >= self.max_waiting

    def _last_in_background(self) -> _Place | None:
        """Return who is turned out of a full line first."""
        waiting = (place for place in reversed(self._line) if not place.granted.cancelled())
        return next((place for place in waiting if place.priority is Priority.BACKGROUND), None)

    def _refuse_what_has_no_room(self, owner: str, priority: Priority) -> None:
        self._refuse_if_closed()
        if self._has_full_line and (priority is Priority.BACKGROUND or self._last_in_background() is None):
            raise self._refusal(f"{self.name}: {self.waiting} calls already wait for {self.count} slots")
        if owner and sum(place.owner == owner for place in self._line) >= self._max_per_owner:
            raise self._refusal(f"{self.name}: one device already has {self._max_per_owner} calls in line")

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
