from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncGenerator
from contextlib import suppress

import pytest

from coordinator.cache.answers import AnswerCache
from coordinator.cache.ladder import Ladder
from coordinator.cache.memory import MemoryTier
from edge.brain.packets import SpeechMemory, SpeechPackets
from edge.brain.pipeline import Event, Pipeline
from edge.brain.sentences import Sentence
from edge.brain.speaker import Speaker
from edge.brain.spoken_answers import SpokenAnswers
from models.engines import Completer
from models.errors import CompletionError, RecognitionError, StageError, SynthesisError
from models.prompts import CompletionDelta, Message, Prompt
from models.scripted import ScriptedCompleter, ScriptedRecognizer, ScriptedSynthesizer
from models.speech import Transcript, Utterance
from tests.virtual_time import run

SAID = Utterance(turn_id="t", device_id="d", pcm=bytes(32000), start_ms=0, end_ms=1000)


def ask(transcript: Transcript) -> Prompt:
    return Prompt(turn_id="t", messages=(Message(role="user", text=transcript.text),), language=transcript.language)


def golden(event: Event | CompletionDelta | SynthesisError) -> str:
    match event:
        case Transcript():
            return f"transcript {event.text}"
        case Sentence():
            return f"sentence {event.text}"
        case SpeechPackets():
            return "speech"
        case SynthesisError():
            return "left out"
        case _:
            return "delta"


class Listener:
    def __init__(self) -> None:
        self.emitted: list[tuple[str, float]] = []
        self.observed: list[str] = []

    async def emit(self, event: Event) -> None:
        self.emitted.append((golden(event), round(asyncio.get_running_loop().time(), 3)))

    def observe(self, event: Event | CompletionDelta | SynthesisError) -> None:
        self.observed.append(golden(event))

    @property
    def words(self) -> list[str]:
        return [word for word, _ in self.emitted]


async def answer(pipeline: Pipeline) -> Listener:
    listener = Listener()
    await pipeline.answer(SAID, ask, listener.emit, listener.observe)
    return listener


def test_answer_is_emitted_in_order_and_observed() -> None:
    pipeline = Pipeline(
        ScriptedRecognizer(["你好"]),
        ScriptedCompleter({"你好": "好的。我在这里呢。"}),
        Speaker(ScriptedSynthesizer(ms_per_character=10)),
    )
    listener = run(answer(pipeline))
    assert listener.words == ["transcript 你好", "sentence 好的。", "speech", "sentence 我在这里呢。", "speech"]
    assert [word for word in listener.observed if word != "delta"] == listener.words
    assert listener.observed.count("delta") == 10


def test_nothing_heard_is_emitted_and_nothing_asked() -> None:
    completer = ScriptedCompleter()
    listener = run(answer(Pipeline(ScriptedRecognizer([""]), completer, Speaker(ScriptedSynthesizer()))))
    assert listener.words == ["transcript "]
    assert completer.calls.started == 0


def test_synthesis_overlaps_generation() -> None:
    completer = ScriptedCompleter(
        unknown="一二三四五六。甲二三四五六。乙二三四五六。", first_token_s=0.5, per_token_s=0.1
    )
    synthesizer = ScriptedSynthesizer(delay_s=0.7, chunk_ms=60_000)
    listener = run(answer(Pipeline(ScriptedRecognizer(delay_s=0.2), completer, Speaker(synthesizer))))
    times = sorted({at for word, at in listener.emitted if word == "speech"})
    # The first sentence is written at 1.3 and spoken at 2.0 with nothing written meanwhile; then the second is written by 2.7 and spoken
    # by 3.4 while the third is written.
    assert times == [2.0, 3.4, 4.1]


