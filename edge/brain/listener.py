"""What a person says to one device: packets in, questions out, and the words so far while somebody speaks.

The segmenter says where speech pauses and ends. In a pause the words are transcribed already and a model may be asked whether it is
the end; what they find out comes back through the session's inbox, so that everything here happens in one order.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial

from edge.brain.asides import Aside
from edge.brain.early import EarlyRecognizer
from edge.brain.ears import Ears
from edge.brain.inbox import Errand
from edge.brain.observer import BrainObserver
from edge.brain.segmenter import Endpoint, Segmenter, SegmentEvent, SilenceBegan, VoiceResumed
from models.engines import Recognizer, TurnDetector
from models.speech import Transcript, Utterance


@dataclass(frozen=True, slots=True)
class Question:
    """An utterance that is over, and what transcribes it."""

    utterance: Utterance
    wait_ms: float
    """Silence in audio time between the last speech and its end."""
    recognizer: EarlyRecognizer
    over_s: float
    """When it was over."""


@dataclass(frozen=True, slots=True)
class Words:
    """What the beginning of an utterance, or all of it, was transcribed to before its end was sure."""

    turn_id: str
    text: str
    """Empty for nothing intelligible, also when transcribing failed."""
    voiced_ms: float
    """Speech in it."""


@dataclass(frozen=True, slots=True)
class Outlets:
    """What the listener tells, and asks, its session."""

    asked: Callable[[Question], Awaitable[None]]
    worded: Callable[[Words], Awaitable[None]]
    is_heard: Callable[[], bool]
    """Whether what is said now may become a question."""
    note: Callable[[Errand], None]


class Listener:
    """One session's ears from packet to question; its tasks belong to the session's ``group``."""

    def __init__(
        self,
        ears: Ears,
        segmenter: Segmenter,
        recognizer: Recognizer,
        group: asyncio.TaskGroup,
        outlets: Outlets,
        *,
        turn_detector: TurnDetector | None,
        partial_ms: int,
        observer: BrainObserver,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ears = ears
        self._segmenter = segmenter
        self._recognizer = recognizer
        self._group = group
        self._out = outlets
        self._turn_detector = turn_detector
        self._partial_ms = partial_ms
        self._observer = observer
        self._now = now
        self._early = EarlyRecognizer(recognizer, group)
        self._partials = Aside("asr", group, outlets.note, observer.error)
        self._turn_ends = Aside("turn-end", group, outlets.note, observer.error)
        self._asked_at_ms = 0.0
        """Speech of the utterance being spoken when its words were asked for last."""

    async def hear(self, packet: bytes, *, wants_words: bool) -> Sequence[SegmentEvent]:
        """Take a packet; return what is to be given to ``heed`` now. Words are asked for while they are wanted and somebody speaks."""
        events = self._segmenter.feed(*await self._ears.hear(packet))
        voiced_ms = self._segmenter.voiced_ms
        if not voiced_ms:
            self._asked_at_ms = 0.0
        elif wants_words and self._partial_ms and voiced_ms - self._asked_at_ms >= self._partial_ms:
            self._ask_for_words(voiced_ms)
        return events

    async def heed(self, events: Sequence[SegmentEvent]) -> None:
        """Act on what the segmenter said."""
        for event in events:
            if not self._out.is_heard():
                continue
            match event:
                case SilenceBegan():
                    await self._pause(event.utterance)
                case VoiceResumed():
                    self._turn_ends.cancel()
                    await self._early.drop()
                case Endpoint():
                    await self._end(event)
                case _:
                    pass

    async def forget(self) -> None:
        """Drop the question begun and all that finds out about it; nothing of that runs any more when this returns."""
        await self._early.drop()
        await self._partials.drop()
        await self._turn_ends.drop()

    def forget_sound(self) -> None:
        """Forget the sound too, and stop listening."""
        self._ears.forget()
        self._segmenter.forget()

    async def _pause(self, utterance: Utterance) -> None:
        """Find out what was said, and whether that was all, while more may come."""
        self._partials.cancel()
        early, voiced_ms = self._early, self._segmenter.voiced_ms
        spoke_s = self._now() - self._segmenter.silence_ms / 1000
        errand = partial(self._told_early, early, utterance, voiced_ms, spoke_s)
        await early.begin(utterance, partial(self._out.note, errand))
        detector = self._turn_detector
        if detector is not None and self._segmenter.rules.end_by == "model":
            self._turn_ends.ask(partial(detector.finished, utterance), partial(self._told_of_end, utterance))

    async def _told_early(self, early: EarlyRecognizer, utterance: Utterance, voiced_ms: float, spoke_s: float) -> None:
        result = early.known(utterance)
        if isinstance(result, Transcript):
            self._observer.stage_seconds("text", self._now() - spoke_s)
        if result is not None and early is self._early:
            await self._out.worded(Words(utterance.turn_id, words_of(result), voiced_ms))

    async def _told_of_end(self, utterance: Utterance, probability: float) -> None:
        if utterance is not self._segmenter.pause_after:
            return
        if probability >= self._segmenter.rules.turn_threshold:
            await self.heed(self._segmenter.conclude())
        else:
            self._segmenter.wait_longer()

    async def _end(self, event: Endpoint) -> None:
        self._ears.forget()
        self._partials.cancel()
        self._turn_ends.cancel()
        early, self._early = self._early, EarlyRecognizer(self._recognizer, self._group)
        await self._out.asked(Question(event.utterance, event.wait_ms, early, self._now()))

    def _ask_for_words(self, voiced_ms: float) -> None:
        """Ask for the words so far, unless they are being asked for."""
        so_far = None if self._partials.is_asking else self._segmenter.so_far()
        if so_far is not None:
            self._asked_at_ms = voiced_ms
            words = partial(self._recognizer.transcribe, so_far)
            self._partials.ask(words, partial(self._told_words, voiced_ms, self._now()))

    async def _told_words(self, voiced_ms: float, asked_s: float, words: Transcript) -> None:
        self._observer.stage_seconds("asr-partial", self._now() - asked_s)
        if words.turn_id == self._segmenter.turn_id:
            await self._out.worded(Words(words.turn_id, words.text, voiced_ms))


def words_of(result: Transcript | Exception) -> str:
    """Return the text of a transcript, "" of a failure."""
    return result.text if isinstance(result, Transcript) else ""
