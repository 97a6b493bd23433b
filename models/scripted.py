"""Every stage with planned delays and failures, for tests and load runs; the product never falls back to it.

Delays are ``asyncio.sleep``, so they run on virtual time, and each engine counts its calls so that a test can see that none survives.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from models.errors import CompletionError, RecognitionError, SynthesisError, VoiceError
from models.prompts import CompletionDelta, Prompt, Usage
from models.speech import AudioFrame, SpeechChunk, Transcript, Utterance

KEPT = 1024
"""Calls an engine remembers for tests; a load run makes millions."""

_FULL_SCALE = 32768
_TONE_HZ = 440.0
_TONE_PEAK = 8000
"""About -12 dB: loud enough for ScriptedDetector's default threshold, far from clipping."""


@dataclass(slots=True)
class Calls:
    """What became of an engine's calls: each started one ends as finished, failed or cancelled."""

    started: int = 0
    finished: int = 0
    failed: int = 0
    cancelled: int = 0
    """Also streams that were closed before their end."""

    @property
    def running(self) -> int:
        """Calls that have begun and not ended."""
        return self.started - self.finished - self.failed - self.cancelled

    @contextmanager
    def one(self) -> Generator[int, None, None]:
        """Count one call; yield its number, from 0."""
        number = self.started
        self.started += 1
        ended = "cancelled"
        try:
            yield number
            ended = "finished"
        except VoiceError:
            ended = "failed"
            raise
        finally:
            setattr(self, ended, getattr(self, ended) + 1)


class ScriptedDetector:
    """Calls a frame speech when its energy exceeds ``threshold``, a root mean square in [0, 1] of full scale."""

    def __init__(self, *, threshold: float = 0.02) -> None:
        self.threshold = threshold

    def listen(self) -> ScriptedStream:
        """Return a fresh stream for one device."""
        return ScriptedStream(self.threshold)


class ScriptedStream:
    """Judges each frame by itself."""

    def __init__(self, threshold: float) -> None:
        self._threshold = threshold

    async def detect(self, frame: AudioFrame) -> float:
        """Return 1.0 for a frame louder than the threshold, else 0.0."""
        return 1.0 if loudness(frame.pcm) > self._threshold else 0.0

    def reset(self) -> None:
        """Do nothing: there is no memory."""


class ScriptedRecognizer:
    """Says that ``texts`` were heard, one per call and the last one for ever, ``delay_s`` after each was asked for.

    ``texts`` may be a function of the utterance. Calls whose number, from 0, is in ``failures`` raise ``error`` after the delay.
    """

    def __init__(
        self,
        texts: Sequence[str] | Callable[[Utterance], str] = ("你好",),
        *,
        delay_s: float = 0.0,
        language: str = "zh",
        failures: Collection[int] = (),
        error: type[VoiceError] = RecognitionError,
    ) -> None:
        self.calls = Calls()
        self._texts = texts
        self._delay_s = delay_s
        self._language = language
        self._failures = failures
        self._error = error

    async def transcribe(self, utterance: Utterance) -> Transcript:
        """Return the planned text; raise the planned error."""
        with self.calls.one() as number:
            await asyncio.sleep(self._delay_s)
            if number in self._failures:
                raise self._error(f"planned failure of call {number}")
            return Transcript(
                turn_id=utterance.turn_id,
                text=self._text(number, utterance),
                language=utterance.language or self._language,
            )

    def _text(self, number: int, utterance: Utterance) -> str:
        if callable(self._texts):
            return self._texts(utterance)
        return self._texts[min(number, len(self._texts) - 1)]


