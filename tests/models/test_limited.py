from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from models.errors import OverloadedError, SynthesisError
from models.limited import LimitedCompleter, LimitedRecognizer, LimitedSynthesizer
from models.limits import FixedLimit, Intake
from models.prompts import Message, Prompt
from models.scripted import ScriptedCompleter, ScriptedRecognizer, ScriptedSynthesizer
from models.speech import Utterance
from tests.virtual_time import run

PROMPT = Prompt(turn_id="t", messages=(Message(role="user", text="你好"),))


class Notes:
    limit = 2

    def __init__(self) -> None:
        self.seen: list[tuple[float, int, bool]] = []

    def observe(self, seconds: float, inflight: int, *, dropped: bool = False) -> None:
        self.seen.append((round(seconds, 3), inflight, dropped))


def intake(limit: object = None, **options: object) -> Intake:
    return Intake("engine", limit or FixedLimit(2), now=asyncio.get_running_loop().time, **options)  # type: ignore[arg-type]  # whatever a test wants


def said(*, is_final: bool = True) -> Utterance:
    return Utterance(turn_id="t", device_id="d", pcm=bytes(3200), start_ms=0, end_ms=100, is_final=is_final)


def test_partial_transcripts_are_refused_before_final_ones() -> None:
    async def scene() -> None:
        recognizer = LimitedRecognizer(ScriptedRecognizer(delay_s=1), intake())
        first = asyncio.create_task(recognizer.transcribe(said()))
        await asyncio.sleep(0.1)
        with pytest.raises(OverloadedError):
            await recognizer.transcribe(said(is_final=False))
        assert (await recognizer.transcribe(said())).text == "你好"
        await first
        assert (await recognizer.transcribe(said(is_final=False))).text == "你好"

    run(scene())


def test_limit_of_a_completer_learns_the_first_word_s_time_and_counts_the_whole_answer() -> None:
    async def scene() -> None:
        notes = Notes()
        door = intake(notes)
        completer = LimitedCompleter(ScriptedCompleter(first_token_s=0.5, per_token_s=1.0), door)
        async with aclosing(completer.complete(PROMPT)) as deltas:
            assert (await anext(deltas)).text == "我"
            await asyncio.sleep(100)
            assert (notes.seen, door.inflight) == ([(0.5, 1, False)], 1)
        assert door.inflight == 0
        assert notes.seen == [(0.5, 1, False)]

    run(scene())


def test_completer_refuses_before_it_asks_the_model() -> None:
    async def scene() -> None:
        model = ScriptedCompleter()
        completer = LimitedCompleter(model, intake(FixedLimit(1)))
        async with aclosing(completer.complete(PROMPT)) as deltas:
            await anext(deltas)
            with pytest.raises(OverloadedError):
                await anext(completer.complete(PROMPT))
        assert model.calls.started == 1

    run(scene())


def test_closed_speech_gives_its_place_back_and_closes_the_voice() -> None:
    async def scene() -> None:
        notes, voice = Notes(), ScriptedSynthesizer(delay_s=0.3)
        door = intake(notes, refusal=SynthesisError)
        synthesizer = LimitedSynthesizer(voice, door)
        async with aclosing(synthesizer.speak("你好你好你好")) as speech:
            await anext(speech)
        assert (door.inflight, voice.calls.running, notes.seen) == (0, 0, [(0.3, 1, False)])

    run(scene())


def test_call_cancelled_before_its_first_word_teaches_nothing() -> None:
    async def scene() -> None:
        notes = Notes()
        door = intake(notes)
        synthesizer = LimitedSynthesizer(ScriptedSynthesizer(delay_s=5), door)

        async def speak() -> None:
            async with aclosing(synthesizer.speak("你好")) as speech:
                await anext(speech)

        speaking = asyncio.create_task(speak())
        await asyncio.sleep(1)
        speaking.cancel()
        await asyncio.wait([speaking])
        assert (door.inflight, notes.seen) == (0, [])

    run(scene())
