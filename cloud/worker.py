"""A worker of a pool: takes requests of its queue group, streams the answers back, and stops at once when told.

Each request is one task. A cancel goes to every worker of the pool, since the asker does not know who took its request; one that
arrives before its request is kept for a while.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager, suppress

import msgspec
import structlog

from coordinator import wire
from coordinator.bus import Bus, Subscription
from models.engines import Completer
from models.errors import CloudUnreachableError, DeadlineError, OverloadedError, VoiceError
from models.prompts import CompletionDelta, Prompt, Usage

_log = structlog.get_logger()

CANCELS_KEPT = 4096
"""Cancels remembered for requests that have not come; those of other workers' requests are among them."""
BEAT_S = 1.0
MAX_PENDING = 4096
"""Requests that may wait in the bus while this process is busy; the bus drops the newest beyond."""

Observe = Callable[[str], None]


def _ignore(_result: str) -> None:
    """Observe nothing."""


class _Answer:
    """The stream of frames to one asker, numbered without gaps."""

    def __init__(self, bus: Bus, subject: str, worker_id: str) -> None:
        self._bus = bus
        self._subject = subject
        self._worker_id = worker_id
        self._seq = 0

    async def say(self, delta: CompletionDelta) -> None:
        """Send a piece of text; this and the others raise CloudUnreachableError."""
        await self._send(wire.AnswerDelta(seq=self._seq, text=delta.text, model=delta.model))

    async def end(self, usage: Usage | None) -> None:
        """Tell that the answer is complete."""
        await self._send(wire.AnswerEnd(seq=self._seq, usage=usage))

    async def failed(self, error: VoiceError) -> None:
        """Tell that there will be no more."""
        await self._send(wire.AnswerFailed(seq=self._seq, code=error.code, message=str(error)))

    @asynccontextmanager
    async def kept_alive(self) -> AsyncGenerator[None, None]:
        """Beat while the body runs."""
        beating = asyncio.create_task(self._beat(), name="answer-beat")
        try:
            yield
        finally:
            beating.cancel()
            await asyncio.wait([beating])

    async def _beat(self) -> None:
        while True:
            with suppress(CloudUnreachableError):
                await self._send(wire.AnswerBeat(seq=self._seq, worker_id=self._worker_id))
            await asyncio.sleep(wire.ANSWER_BEAT_S)

    async def _send(self, frame: wire.AnyAnswerFrame) -> None:
        self._seq += 1
        await self._bus.publish(self._subject, wire.encode(frame))


