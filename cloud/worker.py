"""A worker of a pool: takes requests of its queue group, streams the answers back, and stops at once when told.

Each request under way is one task; one that waits is none. A cancel goes to the worker that answers or, before its asker heard of it,
to every worker of the pool; one of these that arrives before its request is kept for a while. An asker that falls silent is lost, and its
requests with it.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack, aclosing, suppress
from math import inf
from typing import NoReturn

import msgspec
import structlog

from cloud.admission import Admission, Refusal, Terms, Ticket
from cloud.worker_answers import Answer, Outbox
from coordinator import wire
from coordinator.bus import Bus, Subscription
from models.engines import Completer
from models.errors import CloudUnreachableError, DeadlineError, OverloadedError, VoiceError
from models.prompts import Prompt, Usage

_log = structlog.get_logger()

CANCELS_KEPT = 4096
"""Cancels remembered for requests that have not come; those of other workers' requests are among them."""
BEAT_S = 1.0
WAITED_MS = 50
"""Waits shorter than this are not worth a new prompt; the budget is kept to by the worker itself."""
MAX_PENDING = 4096
"""Requests that may wait in the bus while this process is busy; the bus drops the newest beyond."""

Observe = Callable[[str], None]


def _ignore(_result: str) -> None:
    """Observe nothing."""


