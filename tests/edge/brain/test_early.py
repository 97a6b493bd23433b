from __future__ import annotations

import asyncio

import pytest

from edge.brain.early import EarlyRecognizer
from models.errors import RecognitionError
from models.scripted import ScriptedRecognizer
from models.speech import Transcript, Utterance
from tests.virtual_time import run


def utterance(turn_id: str = "t") -> Utterance:
    return Utterance(turn_id=turn_id, device_id="d", pcm=b"", start_ms=0, end_ms=0)


def test_work_begun_early_is_used() -> None:
    async def scene() -> float:
        recognizer = ScriptedRecognizer(delay_s=0.5)
        async with asyncio.TaskGroup() as group:
            early = EarlyRecognizer(recognizer, group)
            said = utterance()
            await early.begin(said)
            await asyncio.sleep(0.4)
            assert (await early.transcribe(said)).text == "你好"
        assert recognizer.calls.started == 1
        return asyncio.get_running_loop().time()

    assert run(scene()) == pytest.approx(0.5)


def test_work_for_another_utterance_is_stopped_and_done_anew() -> None:
    async def scene() -> None:
        recognizer = ScriptedRecognizer(delay_s=0.5)
        async with asyncio.TaskGroup() as group:
            early = EarlyRecognizer(recognizer, group)
            await early.begin(utterance("a"))
            await asyncio.sleep(0.1)
            assert (await early.transcribe(utterance("b"))).turn_id == "b"
        assert (recognizer.calls.cancelled, recognizer.calls.finished) == (1, 1)

    run(scene())


def test_early_failure_is_raised_only_when_asked_for() -> None:
    class Broken:
        async def transcribe(self, utterance: Utterance) -> Transcript:
            raise ValueError

    async def scene() -> None:
        async with asyncio.TaskGroup() as group:
            early = EarlyRecognizer(Broken(), group)
            said = utterance()
            await early.begin(said)
            await asyncio.sleep(1)
            with pytest.raises(RecognitionError, match="ValueError"):
                await early.transcribe(said)

    run(scene())


def test_cancelled_transcribe_stops_the_early_work() -> None:
    async def scene() -> None:
        recognizer = ScriptedRecognizer(delay_s=5)
        async with asyncio.TaskGroup() as group:
            early = EarlyRecognizer(recognizer, group)
            said = utterance()
            await early.begin(said)
            waiting = group.create_task(early.transcribe(said))
            await asyncio.sleep(1)
            waiting.cancel()
            await asyncio.wait([waiting])
            assert recognizer.calls.running == 0
            assert recognizer.calls.cancelled == 1

    run(scene())


def test_dropping_twice_is_harmless() -> None:
    async def scene() -> None:
        recognizer = ScriptedRecognizer(delay_s=5)
        async with asyncio.TaskGroup() as group:
            early = EarlyRecognizer(recognizer, group)
            await early.begin(utterance())
            await early.drop()
            await early.drop()
        assert recognizer.calls.running == 0

    run(scene())


def test_outcome_is_known_once_it_is_there_and_for_this_utterance_only() -> None:
    async def scene() -> None:
        async with asyncio.TaskGroup() as group:
            early = EarlyRecognizer(ScriptedRecognizer(delay_s=0.5, failures=[1]), group)
            done: list[str] = []
            first, second = utterance("a"), utterance("b")
            await early.begin(first, lambda: done.append("begun"))
            await early.join(first, lambda: done.append("joined"))
            assert early.known(first) is None
            await asyncio.sleep(1)
            assert done == ["begun", "joined"]
            assert isinstance(early.known(first), Transcript)
            assert early.known(second) is None
            await early.join(second, lambda: done.append("failed"))
            await asyncio.sleep(1)
            assert isinstance(early.known(second), RecognitionError)
            await early.drop()
            assert early.known(second) is None
            assert done[-1] == "failed"

    run(scene())
