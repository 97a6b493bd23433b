from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from models.errors import CompletionError, DeadlineError, RecognitionError, SynthesisError
from models.prompts import CompletionDelta, Message, Prompt
from models.scripted import (
    Calls,
    ScriptedCompleter,
    ScriptedDetector,
    ScriptedRecognizer,
    ScriptedSynthesizer,
    loudness,
    tone,
)
from models.speech import AudioFrame, SpeechChunk, Utterance
from tests.virtual_time import run

SAID = Utterance(turn_id="t1", device_id="d", pcm=b"", start_ms=0, end_ms=0)


def asking(question: str, max_tokens: int = 256) -> Prompt:
    return Prompt(turn_id="t1", messages=(Message(role="user", text=question),), max_tokens=max_tokens)


async def all_of(completer: ScriptedCompleter, prompt: Prompt) -> list[CompletionDelta]:
    async with aclosing(completer.complete(prompt)) as deltas:
        return [delta async for delta in deltas]


async def spoken(synthesizer: ScriptedSynthesizer, text: str) -> list[SpeechChunk]:
    async with aclosing(synthesizer.speak(text)) as chunks:
        return [chunk async for chunk in chunks]


def elapsed_s() -> float:
    return asyncio.get_running_loop().time()


@pytest.mark.parametrize(
    ("pcm", "expected"),
    [(b"", 0.0), (b"\x00", 0.0), (bytes(4), 0.0), (b"\x00\x40\x00\xc0", 0.5), (b"\x00\x80" * 3, 1.0)],
)
def test_loudness_is_the_root_mean_square_of_full_scale(pcm: bytes, expected: float):
    assert loudness(pcm) == expected


@pytest.mark.parametrize(("pcm", "speech"), [(tone(60, 16_000), 1.0), (bytes(1920), 0.0), (b"", 0.0)])
def test_the_detector_judges_a_frame_by_its_energy(pcm: bytes, speech: float):
    stream = ScriptedDetector().listen()
    stream.reset()
    assert run(stream.detect(AudioFrame(pcm=pcm, start_ms=0))) == speech


def test_the_recognizer_says_the_planned_texts_after_the_delay_and_then_the_last_one():
    recognizer = ScriptedRecognizer(["one", "two"], delay_s=0.5, language="en")

    async def work() -> None:
        heard = [await recognizer.transcribe(SAID) for _ in range(3)]
        assert [transcript.text for transcript in heard] == ["one", "two", "two"]
        assert {(transcript.turn_id, transcript.language) for transcript in heard} == {("t1", "en")}
        assert elapsed_s() == 1.5

    run(work())
    assert recognizer.calls == Calls(started=3, finished=3)


def test_the_recognizer_may_ask_a_function():
    recognizer = ScriptedRecognizer(lambda utterance: utterance.turn_id)
    assert run(recognizer.transcribe(SAID)).text == "t1"


def test_the_recognizer_fails_in_the_planned_calls_only():
    recognizer = ScriptedRecognizer(failures={1})

    async def work() -> None:
        await recognizer.transcribe(SAID)
        with pytest.raises(RecognitionError, match="call 1"):
            await recognizer.transcribe(SAID)
        await recognizer.transcribe(SAID)

    run(work())
    assert recognizer.calls == Calls(started=3, finished=2, failed=1)


def test_a_cancelled_recognizer_counts_it():
    recognizer = ScriptedRecognizer(delay_s=10)

    async def work() -> None:
        task = asyncio.create_task(recognizer.transcribe(SAID))
        await asyncio.sleep(1)
        assert recognizer.calls.running == 1
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(work())
    assert recognizer.calls == Calls(started=1, cancelled=1)
    assert recognizer.calls.running == 0