class _Request:
    """One request in hand, waiting or under way."""

    __slots__ = ("answer", "asker", "is_stopped", "prompt", "result", "task", "ticket", "until_s")

    def __init__(self, asked: wire.CompletionRequest, edge_id: str, answer: Answer, now_s: float) -> None:
        budget_s = asked.prompt.budget_ms / 1000
        patience_s = min(budget_s, asked.first_token_ms / 1000 if asked.first_token_ms > 0 else inf)
        self.prompt = asked.prompt
        self.answer = answer
        self.asker = _of(edge_id, asked.asker_id) if asked.asker_id else None
        self.until_s = now_s + budget_s
        self.task: asyncio.Task[None] | None = None
        self.result = "cancelled"
        self.is_stopped = False
        self.ticket = Ticket(
            request_id=_of(edge_id, asked.request_id),
            edge_id=edge_id,
            device_id=asked.prompt.device_id,
            is_preload=asked.priority > wire.TURN,
            first_token_until_s=now_s + patience_s,
        )

    def stop(self, result: str = "cancelled") -> None:
        """End the task, if it has one; a second time changes nothing, for it may take time to close."""
        if not self.is_stopped:
            self.is_stopped = True
            self.result = result
            self.answer.drop()
            if self.task is not None:
                self.task.cancel()


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
        admission: Admission | None = None,
        observe: Observe = _ignore,
        running_changed: Callable[[int], None] = lambda _count: None,
        is_upstream_ready: Callable[[], bool] = lambda: True,
    ) -> None:
        """``admission`` decides who is served when; without one ``max_running`` are, and nobody waits."""
        self.ready = asyncio.Event()
        """Set once requests and cancels are heard."""
        self.admission = admission or Admission(Terms(max_running=max_running))
        """For metrics: how many wait, how fast answers go."""
        self._bus = bus
        self._pool = pool
        self._completer = completer
        self._worker_id = wire.token(worker_id)
        self._model = model
        self._observe = observe
        self._running_changed = running_changed
        self._is_upstream_ready = is_upstream_ready
        self._outbox = Outbox(bus, worker_id)
        self._tasks: asyncio.TaskGroup | None = None
        self._entrance = AsyncExitStack()
        self._requests: dict[str, _Request] = {}
        self._cancelled: OrderedDict[str, None] = OrderedDict()
        self._askers: dict[str | None, float] = {}
        """When each asker with requests in hand was last heard of, on the loop's clock."""
        self._idle = asyncio.Event()
        self._idle.set()
        self._is_draining = False

    @property
    def running(self) -> int:
        """Requests under way."""
        return self.admission.running

    async def run(self) -> None:
        """Serve until cancelled; no request is under way any more when this ends.

        Raises a group with CloudUnreachableError naming the reason when the bus closes, so that its process ends and is started anew.
        """
        listen, pool, name = self._bus.subscribe, self._pool, self._worker_id
        async with (
            listen(wire.cancel_subject(pool, "*"), max_pending=MAX_PENDING) as cancels,
            listen(wire.cancel_subject(pool, "*", name), max_pending=MAX_PENDING) as own_cancels,
            listen(wire.asker_beat_subject(pool, "*", name), max_pending=MAX_PENDING) as asker_beats,
            listen(wire.complete_subject(pool, "*", name), max_pending=MAX_PENDING) as own_requests,
            self._entrance,
            asyncio.TaskGroup() as tasks,
        ):
            requests = await self._entrance.enter_async_context(
                listen(wire.complete_subject(pool, "*"), queue=pool, max_pending=MAX_PENDING)
            )
            self._tasks = tasks
            tasks.create_task(self._outbox.run(), name="pool-outbox")
            tasks.create_task(self._beat(), name="pool-beat")
            tasks.create_task(self._tend(), name="pool-tend")
            tasks.create_task(self._hear_cancels(cancels, is_for_all=True), name="pool-cancels")
            tasks.create_task(self._hear_cancels(own_cancels, is_for_all=False), name="worker-cancels")
            tasks.create_task(self._hear_askers(asker_beats), name="asker-beats")
            tasks.create_task(self._hear_requests(own_requests), name="worker-requests")
            self.ready.set()
            try:
                await self._hear_requests(requests)
                await self._ended_by()
            finally:
                self._tasks = None

    async def drain(self, within_s: float) -> None:
        """Leave the queue group, refuse what came already and wait for what was taken, at most ``within_s``."""
        self._is_draining = True
        await self._entrance.aclose()
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._idle.wait()
                await self._outbox.emptied()

    async def _ended_by(self) -> NoReturn:
        """Raise what ended the bus; wait for ever when it was we who left the queue group."""
        while self._is_draining:
            await asyncio.Event().wait()
        await self._bus.lost()

    # Taking

    async def _hear_requests(self, requests: Subscription) -> None:
        async for message in requests:
            self._take(message.payload, wire.edge_of(message.subject), message.reply)

    def _take(self, payload: bytes, edge_id: str, reply: str) -> None:
        try:
            asked = wire.decode_request(payload)
        except msgspec.MsgspecError:
            self._observe("malformed")
            _log.warning("request_malformed", pool=self._pool, edge=edge_id, size_bytes=len(payload))
            return
        request_id = _of(edge_id, asked.request_id)
        if not wire.is_answer_to(edge_id, reply) or request_id in self._requests:
            self._observe("malformed")
            return
        if request_id in self._cancelled:
            del self._cancelled[request_id]
            self._observe("cancelled")
            return
        now_s = _now_s()
        answer = Answer(self._outbox, reply, on_lost=lambda: self._unreachable(request))
        request = _Request(asked, edge_id, answer, now_s)
        if self._is_draining:
            self._refuse(request, Refusal.FULL)
            return
        offer = self.admission.offer(request.ticket, now_s)
        if offer.evicted is not None:
            self._refuse(self._forget(offer.evicted), Refusal.FULL)
        if offer.refusal is not None:
            self._refuse(request, offer.refusal)
            return
        self._requests[request_id] = request
        self._askers[request.asker] = now_s
        self._idle.clear()
        if offer.runs:
            self._start(request)

    def _refuse(self, request: _Request, refusal: Refusal) -> None:
        self._observe("refused" if refusal is Refusal.FULL else f"refused-{refusal}")
        request.answer.fail(OverloadedError(f"this worker takes no more: {refusal}"))

    def _forget(self, ticket: Ticket) -> _Request:
        """Return a request that is over."""
        request = self._requests.pop(ticket.request_id)
        if not self._requests:
            self._idle.set()
        return request

    # Serving

    def _start(self, request: _Request) -> None:
        if self._tasks is None:
            return
        request.task = self._tasks.create_task(self._serve(request), name="request")
        request.task.add_done_callback(lambda _task: self._ended(request))
        self._running_changed(self.running)

    def _ended(self, request: _Request) -> None:
        """Note the end of a request and let the next ones in."""
        now_s = _now_s()
        self.admission.ended(request.ticket.request_id, now_s)
        self._running_changed(self.running)
        self._observe(request.result)
        self._forget(request.ticket)
        self._let_in(now_s)

    def _let_in(self, now_s: float) -> None:
        """Start whose turn it is and refuse who waited too long; nobody any more when the worker ends."""
        if self._tasks is None:
            return
        for late in self.admission.late(now_s):
            self._refuse(self._forget(late), Refusal.LATE)
        while (ticket := self.admission.next(now_s)) is not None:
            self._start(self._requests[ticket.request_id])

    async def _serve(self, request: _Request) -> None:
        """Answer one request."""
        try:
            usage = await self._relay(request)
            request.answer.end(usage)
            request.result = "answered"
        except VoiceError as error:
            request.result = error.code
            _log.info("request_failed", pool=self._pool, code=error.code)
            request.answer.fail(error)

    async def _relay(self, request: _Request) -> Usage | None:
        """Send the upstream's pieces on; raise DeadlineError when the asker's budget is over."""
        usage: Usage | None = None
        has_begun = False
        try:
            async with (
                asyncio.timeout_at(request.until_s),
                aclosing(self._completer.complete(_on_time(request))) as deltas,
            ):
                async for delta in deltas:
                    usage = delta.usage or usage
                    if delta.text:
                        if not has_begun:
                            has_begun = True
                            self.admission.first_token(request.ticket.request_id, _now_s())
                        request.answer.say(delta)
        except TimeoutError as error:
            raise DeadlineError("the budget ran out upstream") from error
        return usage

    # Ending early

    async def _hear_cancels(self, cancels: Subscription, *, is_for_all: bool) -> None:
        async for message in cancels:
            try:
                cancelled = wire.decode_cancel(message.payload).request_id
            except msgspec.MsgspecError:
                self._observe("malformed")
                continue
            request_id = _of(wire.edge_of(message.subject), cancelled)
            request = self._requests.get(request_id)
            if request is not None:
                self._stop(request, "cancelled")
            elif is_for_all:
                self._cancelled[request_id] = None
                if len(self._cancelled) > CANCELS_KEPT:
                    self._cancelled.popitem(last=False)

    def _stop(self, request: _Request, result: str) -> None:
        """End a request whose answer nobody can hear any more."""
        request.stop(result)
        if self.admission.left(request.ticket.request_id):
            self._forget(request.ticket)
            self._observe(result)

    def _unreachable(self, request: _Request) -> None:
        if request.ticket.request_id in self._requests:
            self._stop(request, CloudUnreachableError.code)

    async def _hear_askers(self, beats: Subscription) -> None:
        async for message in beats:
            try:
                asker_id = wire.decode_asker_beat(message.payload).asker_id
            except msgspec.MsgspecError:
                self._observe("malformed")
                continue
            asker = _of(wire.edge_of(message.subject), asker_id)
            if asker in self._askers:
                self._askers[asker] = _now_s()

    async def _tend(self) -> None:
        """Beat for quiet answers, end what nobody waits for, let in and refuse what waits."""
        while True:
            await asyncio.sleep(wire.ANSWER_BEAT_S)
            now_s = _now_s()
            self._lose_askers(self._requests.values(), now_s)
            for request in self._requests.values():
                if request.answer.is_quiet:
                    request.answer.beat()
                request.answer.is_quiet = True
            self._let_in(now_s)

    def _lose_askers(self, requests: Iterable[_Request], now_s: float) -> None:
        """End the requests of askers that promised to beat and did not."""
        in_hand = {request.asker for request in requests}
        self._askers = {asker: at_s for asker, at_s in self._askers.items() if asker in in_hand}
        silent = {asker for asker, at_s in self._askers.items() if asker and now_s - at_s > wire.ASKER_SILENCE_S}
        if not silent:
            return
        lost = [request for request in requests if request.asker in silent]
        _log.warning("askers_lost", pool=self._pool, askers=len(silent), requests=len(lost))
        for request in lost:
            self._stop(request, "asker-lost")

    async def _beat(self) -> None:
        while True:
            beat = wire.PoolBeat(
                pool=self._pool,
                worker_id=self._worker_id,
                model=self._model,
                running=self.running,
                max_running=self.admission.terms.max_running,
                waiting=self.admission.waiting,
                ready=self._is_upstream_ready() and not self._is_draining,
            )
            with suppress(CloudUnreachableError):
                await self._bus.publish(wire.pool_beat_subject(self._pool, self._worker_id), wire.encode(beat))
            await asyncio.sleep(BEAT_S)


def _of(edge_id: str, name: str) -> str:
    """Return an edge's name for something as nobody else can say it; an edge's own has no dot."""
    return f"{edge_id}.{name}"


def _on_time(request: _Request) -> Prompt:
    """Return the prompt with what its wait has left of the budget."""
    left_ms = int((request.until_s - _now_s()) * 1000)
    if request.prompt.budget_ms - left_ms < WAITED_MS:
        return request.prompt
    return msgspec.structs.replace(request.prompt, budget_ms=max(left_ms, 0))


def _now_s() -> float:
    return asyncio.get_running_loop().time()