@pytest.mark.parametrize(
    ("failures", "words"),
    [
        ([0], ["甲甲。", "乙乙乙。", "speech", "丙丙丙。", "speech"]),
        ([1], ["甲甲。", "speech", "乙乙乙。", "丙丙丙。", "speech"]),
        ([0, 2], ["甲甲。", "乙乙乙。", "speech", "丙丙丙。"]),
    ],
)
def test_sentence_that_cannot_be_spoken_is_left_out_and_the_answer_goes_on(
    failures: list[int], words: list[str]
) -> None:
    synthesizer = ScriptedSynthesizer(delay_s=0.1, ms_per_character=10, failures=failures)
    completer = ScriptedCompleter(unknown="甲甲。\n乙乙乙。\n丙丙丙。")
    listener = run(answer(Pipeline(ScriptedRecognizer(), completer, Speaker(synthesizer))))
    assert [word.removeprefix("sentence ") for word in listener.words[1:]] == words
    assert listener.observed.count("left out") == len(failures)


def test_answer_of_which_nothing_can_be_spoken_fails() -> None:
    synthesizer = ScriptedSynthesizer(failures=range(9))
    with pytest.raises(SynthesisError):
        run(answer(Pipeline(ScriptedRecognizer(), ScriptedCompleter(unknown="甲甲。\n乙乙乙。"), Speaker(synthesizer))))
    assert synthesizer.calls.started == 2


def test_generation_does_not_wait_for_a_slow_device() -> None:
    completer = ScriptedCompleter(unknown="一二三四五六。" * 20)
    finished_at = []

    async def scene() -> None:
        listener = Listener()

        async def emit(event: Event) -> None:
            await asyncio.sleep(10)
            finished_at.append(completer.calls.running)

        await Pipeline(ScriptedRecognizer(), completer, Speaker(ScriptedSynthesizer())).answer(
            SAID, ask, emit, listener.observe
        )

    run(scene())
    assert finished_at[2] == 0  # transcript, sentence, first speech


class Rude:
    """Engines that break in ways no engine should."""

    async def transcribe(self, utterance: Utterance) -> Transcript:
        raise ZeroDivisionError

    async def complete(self, prompt: Prompt):
        raise KeyError("secret")
        yield

    async def speak(self, text: str, language: str = ""):
        raise OSError
        yield


@pytest.mark.parametrize(
    ("pipeline", "error", "emitted"),
    [
        (
            Pipeline(ScriptedRecognizer(failures=[0]), ScriptedCompleter(), Speaker(ScriptedSynthesizer())),
            RecognitionError,
            0,
        ),
        (Pipeline(Rude(), ScriptedCompleter(), Speaker(ScriptedSynthesizer())), RecognitionError, 0),
        (
            Pipeline(ScriptedRecognizer(), ScriptedCompleter(fail_at_token=0), Speaker(ScriptedSynthesizer())),
            CompletionError,
            1,
        ),
        (
            Pipeline(
                ScriptedRecognizer(),
                ScriptedCompleter(unknown="好的。我在这里呢。", fail_at_token=5),
                Speaker(ScriptedSynthesizer(ms_per_character=10)),
            ),
            CompletionError,
            3,
        ),
        (Pipeline(ScriptedRecognizer(), Rude(), Speaker(ScriptedSynthesizer())), CompletionError, 1),
        (
            Pipeline(ScriptedRecognizer(), ScriptedCompleter(), Speaker(ScriptedSynthesizer(failures=[0]))),
            SynthesisError,
            2,
        ),
        (Pipeline(ScriptedRecognizer(), ScriptedCompleter(), Speaker(Rude())), SynthesisError, 2),
    ],
)
def test_failure_is_blamed_on_its_stage_and_leaves_nothing_running(
    pipeline: Pipeline, error: type[StageError], emitted: int
) -> None:
    async def scene() -> None:
        listener = Listener()
        with pytest.raises(StageError) as caught:
            await pipeline.answer(SAID, ask, listener.emit, listener.observe)
        assert type(caught.value) is error
        assert "secret" not in str(caught.value)
        assert len(listener.emitted) == emitted
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(scene())