@pytest.mark.parametrize(
    ("answers", "question", "answer"),
    [
        ({"几点了？": "三点。"}, "几点了？", "三点。"),
        ({"几点了？": "三点。"}, "你好", "我在。"),
        (None, "你好", "我在。"),
        (lambda prompt: prompt.question * 2, "好", "好好"),
        ({"": ""}, "", ""),
    ],
)
def test_the_completer_answers_as_planned_and_counts_tokens_last(answers, question: str, answer: str):
    completer = ScriptedCompleter(answers)
    deltas = run(all_of(completer, asking(question)))
    assert "".join(delta.text for delta in deltas) == answer
    assert [delta.usage is not None for delta in deltas] == [False] * len(answer) + [True]
    assert deltas[-1].usage is not None
    assert deltas[-1].usage.completion_tokens == len(answer)
    assert list(completer.prompts) == [asking(question)]


def test_the_completer_stops_at_the_prompts_limit():
    deltas = run(all_of(ScriptedCompleter(unknown="一二三四"), asking("", max_tokens=2)))
    assert "".join(delta.text for delta in deltas) == "一二"


def test_the_completer_keeps_its_pace():
    async def work() -> list[float]:
        completer = ScriptedCompleter(unknown="一二三", first_token_s=1.0, per_token_s=0.25)
        async with aclosing(completer.complete(asking("?"))) as deltas:
            return [elapsed_s() async for _ in deltas]

    assert run(work()) == [1.0, 1.25, 1.5, 1.5]


@pytest.mark.parametrize(("fail_at", "before"), [(0, ""), (1, "一"), (3, "一二三")])
def test_the_completer_fails_at_the_planned_token(fail_at: int, before: str):
    completer = ScriptedCompleter(unknown="一二三", fail_at_token=fail_at, error=DeadlineError)

    heard = ""

    async def work() -> None:
        nonlocal heard
        async with aclosing(completer.complete(asking("?"))) as deltas:
            async for delta in deltas:
                heard += delta.text

    with pytest.raises(DeadlineError, match=f"token {fail_at}"):
        run(work())
    assert heard == before
    assert completer.calls == Calls(started=1, failed=1)


def test_the_completer_fails_in_the_planned_calls_only():
    completer = ScriptedCompleter(fail_at_token=0, failures={0})

    async def work() -> None:
        with pytest.raises(CompletionError):
            await all_of(completer, asking("?"))
        assert await all_of(completer, asking("?"))

    run(work())
    assert completer.calls == Calls(started=2, failed=1, finished=1)


def test_a_closed_completer_counts_as_cancelled():
    completer = ScriptedCompleter(unknown="一二三")

    async def work() -> None:
        async with aclosing(completer.complete(asking("?"))) as deltas:
            await anext(deltas)
            assert completer.calls.running == 1

    run(work())
    assert completer.calls == Calls(started=1, cancelled=1)


def test_the_synthesizer_speaks_in_proportion_to_the_text():
    synthesizer = ScriptedSynthesizer(delay_s=0.25, ms_per_character=200, chunk_ms=500)

    async def work() -> None:
        chunks = await spoken(synthesizer, "你好，朋友。")
        assert [len(chunk.pcm) / 2 / chunk.sample_rate_hz for chunk in chunks] == [0.5, 0.3]
        assert elapsed_s() == 0.25

    run(work())
    assert list(synthesizer.sentences) == ["你好，朋友。"]
    assert synthesizer.calls == Calls(started=1, finished=1)


def test_the_synthesizer_says_nothing_for_text_without_anything_speakable():
    assert run(spoken(ScriptedSynthesizer(), "……！")) == []


def test_the_synthesizer_fails_in_the_planned_calls_only():
    synthesizer = ScriptedSynthesizer(failures=[1])

    async def work() -> None:
        assert await spoken(synthesizer, "好")
        with pytest.raises(SynthesisError):
            await spoken(synthesizer, "好")

    run(work())
    assert synthesizer.calls == Calls(started=2, finished=1, failed=1)


def test_a_tone_is_loud_enough_to_be_speech():
    assert loudness(tone(1000, 24_000)) == pytest.approx(8000 / 32768 / 2**0.5, rel=0.01)
    assert len(tone(60, 16_000)) == 1920
