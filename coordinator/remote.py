"""A Completer on the far side of NATS: asks a pool, streams the answer, and cancels it there when closed here."""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections import OrderedDict, deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from math import inf
from typing import Self

import msgspec

from coordinator import wire
from coordinator.bus import Bus, BusMessage, Subscription
from models.errors import CloudUnreachableError, CompletionError, DeadlineError, error_from_code
from models.prompts import CompletionDelta, Prompt

MAX_FRAMES_WAITING = 4096
"""Frames of one answer that may wait for a slow reader; more are lost and noticed by their number."""
MAX_INBOX_WAITING = 65_536
"""Frames of all answers that may wait while this process is busy: two seconds of the busiest edge measured."""
CANCEL_S = 1.0
"""How long handing over a cancel may take; the worker's own deadline ends the request otherwise."""
RETRY_SHARE = 0.2
"""Of all requests, how many may be asked a second time after their worker was lost: in a pool of five one may die. A guess."""
RETRY_BURST = 32.0
"""Second times that may come at once, as they do when a worker dies."""
MAX_TRIES = 3
"""How often one prompt is asked at most: the second try may meet the lost worker again."""
SUSPECT_S = 8.0
"""How long after a worker was lost only those are asked that were heard since: the server notices a dead connection by then."""
MAX_WORKERS_KEPT = 256
"""Workers whose last frame is remembered; the one heard longest ago goes."""
STOOD_STILL_S = 0.25
"""A timer this late says that the process was stopped, and what came meanwhile is not read yet."""
_SOON_S = 1e-9
"""A moment this near has come: clocks are not exact."""


class _LostError(CloudUnreachableError):
    """Whoever took the request is gone; another worker may have it, if nothing was said."""


@dataclass(frozen=True, slots=True)
class Patience:
    """How long an answer may be silent."""

    first_sign_s: float = wire.FIRST_SIGN_S
    silence_s: float = wire.ANSWER_SILENCE_S