class ScriptedCompleter:
    """Answers from a plan: a mapping from question to answer, or a function of the prompt; a character is a token.

    A question the mapping does not know gets ``unknown``. The first token comes after ``first_token_s``, each further one after
    ``per_token_s``. In calls whose number, from 0, is in ``failures`` (None: in all) ``error`` is raised instead of token
    ``fail_at_token``, when that is set.
    """

    def __init__(
        self,
        answers: Mapping[str, str] | Callable[[Prompt], str] | None = None,
        *,
        first_token_s: float = 0.0,
        per_token_s: float = 0.0,
        unknown: str = "我在。",
        model: str = "scripted",
        fail_at_token: int | None = None,
        failures: Collection[int] | None = None,
        error: type[VoiceError] = CompletionError,
    ) -> None:
        self.calls = Calls()
        self.prompts: deque[Prompt] = deque(maxlen=KEPT)
        """The latest prompts asked."""
        self._answers = answers if answers is not None else {}
        self._first_token_s = first_token_s
        self._per_token_s = per_token_s
        self._unknown = unknown
        self._model = model
        self._fail_at_token = fail_at_token
        self._failures = failures
        self._error = error

    async def complete(self, prompt: Prompt) -> AsyncGenerator[CompletionDelta, None]:
        """Yield the planned answer token by token and its usage last; raise the planned error."""
        self.prompts.append(prompt)
        with self.calls.one() as number:
            fail_at = self._fail_at_token if self._failures is None or number in self._failures else None
            answer = self._answer(prompt)[: prompt.max_tokens]
            for position in range(len(answer) + 1):
                if position < len(answer) or position == fail_at:
                    await asyncio.sleep(self._per_token_s if position else self._first_token_s)
                if position == fail_at:
                    raise self._error(f"planned failure of call {number} at token {position}")
                if position < len(answer):
                    yield CompletionDelta(text=answer[position], model=self._model)
            asked = sum(len(message.text) for message in prompt.messages)
            usage = Usage(prompt_tokens=asked, completion_tokens=len(answer))
            yield CompletionDelta(text="", model=self._model, usage=usage)

    def _answer(self, prompt: Prompt) -> str:
        if callable(self._answers):
            return self._answers(prompt)
        return self._answers.get(prompt.question, self._unknown)


class ScriptedSynthesizer:
    """Speaks a sentence as a tone of ``ms_per_character``, in chunks of ``chunk_ms``, the first one ``delay_s`` after it was asked for.

    Calls whose number, from 0, is in ``failures`` raise ``error`` after the delay.
    """

    def __init__(
        self,
        *,
        delay_s: float = 0.0,
        ms_per_character: int = 200,
        chunk_ms: int = 500,
        sample_rate_hz: int = 24_000,
        failures: Collection[int] = (),
        error: type[VoiceError] = SynthesisError,
    ) -> None:
        self.calls = Calls()
        self.sentences: deque[str] = deque(maxlen=KEPT)
        """The latest sentences asked for."""
        self._delay_s = delay_s
        self._ms_per_character = ms_per_character
        self._chunk_ms = chunk_ms
        self._sample_rate_hz = sample_rate_hz
        self._failures = failures
        self._error = error

    async def speak(self, text: str, language: str = "") -> AsyncGenerator[SpeechChunk, None]:  # noqa: ARG002 a tone has no language
        """Yield the tone; nothing for text without a letter or digit; raise the planned error."""
        self.sentences.append(text)
        with self.calls.one() as number:
            await asyncio.sleep(self._delay_s)
            if number in self._failures:
                raise self._error(f"planned failure of call {number}")
            speakable = sum(character.isalnum() for character in text)
            pcm = tone(speakable * self._ms_per_character, self._sample_rate_hz)
            chunk_bytes = self._chunk_ms * self._sample_rate_hz // 1000 * 2
            for start in range(0, len(pcm), chunk_bytes):
                yield SpeechChunk(pcm=pcm[start : start + chunk_bytes], sample_rate_hz=self._sample_rate_hz)


def loudness(pcm: bytes) -> float:
    """Return the root mean square of s16le ``pcm`` in [0, 1] of full scale; 0.0 for none."""
    heard = np.frombuffer(pcm, "<i2", count=len(pcm) // 2).astype(np.float64)
    return float(np.sqrt(np.mean(np.square(heard)))) / _FULL_SCALE if len(heard) else 0.0


def tone(duration_ms: int, sample_rate_hz: int) -> bytes:
    """Return ``duration_ms`` of a 440 Hz tone as s16le mono."""
    seconds = np.arange(duration_ms * sample_rate_hz // 1000) / sample_rate_hz
    return (_TONE_PEAK * np.sin(2 * np.pi * _TONE_HZ * seconds)).astype("<i2").tobytes()