@pytest.mark.parametrize("at_s", [0.0, 0.1, 0.25, 0.5, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 3.2, 4.0])
def test_cancelling_at_any_time_closes_every_engine_before_it_returns(at_s: float) -> None:
    async def scene() -> None:
        recognizer = ScriptedRecognizer(delay_s=0.2)
        completer = ScriptedCompleter(
            unknown="一二三四五六。甲二三四五六。乙二三四五六。", first_token_s=0.5, per_token_s=0.1
        )
        synthesizer = ScriptedSynthesizer(delay_s=0.7)
        listener = Listener()
        pipeline = Pipeline(recognizer, completer, Speaker(synthesizer))
        task = asyncio.create_task(pipeline.answer(SAID, ask, listener.emit, listener.observe))
        await asyncio.sleep(at_s)
        task.cancel()
        await asyncio.wait([task])
        assert recognizer.calls.running + completer.calls.running + synthesizer.calls.running == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(scene())


def test_importing_the_spine_loads_no_heavy_library() -> None:
    heavy = ["opuslib_next", "onnxruntime", "nats", "redis", "minio", "websockets", "llama_cpp", "ctranslate2", "soxr"]
    check = f"import sys, edge.brain.pipeline; sys.exit(any(name in sys.modules for name in {heavy}))"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0


# Spoken before


def remembering(completer: Completer, synthesizer: ScriptedSynthesizer, question: str) -> Pipeline:
    ladder, memory = Ladder(MemoryTier()), Ladder(MemoryTier())
    speaker = Speaker(synthesizer, memory=SpeechMemory(memory))
    spoken = SpokenAnswers(ladder, AnswerCache(ladder), voice="v", qualities=speaker.qualities)
    return Pipeline(ScriptedRecognizer([question]), completer, speaker, spoken)


class Keeping:
    """A completer whose answers are remembered, or not."""

    def __init__(self, *, is_kept: bool = True, fails: bool = False) -> None:
        self.calls, self._is_kept, self._fails = 0, is_kept, fails

    async def complete(self, _prompt: Prompt) -> AsyncGenerator[CompletionDelta, None]:
        self.calls += 1
        yield CompletionDelta(text="一百度。在海边。", model="m")
        if self._fails:
            raise CompletionError("broken off")
        yield CompletionDelta(text="", is_kept=self._is_kept)


def test_an_answer_that_was_spoken_is_sent_again_without_model_or_voice() -> None:
    async def scenario() -> None:
        completer, synthesizer = Keeping(), ScriptedSynthesizer(ms_per_character=10)
        pipeline = remembering(completer, synthesizer, "水的沸点是多少度")
        first, calls = await answer(pipeline), synthesizer.calls.started
        second = await answer(pipeline)
        assert (completer.calls, synthesizer.calls.started) == (1, calls)
        assert [word for word in second.words if word != "speech"] == [word for word in first.words if word != "speech"]
        assert second.words.count("speech") == 2
        assert len({at_s for _, at_s in second.emitted}) == 1, "nothing is waited for"
        assert second.observed.count("delta") == 2

    run(scenario())


@pytest.mark.parametrize(
    ("completer", "synthesizer", "question"),
    [
        (Keeping(is_kept=False), ScriptedSynthesizer(), "水的沸点是多少度"),
        (Keeping(fails=True), ScriptedSynthesizer(), "水的沸点是多少度"),
        (Keeping(), ScriptedSynthesizer(failures=[1]), "水的沸点是多少度"),
        (Keeping(), ScriptedSynthesizer(), "现在几点了"),
    ],
    ids=["not-kept", "broken-off", "left-out", "not-memorable"],
)
def test_what_was_not_whole_or_is_not_everybodys_is_answered_anew(
    completer: Keeping, synthesizer: ScriptedSynthesizer, question: str
) -> None:
    async def scenario() -> None:
        pipeline = remembering(completer, synthesizer, question)
        for _ in range(2):
            with suppress(CompletionError):
                await answer(pipeline)
        assert completer.calls == 2

    run(scenario())


def test_an_interrupted_answer_is_not_kept() -> None:
    async def scenario() -> None:
        completer = Keeping()
        pipeline = remembering(completer, ScriptedSynthesizer(ms_per_character=10, delay_s=1.0), "水的沸点是多少度")
        task = asyncio.create_task(answer(pipeline))
        await asyncio.sleep(1.2)
        task.cancel()
        await asyncio.wait([task])
        await answer(pipeline)
        assert completer.calls == 2

    run(scenario())
