"""The answers of one worker on their way out: pieces of text gathered into numbered frames, one a loop turn for each asker.

Sending is one task for all answers, so that an answer costs neither a task nor a timer of its own, and tokens that come together leave
together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from coordinator import wire
from coordinator.bus import Bus
from models.errors import CloudUnreachableError, VoiceError
from models.prompts import CompletionDelta, Usage


class Outbox:
    """Sends what answers have to say; ``run`` it in a task and cancel that to stop."""

    def __init__(self, bus: Bus, worker_id: str) -> None:
        self.worker_id = worker_id
        self._bus = bus
        self._due: list[Answer] = []
        self._has_some = asyncio.Event()
        self._is_empty = asyncio.Event()
        self._is_empty.set()

    def add(self, answer: Answer) -> None:
        """Send what the answer has when it is its turn; each is in here once at most."""
        self._due.append(answer)
        self._has_some.set()
        self._is_empty.clear()

    async def run(self) -> None:
        """Send until cancelled."""
        while True:
            await self._has_some.wait()
            self._has_some.clear()
            due, self._due = self._due, []
            for answer in due:
                await self._send(answer)
            if not self._due:
                self._is_empty.set()

    async def emptied(self) -> None:
        """Return once all was handed to the bus."""
        await self._is_empty.wait()

    async def _send(self, answer: Answer) -> None:
        try:
            for frame in answer.frames():
                await self._bus.publish(answer.subject, wire.encode(frame))
        except CloudUnreachableError as error:
            answer.lose(error)


class Answer:
    """The stream of frames to one asker, numbered without gaps; nothing of it leaves after ``drop``."""

    def __init__(self, outbox: Outbox, subject: str, *, on_lost: Callable[[], None] = lambda: None) -> None:
        self.subject = subject
        self.error: CloudUnreachableError | None = None
        """Why the asker cannot be reached any more."""
        self.is_quiet = False
        """Whether nothing was sent since this was set; for whoever sends beats."""
        self._outbox = outbox
        self._on_lost = on_lost
        self._seq = 0
        self._texts: list[str] = []
        self._model = ""
        self._is_beat_due = False
        self._last: wire.AnswerEnd | wire.AnswerFailed | None = None
        self._is_out = False
        self._is_over = False

    def say(self, delta: CompletionDelta) -> None:
        """Send a piece of text."""
        self._texts.append(delta.text)
        self._model = delta.model or self._model
        self._put_out()

    def beat(self) -> None:
        """Tell that the request is in hand."""
        self._is_beat_due = True
        self._put_out()

    def end(self, usage: Usage | None) -> None:
        """Tell that the answer is complete."""
        self._last = wire.AnswerEnd(seq=0, usage=usage)
        self._put_out()

    def fail(self, error: VoiceError) -> None:
        """Tell that there will be no more."""
        self._last = wire.AnswerFailed(seq=0, code=error.code, message=str(error))
        self._put_out()

    def drop(self) -> None:
        """Send nothing more."""
        self._is_over = True
        self._texts.clear()

    def lose(self, error: CloudUnreachableError) -> None:
        """Note that the asker cannot be reached."""
        if not self._is_over:
            self.error = error
            self.drop()
            self._on_lost()

    def frames(self) -> list[wire.AnyAnswerFrame]:
        """Return what is to be sent now, and forget it."""
        self._is_out = False
        if self._is_over:
            return []
        self.is_quiet = False
        text, last = "".join(self._texts), self._last
        self._texts.clear()
        frames: list[wire.AnyAnswerFrame] = []
        if isinstance(last, wire.AnswerEnd):
            frames.append(
                wire.AnswerEnd(seq=self._next(), worker_id=self._name, usage=last.usage, text=text, model=self._model)
            )
        elif text:
            frames.append(wire.AnswerDelta(seq=self._next(), worker_id=self._name, text=text, model=self._model))
        if isinstance(last, wire.AnswerFailed):
            frames.append(
                wire.AnswerFailed(seq=self._next(), worker_id=self._name, code=last.code, message=last.message)
            )
        if self._is_beat_due and not frames:
            frames.append(wire.AnswerBeat(seq=self._next(), worker_id=self._name))
        self._is_beat_due = False
        self._is_over = last is not None
        return frames

    @property
    def _name(self) -> str:
        """The worker's id on the first frame, "" on those after it."""
        return self._outbox.worker_id if self._seq == 1 else ""

    def _next(self) -> int:
        self._seq += 1
        return self._seq - 1

    def _put_out(self) -> None:
        if not self._is_out:
            self._is_out = True
            self._outbox.add(self)
