"""A Completer on the far side of NATS: asks a pool, streams the answer, and cancels it there when closed here."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Callable

import msgspec

from coordinator import wire
from coordinator.bus import Bus, BusMessage
from models.errors import CloudUnreachableError, CompletionError, DeadlineError, error_from_code
from models.prompts import CompletionDelta, Prompt

MAX_FRAMES_WAITING = 4096
"""Frames of one answer that may wait for a slow reader; more are lost and noticed by their number."""


class RemoteCompleter:
    """Answers prompts by asking one pool over the bus."""

    def __init__(
        self,
        bus: Bus,
        pool: str,
        edge_id: str,
        *,
        silence_s: float = wire.ANSWER_SILENCE_S,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._bus = bus
        self._pool = pool
        self._edge_id = edge_id
        self._silence_s = silence_s
        self._now = now

    async def complete(self, prompt: Prompt) -> AsyncGenerator[CompletionDelta, None]:
        """Yield the answer of whichever worker takes the request.

        Raises CloudUnreachableError when nobody takes it, frames are lost or the worker falls silent, DeadlineError when
        ``prompt.budget_ms`` is over, and what the worker reports. Closing tells the pool, so that the upstream request ends too.
        """
        request_id = uuid.uuid4().hex
        subject = wire.answer_subject(self._edge_id, request_id)
        request = wire.encode(wire.CompletionRequest(request_id=request_id, prompt=prompt))
        deadline_s = self._now() + prompt.budget_ms / 1000
        is_over = False
        async with self._bus.subscribe(subject, max_pending=MAX_FRAMES_WAITING) as answer:
            frames = aiter(answer)
            try:
                await self._bus.publish(wire.complete_subject(self._pool), request, reply=subject)
                for expected in range(2**63):
                    frame = await self._next(frames, deadline_s)
                    if frame.seq != expected:
                        raise CloudUnreachableError(f"{self._pool}: frame {expected} of an answer was lost")
                    match frame:
                        case wire.AnswerDelta():
                            yield CompletionDelta(text=frame.text, model=frame.model)
                        case wire.AnswerEnd():
                            is_over = True
                            yield CompletionDelta(text="", usage=frame.usage)
                            return
                        case wire.AnswerFailed():
                            is_over = True
                            raise _as_completion_error(frame, self._pool)
            finally:
                if not is_over:
                    await self._cancel(request_id)

    async def _next(self, frames: AsyncIterator[BusMessage], deadline_s: float) -> wire.AnyAnswerFrame:
        left_s = deadline_s - self._now()
        try:
            async with asyncio.timeout(min(self._silence_s, left_s)):
                message = await anext(frames)
        except TimeoutError as error:
            if left_s <= self._silence_s:
                raise DeadlineError(f"{self._pool}: the budget ran out") from error
            raise CloudUnreachableError(f"{self._pool}: nothing heard for {self._silence_s:g} s") from error
        except StopAsyncIteration as error:
            raise CloudUnreachableError(f"{self._pool}: the bus closed") from error
        if message.no_responders:
            raise CloudUnreachableError(f"{self._pool}: no worker serves this pool")
        try:
            return wire.decode_answer(message.payload)
        except msgspec.MsgspecError as error:
            raise CloudUnreachableError(f"{self._pool}: an unreadable frame came") from error

    async def _cancel(self, request_id: str) -> None:
        """Tell the pool; returns once the message is handed over, even while this task is being cancelled."""
        cancel = wire.encode(wire.CompletionCancel(request_id=request_id))
        telling = asyncio.ensure_future(self._bus.publish(wire.cancel_subject(self._pool), cancel))
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


CANCEL_S = 1.0
"""How long handing over a cancel may take; the worker's own deadline ends the request otherwise."""


def _as_completion_error(frame: wire.AnswerFailed, pool: str) -> CompletionError:
    error = error_from_code(frame.code, f"{pool}: {frame.message or frame.code}")
    return error if isinstance(error, CompletionError) else CompletionError(str(error))
