"""Runs a scheduler on a thread of its own and carries jobs there and events back to the event loops that wait for them.

All calls of the engine come from this one thread. Both ways are bounded: at most ``slots + max_waiting`` jobs are open, a job has
one end and as many tokens as it asked for. The events of a step wake each event loop once.
"""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Protocol

from models.errors import CompletionError, OverloadedError, VoiceError
from models.llama_jobs import Ended, Event, Job
from models.llama_scheduler import Scheduler

_LAST_STEP_S = 5.0
"""How long the interpreter's exit waits for a running step."""


class Brake(Protocol):
    """What can end a running step from another thread."""

    def stop(self) -> None:
        """End the running step, and all to come until ``resume``."""
        ...

    def resume(self) -> None:
        """Take ``stop`` back."""
        ...


class Answer:
    """The asyncio end of a job: its events in order, the last one ``Ended``; always ``close`` it."""

    def __init__(self, job: Job, cancel: Callable[[Job], None]) -> None:
        self._job = job
        self._cancel = cancel
        self.loop = asyncio.get_running_loop()
        self._events: deque[Event] = deque()
        self._news = asyncio.Event()
        self._ended = asyncio.Event()

    async def next(self) -> Event:
        """Return the next event; raise the error the job ended with."""
        while not self._events:
            self._news.clear()
            await self._news.wait()
        event = self._events.popleft()
        if isinstance(event, Ended) and event.error:
            raise event.error
        return event

    async def close(self) -> None:
        """Cancel the job unless it ended; return only when the engine does not work for it, even when cancelled meanwhile."""
        if self._ended.is_set():
            return
        self._cancel(self._job)
        cancelled: asyncio.CancelledError | None = None
        while not self._ended.is_set():
            try:
                await self._ended.wait()
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled:
            raise cancelled

    def deliver(self, event: Event) -> None:
        """Take an event; on the event loop only."""
        self._events.append(event)
        self._news.set()
        if isinstance(event, Ended):
            self._ended.set()


class EngineThread:
    """The thread of one engine; ``close`` ends it, so does dropping the last reference or leaving the interpreter."""

    def __init__(
        self,
        scheduler: Scheduler,
        brake: Brake,
        *,
        name: str,
        slots: int,
        max_waiting: int,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = name
        self._slots = slots
        self._max_waiting = max_waiting
        self._now = now
        self._work = _Work(scheduler, brake, now)
        thread = threading.Thread(target=self._work.run, name=f"llama-{name}", daemon=True)
        thread.start()
        self._end = weakref.finalize(self, _end, self._work, thread)

    @property
    def waiting(self) -> int:
        """Jobs in line now."""
        return max(0, self._work.open - self._slots)

    @property
    def wait_s(self) -> float:
        """What a new job would wait for a slot at the pace of the latest: slots come free ``slots`` times per mean answer."""
        ahead = self._work.open - self._slots
        return 0.0 if ahead < 0 else (ahead + 1) * self._work.scheduler.hold_s / self._slots

    def check(self, budget_s: float) -> None:
        """Raise OverloadedError when the line is full, too long for the budget, or closed."""
        if self._work.is_stopping:
            raise OverloadedError(f"{self._name}: closed")
        if self._work.open >= self._slots + self._max_waiting:
            raise OverloadedError(f"{self._name}: {self.waiting} calls already wait for {self._slots} slots")
        if self.wait_s > budget_s:
            raise OverloadedError(
                f"{self._name}: a slot comes free in about {self.wait_s:.1f} s, the budget is {budget_s:.1f} s"
            )

    def submit(self, job: Job) -> Answer:
        """Put a job in line; raise OverloadedError as ``check`` does."""
        job.since_s = self._now()
        self.check(job.deadline_s - job.since_s)
        job.owner = answer = Answer(job, self._work.cancel)
        self._work.submit(job)
        return answer

    def close(self) -> None:
        """Let the running step end; open and new jobs get OverloadedError. Does not block."""
        self._work.stop()


class _Work:
    """What the thread runs; knows nothing of the object that owns the thread, so that this can be dropped."""

    def __init__(self, scheduler: Scheduler, brake: Brake, now: Callable[[], float]) -> None:
        self.scheduler = scheduler
        self._brake = brake
        self._now = now
        self._news = threading.Condition()
        self._added: deque[Job] = deque()
        self._cancelled: deque[Job] = deque()
        self.open = 0
        """Jobs that have not ended."""
        self.is_stopping = False

    def submit(self, job: Job) -> None:
        with self._news:
            if self.is_stopping:
                raise OverloadedError("the language model is closed")
            self.open += 1
            self._added.append(job)
            self._news.notify()

    def cancel(self, job: Job) -> None:
        with self._news:
            self._cancelled.append(job)
            if job in self.scheduler.reading:
                self._brake.stop()
            self._news.notify()

    def stop(self) -> None:
        with self._news:
            self.is_stopping = True
            self._news.notify()

    def run(self) -> None:
        error: VoiceError = CompletionError("the language model's thread died; restart the brain")
        try:
            while self._take():
                self._tell(self.scheduler.step(self._now()))
            error = OverloadedError("the language model was closed")
        finally:
            self.stop()
            with self._news:
                for job in self._added:
                    self.scheduler.add(job)
            self._tell(self.scheduler.abandon(self._now(), error))

    def _take(self) -> bool:
        """Wait for something to do and take what came in; return False when it is time to stop."""
        with self._news:
            while self.scheduler.is_idle and not (self._added or self._cancelled or self.is_stopping):
                self._news.wait()
            self._brake.resume()
            while self._added:
                self.scheduler.add(self._added.popleft())
            while self._cancelled:
                self.scheduler.cancel(self._cancelled.popleft(), self._now())
            return not self.is_stopping

    def _tell(self, events: Iterable[Event]) -> None:
        answers: dict[asyncio.AbstractEventLoop, list[Event]] = {}
        for event in events:
            answers.setdefault(event.job.owner.loop, []).append(event)
            if isinstance(event, Ended):
                with self._news:
                    self.open -= 1
        for loop, news in answers.items():
            with suppress(RuntimeError):  # that event loop was closed: nobody waits any more
                loop.call_soon_threadsafe(_deliver, news)


def _deliver(events: Iterable[Event]) -> None:
    for event in events:
        event.job.owner.deliver(event)


def _end(work: _Work, thread: threading.Thread) -> None:
    work.stop()
    if thread is not threading.current_thread():
        thread.join(_LAST_STEP_S)