class _Answer:
    """What came for one request: bounded, read by one reader, never early at giving up."""

    def __init__(self, pool: str, deadline_s: float, patience: Patience, now: Callable[[], float]) -> None:
        self.pool = pool
        self.worker_id = ""
        """Who answers, or was asked to; "" while nobody knows."""
        self.heard_s = now()
        """When the last frame came, or the request was sent."""
        self._deadline_s = deadline_s
        self._patience = patience
        self.now = now
        self._silence_s = patience.first_sign_s
        self._frames: deque[BusMessage] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._is_cut = False

    def put(self, message: BusMessage) -> None:
        """Add a frame, or lose it when too many wait."""
        self.heard_s = self.now()
        if len(self._frames) < MAX_FRAMES_WAITING:
            self._frames.append(message)
        self._wake()

    def cut(self) -> None:
        """Note that nothing will come any more."""
        self._is_cut = True
        self._wake()

    async def next(self) -> wire.AnyAnswerFrame:
        """Return the next frame; raise what ended the answer when none came in time."""
        since_s = self.now()
        while not self._frames:
            if self._is_cut:
                raise CloudUnreachableError(f"{self.pool}: the bus closed")
            now_s, silent_s = self.now() + _SOON_S, max(since_s, self.heard_s) + self._silence_s
            if now_s >= self._deadline_s:
                raise DeadlineError(f"{self.pool}: the budget ran out")
            if now_s >= silent_s:
                raise _LostError(f"{self.pool}: nothing heard for {self._silence_s:g} s")
            if await self._until(min(self._deadline_s, silent_s) - now_s):
                since_s = self.now()
        return self._decoded(self._frames.popleft())

    def close(self) -> None:
        """Stop the clock."""
        if self._timer is not None:
            self._timer.cancel()

    def _decoded(self, message: BusMessage) -> wire.AnyAnswerFrame:
        if message.no_responders and self.worker_id:
            raise _LostError(f"{self.pool}: the worker that was asked is gone")
        if message.no_responders:
            raise CloudUnreachableError(f"{self.pool}: no worker serves this pool")
        try:
            frame = wire.decode_answer(message.payload)
        except msgspec.MsgspecError as error:
            raise CloudUnreachableError(f"{self.pool}: an unreadable frame came") from error
        self.worker_id = self.worker_id or frame.worker_id
        self._silence_s = self._patience.silence_s
        return frame

    async def _until(self, wait_s: float) -> bool:
        """Return when woken or after ``wait_s``, maybe earlier; True when so late that this process must have stood still.

        One timer serves all waits of an answer: frames come much more often than it is due.
        """
        loop = asyncio.get_running_loop()
        due_s = loop.time() + wait_s
        if self._timer is None or self._timer.when() > due_s:
            self.close()
            self._timer = loop.call_at(due_s, self._ring)
        self._waiter = loop.create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None
        return loop.time() > due_s + STOOD_STILL_S and not self._frames

    def _ring(self) -> None:
        self._timer = None
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Workers:
    """Who was heard lately, so that a lost worker's share goes to those that are alive; costs no message of its own."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        self._heard: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._lost: dict[str, tuple[float, float]] = {}
        """By pool: since when whoever was lost last was not heard, and when that was noticed."""

    def hear(self, pool: str, worker_id: str, now_s: float) -> None:
        """Note a frame."""
        self._heard[pool, worker_id] = now_s
        self._heard.move_to_end((pool, worker_id))
        if len(self._heard) > MAX_WORKERS_KEPT:
            self._heard.popitem(last=False)

    def lose(self, pool: str, worker_id: str, heard_s: float, now_s: float) -> None:
        """Note that a worker, or whoever it was, was not heard since then."""
        self._lost[pool] = (heard_s, now_s)
        self._heard.pop((pool, worker_id), None)

    def choose(self, pool: str, now_s: float) -> str:
        """Return whom to ask: "" for anybody, one that is alive while another seems lost."""
        silent_since_s, lost_s = self._lost.get(pool, (0.0, -inf))
        if now_s - lost_s > SUSPECT_S:
            return ""
        alive = [key for key, heard_s in self._heard.items() if key[0] == pool and heard_s > silent_since_s]
        return self._dice.choice(alive)[1] if alive else ""


class Asker:
    """The ear of one process: one subscription for all its answers, one beat for every worker that answers it."""

    def __init__(self, bus: Bus, edge_id: str, dice: random.Random | None = None) -> None:
        self.id = uuid.uuid4().hex[:16]
        self.edge_id = edge_id
        self._bus = bus
        self._prefix = wire.inbox_subject(edge_id, self.id).removesuffix("*")
        self._answers: dict[str, _Answer] = {}
        self.workers = _Workers(dice or random.Random())  # noqa: S311  # no secret
        self._number = 0
        self._retries = RETRY_BURST
        self._is_cut = False

    @classmethod
    @asynccontextmanager
    async def open(cls, bus: Bus, edge_id: str) -> AsyncGenerator[Self, None]:
        """Listen and beat until left; raises CloudUnreachableError when the server does not confirm the subscription."""
        asker = cls(bus, edge_id)
        subject = wire.inbox_subject(edge_id, asker.id)
        async with bus.subscribe(subject, max_pending=MAX_INBOX_WAITING) as inbox:
            tasks = [
                asyncio.create_task(asker._hear(inbox), name="asker-inbox"),
                asyncio.create_task(asker._beat(), name="asker-beat"),
            ]
            try:
                yield asker
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.wait(tasks)
                asker._cut()

    @property
    def waiting(self) -> int:
        """Answers that somebody waits for."""
        return len(self._answers)

    def expect(self, answer: _Answer) -> tuple[str, str]:
        """Return the id of a new request and the subject its answer comes to, until ``forget``."""
        self._number += 1
        request_id = f"{self.id}-{self._number}"
        self._answers[request_id] = answer
        self._retries = min(RETRY_BURST, self._retries + RETRY_SHARE)
        if self._is_cut:
            answer.cut()
        return request_id, self._prefix + request_id

    def forget(self, request_id: str) -> None:
        """Let what still comes for a request go unheard."""
        self._answers.pop(request_id).close()

    async def hear(self, answer: _Answer) -> wire.AnyAnswerFrame:
        """Return the next frame of an answer; raise what ended it. Who was heard and who was not is remembered."""
        try:
            frame = await answer.next()
        except _LostError:
            self.workers.lose(answer.pool, answer.worker_id, answer.heard_s, answer.now())
            raise
        if answer.worker_id:
            self.workers.hear(answer.pool, answer.worker_id, answer.heard_s)
        return frame

    def may_retry(self) -> bool:
        """Spend the right to ask a second time and return whether there was one."""
        may = self._retries >= 1
        self._retries -= may
        return may

    async def _hear(self, inbox: Subscription) -> None:
        start = len(self._prefix)
        async for message in inbox:
            answer = self._answers.get(message.subject[start:])
            if answer is not None:
                answer.put(message)
        self._cut()

    def _cut(self) -> None:
        self._is_cut = True
        for answer in self._answers.values():
            answer.cut()

    async def _beat(self) -> None:
        beat = wire.encode(wire.AskerBeat(asker_id=self.id))
        while True:
            await asyncio.sleep(wire.ASKER_BEAT_S)
            for pool, worker_id in {(answer.pool, answer.worker_id) for answer in self._answers.values()}:
                if worker_id:
                    with suppress(CloudUnreachableError):
                        await self._bus.publish(wire.asker_beat_subject(pool, self.edge_id, worker_id), beat)


class RemoteCompleter:
    """Answers prompts by asking one pool over the bus."""

    def __init__(
        self,
        bus: Bus,
        pool: str,
        edge_id: str,
        *,
        asker: Asker | None = None,
        priority: int = wire.TURN,
        first_token_ms: Callable[[], int] = lambda: 0,
        silence_s: float = wire.ANSWER_SILENCE_S,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """``asker`` is the process's own, whose edge then asks; without one every request opens and closes an ear, which costs much more.

        ``first_token_ms`` tells how long the first token is waited for, 0 for as long as the budget: a worker refuses what it cannot
        answer by then.
        """
        self._bus = bus
        self._pool = pool
        self._edge_id = edge_id if asker is None else asker.edge_id
        self._asker = asker
        self._priority = priority
        self._first_token_ms = first_token_ms
        self._patience = Patience(min(wire.FIRST_SIGN_S, silence_s), silence_s)
        self._now = now

    async def complete(self, prompt: Prompt) -> AsyncGenerator[CompletionDelta, None]:
        """Yield the answer of whichever worker takes the request; one lost before its first word is replaced.

        Raises CloudUnreachableError when nobody takes it, frames are lost or the worker falls silent, DeadlineError when
        ``prompt.budget_ms`` is over, and what the worker reports. Closing tells the worker, so that the upstream request ends too.
        """
        async with self._ear() as asker:
            deadline_s = self._now() + prompt.budget_ms / 1000
            for tries_left in reversed(range(MAX_TRIES)):
                has_said = False
                deltas = self._asked(asker, prompt, deadline_s)
                try:
                    async for delta in deltas:
                        has_said = has_said or bool(delta.text)
                        yield delta
                except _LostError as error:
                    if has_said or not tries_left or not asker.may_retry():
                        raise CloudUnreachableError(str(error)) from error
                    left_ms = round((deadline_s - self._now()) * 1000)
                    prompt = msgspec.structs.replace(prompt, budget_ms=left_ms)
                else:
                    return
                finally:
                    await deltas.aclose()

    @asynccontextmanager
    async def _ear(self) -> AsyncGenerator[Asker, None]:
        if self._asker is not None:
            yield self._asker
            return
        async with Asker.open(self._bus, self._edge_id) as asker:
            yield asker

    async def _asked(self, asker: Asker, prompt: Prompt, deadline_s: float) -> AsyncGenerator[CompletionDelta, None]:
        """Ask once, under an id of its own: nothing said for another one is ever taken for this one's answer."""
        answer = _Answer(self._pool, deadline_s, self._patience, self._now)
        request_id, subject = asker.expect(answer)
        request = wire.CompletionRequest(
            request_id=request_id,
            prompt=prompt,
            asker_id=asker.id,
            priority=self._priority,
            first_token_ms=self._first_token_ms(),
        )
        answer.worker_id = asker.workers.choose(self._pool, answer.heard_s)
        is_over = False
        try:
            asked_at = wire.complete_subject(self._pool, self._edge_id, answer.worker_id)
            await self._bus.publish(asked_at, wire.encode(request), reply=subject)
            for expected in range(2**63):
                frame = await asker.hear(answer)
                if frame.seq != expected:
                    raise CloudUnreachableError(f"{self._pool}: frame {expected} of an answer was lost")
                match frame:
                    case wire.AnswerDelta():
                        yield CompletionDelta(text=frame.text, model=frame.model)
                    case wire.AnswerEnd():
                        is_over = True
                        if frame.text:
                            yield CompletionDelta(text=frame.text, model=frame.model)
                        yield CompletionDelta(text="", usage=frame.usage)
                        return
                    case wire.AnswerFailed():
                        is_over = True
                        raise _as_completion_error(frame, self._pool)
        finally:
            asker.forget(request_id)
            if not is_over:
                await self._cancel(request_id, answer.worker_id)

    async def _cancel(self, request_id: str, worker_id: str) -> None:
        """Tell the worker, or the pool; returns once the message is handed over, even while this task is being cancelled."""
        cancel = wire.encode(wire.CompletionCancel(request_id=request_id))
        subject = wire.cancel_subject(self._pool, self._edge_id, worker_id)
        telling = asyncio.ensure_future(self._bus.publish(subject, cancel))
        interruption: asyncio.CancelledError | None = None
        while not telling.done():
            try:
                await asyncio.wait([telling], timeout=CANCEL_S)
                telling.cancel()
            except asyncio.CancelledError as error:
                interruption = error
        if not telling.cancelled():
            telling.exception()
        if interruption:
            raise interruption


def _as_completion_error(frame: wire.AnswerFailed, pool: str) -> CompletionError:
    error = error_from_code(frame.code, f"{pool}: {frame.message or frame.code}")
    return error if isinstance(error, CompletionError) else CompletionError(str(error))
