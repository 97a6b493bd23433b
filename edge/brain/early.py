"""Transcribing before the end is sure: the wait for more speech and the recogniser's work pass at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from edge.brain.stage import stage
from models.engines import Recognizer
from models.errors import RecognitionError, VoiceError
from models.speech import Transcript, Utterance
from models.stopping import stopped


class EarlyRecognizer:
    """A Recognizer for one utterance that may have begun already; its task belongs to the session's ``group``."""

    def __init__(self, recognizer: Recognizer, group: asyncio.TaskGroup) -> None:
        self._recognizer = recognizer
        self._group = group
        self._utterance: Utterance | None = None
        self._task: asyncio.Task[Transcript | VoiceError] | None = None

    async def begin(self, utterance: Utterance, done: Callable[[], None] = lambda: None) -> None:
        """Start transcribing what may turn out to be the whole utterance; ``done`` is called once ``known`` says how it went."""
        await self.drop()
        self._utterance = utterance
        self._task = self._group.create_task(self._attempt(utterance), name=f"early-{utterance.turn_id}")
        self._task.add_done_callback(lambda _task: done())

    def known(self, utterance: Utterance) -> Transcript | VoiceError | None:
        """Return what became of transcribing this very utterance, None while that is not known or when it was dropped."""
        task = self._task
        if task is None or utterance is not self._utterance or not task.done() or task.cancelled():
            return None
        return task.result()

    async def join(self, utterance: Utterance, done: Callable[[], None]) -> None:
        """Have ``done`` called once the outcome is known, starting now if nobody began with this very utterance."""
        if self._task is None or utterance is not self._utterance:
            await self.begin(utterance, done)
        else:
            self._task.add_done_callback(lambda _task: done())

    async def drop(self) -> None:
        """Stop what was begun; returns once it has ended."""
        task, self._task, self._utterance = self._task, None, None
        if task is not None:
            await stopped(task)

    async def transcribe(self, utterance: Utterance) -> Transcript:
        """Return the transcript, begun early or not; raise RecognitionError. Cancelling stops either."""
        task = self._task
        if task is None or utterance is not self._utterance:
            await self.drop()
            return await self._recognizer.transcribe(utterance)
        self._task = self._utterance = None
        try:
            result = await asyncio.shield(task)
        finally:
            await stopped(task)
        if isinstance(result, VoiceError):
            raise result
        return result

    async def _attempt(self, utterance: Utterance) -> Transcript | VoiceError:
        try:
            with stage("asr", RecognitionError):
                return await self._recognizer.transcribe(utterance)
        except VoiceError as error:
            return error
