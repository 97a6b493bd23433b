from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from edge.brain.ears import Ears
from edge.brain.inbox import Errand
from edge.brain.listener import Listener, Outlets, Question, Words, words_of
from edge.brain.observer import DeafObserver
from edge.brain.segmenter import Segmenter
from models.errors import RecognitionError
from models.scripted import ScriptedDetector, ScriptedRecognizer
from models.speech import Transcript, Utterance
from tests.edge.brain.talking import packets
from tests.virtual_time import run


class Clocked(DeafObserver):
    """Keeps how long after the last speech each text was there."""

    def __init__(self) -> None:
        self.text_s: list[float] = []

    def stage_seconds(self, stage: str, seconds: float) -> None:
        if stage == "text":
            self.text_s.append(seconds)


class Scene:
    """A listener whose session does what is noted after each packet."""

    def __init__(self, group: asyncio.TaskGroup, recognizer: ScriptedRecognizer, finished: float | None) -> None:
        self.questions: list[Question] = []
        self.words: list[Words] = []
        self.noted: list[Errand] = []
        self.is_heard = True
        self.observer = Clocked()
        self.finished_with = finished
        self.segmenter = Segmenter("d")
        self.segmenter.start("auto")
        self.listener = Listener(
            Ears(ScriptedDetector(), DeafObserver()),
            self.segmenter,
            recognizer,
            group,
            Outlets(self._asked, self._worded, lambda: self.is_heard, self.noted.append),
            turn_detector=None if finished is None else self,
            partial_ms=600,
            observer=self.observer,
            now=asyncio.get_running_loop().time,
        )

    async def finished(self, utterance: Utterance) -> float:
        assert self.finished_with is not None
        return self.finished_with

    async def _asked(self, question: Question) -> None:
        self.questions.append(question)

    async def _worded(self, words: Words) -> None:
        self.words.append(words)

    async def says(self, spoken: list[bytes], *, wants_words: bool = True) -> None:
        for packet in spoken:
            await self.listener.heed(await self.listener.hear(packet, wants_words=wants_words))
            await asyncio.sleep(0.06)
            while self.noted:
                await self.noted.pop(0)()


@asynccontextmanager
async def listening(
    recognizer: ScriptedRecognizer | None = None, finished: float | None = None
) -> AsyncGenerator[Scene, None]:
    async with asyncio.TaskGroup() as group:
        on = Scene(group, recognizer or ScriptedRecognizer(), finished)
        yield on
        await on.listener.forget()


def test_words_come_while_somebody_speaks_in_the_pause_and_then_the_question() -> None:
    async def scene() -> None:
        async with listening() as on:
            await on.says(packets(1440))
            assert [words.voiced_ms for words in on.words] == [600, 1200, 1500]
            (question,) = on.questions
            assert {words.turn_id for words in on.words} == {question.utterance.turn_id}
            assert question.wait_ms == 600
            assert question.recognizer.known(question.utterance) is not None

    run(scene())


def test_text_is_timed_from_the_last_speech() -> None:
    async def scene() -> None:
        async with listening(ScriptedRecognizer(delay_s=0.1)) as on:
            await on.says(packets(1440), wants_words=False)
            assert on.observer.text_s == [pytest.approx(0.24 + 0.12)], "noticed with the packet after it"

    run(scene())


def test_words_nobody_wants_are_not_asked_for() -> None:
    async def scene() -> None:
        recognizer = ScriptedRecognizer()
        async with listening(recognizer) as on:
            await on.says(packets(1440), wants_words=False)
            assert (len(on.words), recognizer.calls.started) == (1, 1)

    run(scene())


def test_question_nobody_may_ask_is_not_heard() -> None:
    async def scene() -> None:
        async with listening() as on:
            on.is_heard = False
            await on.says(packets(600), wants_words=False)
            assert on.questions == on.words == []

    run(scene())


@pytest.mark.parametrize(("finished", "wait_ms"), [(0.9, 240), (0.5, 240), (0.4, 1500), (None, 600)])
def test_model_says_when_a_pause_is_the_end(finished: float | None, wait_ms: int) -> None:
    async def scene() -> None:
        async with listening(finished=finished) as on:
            await on.says(packets(600, 2400))
            assert [question.wait_ms for question in on.questions] == [wait_ms]

    run(scene())


def test_forgotten_question_is_never_asked() -> None:
    async def scene() -> None:
        recognizer = ScriptedRecognizer(delay_s=9)
        async with listening(recognizer, finished=0.1) as on:
            await on.says(packets(900, 300))
            assert recognizer.calls.running == 1
            await on.listener.forget()
            on.listener.forget_sound()
            assert recognizer.calls.running == 0
            on.segmenter.start("auto")
            await on.says(packets(0, 3000))
            assert on.questions == on.words == []

    run(scene())


def test_failed_transcript_has_no_words() -> None:
    assert words_of(RecognitionError("x")) == ""
    assert words_of(Transcript(turn_id="t", text="好")) == "好"