class PoolWorker:
    """Serves one pool's name with one Completer; ``run`` it in a task and cancel that to stop."""

    def __init__(
        self,
        bus: Bus,
        pool: str,
        completer: Completer,
        *,
        worker_id: str,
        model: str = "",
        max_running: int = 8,
        observe: Observe = _ignore,
        running_changed: Callable[[int], None] = lambda _count: None,
        is_upstream_ready: Callable[[], bool] = lambda: True,
    ) -> None:
        self.ready = asyncio.Event()
        """Set once requests and cancels are heard."""
        self._bus = bus
        self._pool = pool
        self._completer = completer
        self._worker_id = wire.token(worker_id)
        self._model = model
        self._max_running = max_running
        self._observe = observe
        self._running_changed = running_changed
        self._is_upstream_ready = is_upstream_ready
        self._running: dict[str, asyncio.Task[None]] = {}
        self._cancelled: OrderedDict[str, None] = OrderedDict()
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_draining = False

    @property
    def running(self) -> int:
        """Requests under way."""
        return len(self._running)

    async def run(self) -> None:
        """Serve until cancelled; no request is under way any more when this ends.

        Raises a group with CloudUnreachableError naming the reason when the bus closes, so that its process ends and is started anew.
        """
        async with (
            self._bus.subscribe(wire.cancel_subject(self._pool), max_pending=MAX_PENDING) as cancels,
            self._bus.subscribe(
                wire.complete_subject(self._pool), queue=self._pool, max_pending=MAX_PENDING
            ) as requests,
            asyncio.TaskGroup() as tasks,
        ):
            tasks.create_task(self._beat(), name="pool-beat")
            tasks.create_task(self._hear_cancels(cancels), name="pool-cancels")
            self.ready.set()
            async for message in requests:
                self._take(message.payload, message.reply, tasks)
            await self._bus.lost()

    async def drain(self, within_s: float) -> None:
        """Refuse new requests and wait for those under way, at most ``within_s``."""
        self._is_draining = True
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._idle.wait()

    def _take(self, payload: bytes, reply: str, tasks: asyncio.TaskGroup) -> None:
        try:
            request = wire.decode_request(payload)
        except msgspec.MsgspecError:
            self._observe("malformed")
            _log.warning("request_malformed", pool=self._pool, size_bytes=len(payload))
            return
        if not reply or request.request_id in self._running:
            self._observe("malformed")
            return
        if request.request_id in self._cancelled:
            del self._cancelled[request.request_id]
            self._observe("cancelled")
            return
        answer = _Answer(self._bus, reply, self._worker_id)
        if self._is_draining or self.running >= self._max_running:
            tasks.create_task(self._refuse(answer), name="refusal")
            return
        task = tasks.create_task(self._serve(request.prompt, answer), name="request")
        self._running[request.request_id] = task
        self._idle.clear()
        self._running_changed(self.running)
        task.add_done_callback(lambda _task: self._ended(request.request_id))

    def _ended(self, request_id: str) -> None:
        del self._running[request_id]
        self._running_changed(self.running)
        if not self._running:
            self._idle.set()

    async def _refuse(self, answer: _Answer) -> None:
        self._observe("refused")
        with suppress(CloudUnreachableError):
            await answer.failed(OverloadedError("this worker is full"))

    async def _serve(self, prompt: Prompt, answer: _Answer) -> None:
        """Answer one request; ends quietly when the asker cannot be reached."""
        result = "cancelled"
        try:
            async with answer.kept_alive():
                usage = await self._relay(prompt, answer)
            await answer.end(usage)
            result = "answered"
        except VoiceError as error:
            result = error.code
            _log.info("request_failed", pool=self._pool, code=error.code)
            with suppress(CloudUnreachableError):
                await answer.failed(error)
        finally:
            self._observe(result)

    async def _relay(self, prompt: Prompt, answer: _Answer) -> Usage | None:
        """Send the upstream's pieces on; raise DeadlineError when the asker's budget is over."""
        usage: Usage | None = None
        try:
            async with asyncio.timeout(prompt.budget_ms / 1000), aclosing(self._completer.complete(prompt)) as deltas:
                async for delta in deltas:
                    usage = delta.usage or usage
                    if delta.text:
                        await answer.say(delta)
        except TimeoutError as error:
            raise DeadlineError("the budget ran out upstream") from error
        return usage

    async def _hear_cancels(self, cancels: Subscription) -> None:
        async for message in cancels:
            try:
                request_id = wire.decode_cancel(message.payload).request_id
            except msgspec.MsgspecError:
                self._observe("malformed")
                continue
            task = self._running.get(request_id)
            if task is not None:
                task.cancel()
                continue
            self._cancelled[request_id] = None
            if len(self._cancelled) > CANCELS_KEPT:
                self._cancelled.popitem(last=False)

    async def _beat(self) -> None:
        while True:
            beat = wire.PoolBeat(
                pool=self._pool,
                worker_id=self._worker_id,
                model=self._model,
                running=self.running,
                max_running=self._max_running,
                ready=self._is_upstream_ready() and not self._is_draining,
            )
            with suppress(CloudUnreachableError):
                await self._bus.publish(wire.pool_beat_subject(self._pool, self._worker_id), wire.encode(beat))
            await asyncio.sleep(BEAT_S)
