from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.cache.ladder import Ladder
from coordinator.cache.memory import MemoryTier
from edge.brain.opus import OpusDecoder
from edge.brain.packets import SpeechMemory
from edge.brain.quality import LEVELS, QualityController
from edge.brain.speaker import FIRST_PIECE_PACKETS, PIECE_PACKETS, Speaker
from models.errors import SynthesisError, VoiceError
from models.scripted import ScriptedSynthesizer, loudness, tone
from models.slots import Slots
from models.speech import SpeechChunk
from tests import real_time
from tests.virtual_time import run

SENTENCE = "今天天气很好"
"""Six characters: 1.2 s at 200 ms each, 20 packets."""


async def spoken(speaker: Speaker, text: str = SENTENCE, language: str = "zh") -> list[bytes]:
    async with aclosing(speaker.speak(text, language)) as pieces:
        return [packet async for piece in pieces for packet in piece.packets]


async def sizes(speaker: Speaker, text: str = SENTENCE) -> list[int]:
    async with aclosing(speaker.speak(text)) as pieces:
        return [len(piece.packets) async for piece in pieces]


def nothing_runs(speaker: Speaker, *synthesizers: ScriptedSynthesizer) -> bool:
    left = asyncio.all_tasks() - {asyncio.current_task()}
    return not left and not speaker.rendering and not any(voice.calls.running for voice in synthesizers)


def test_sentence_becomes_packets_the_first_few_at_once() -> None:
    speaker = Speaker(ScriptedSynthesizer(chunk_ms=10_000))
    assert run(sizes(speaker)) == [FIRST_PIECE_PACKETS, PIECE_PACKETS, 20 - FIRST_PIECE_PACKETS - PIECE_PACKETS]


@pytest.mark.parametrize("rate_hz", [16_000, 22_050, 24_000])
def test_packets_sound_as_long_and_as_loud_as_the_voice(rate_hz: int) -> None:
    speaker = Speaker(ScriptedSynthesizer(sample_rate_hz=rate_hz))
    packets = run(spoken(speaker, "六个字的句子。"))
    decoder = OpusDecoder(24_000)
    heard = b"".join(map(decoder.decode, packets))
    assert 1.2 <= len(heard) / 48_000 <= 1.32
    assert loudness(heard) == pytest.approx(loudness(tone(1200, 24_000)), rel=0.1)


def test_text_without_anything_to_say_yields_nothing_also_from_the_cache() -> None:
    heard: list[str] = []
    speaker = Speaker(ScriptedSynthesizer(), observe=heard.append)
    assert run(spoken(speaker, "。")) == run(spoken(speaker, "。")) == []
    assert heard == ["miss", "hit"]


def test_known_sentence_costs_no_synthesis_and_is_the_same_packets() -> None:
    synthesizer, heard = ScriptedSynthesizer(delay_s=1), list[str]()
    speaker = Speaker(synthesizer, observe=heard.append)

    async def scene() -> None:
        first = await spoken(speaker)
        began_s = asyncio.get_running_loop().time()
        assert await spoken(speaker) == first
        assert asyncio.get_running_loop().time() == began_s
        assert await spoken(speaker, SENTENCE, "en") == first

    run(scene())
    assert heard == ["miss", "hit", "miss"]
    assert synthesizer.calls.started == 2


def test_texts_that_sound_the_same_are_one_sentence() -> None:
    synthesizer = ScriptedSynthesizer()
    speaker = Speaker(synthesizer, words=lambda text, _language: text.replace("5", "五"))

    async def scene() -> None:
        assert await spoken(speaker, "5点了") == await spoken(speaker, "五点了")

    run(scene())
    assert list(synthesizer.sentences) == ["5点了"]


def test_same_sentence_at_the_same_moment_is_rendered_once_and_followers_get_packets_as_they_come() -> None:
    synthesizer, heard = ScriptedSynthesizer(delay_s=1), list[str]()
    speaker = Speaker(synthesizer, observe=heard.append)

    async def scene() -> None:
        async with asyncio.TaskGroup() as group:
            tasks = []
            for _ in range(20):
                tasks.append(group.create_task(spoken(speaker)))
                await asyncio.sleep(0.04)
        assert len({tuple(task.result()) for task in tasks}) == 1
        assert len(tasks[0].result()) == 20
        assert asyncio.get_running_loop().time() == pytest.approx(1.0)
        assert nothing_runs(speaker, synthesizer)

    run(scene())
    assert synthesizer.calls.started == 1
    assert heard == ["miss", *["joined"] * 19]


def test_packets_need_nothing_that_was_encoded_before() -> None:
    async def scene() -> None:
        alone = await spoken(Speaker(ScriptedSynthesizer()), "好的好的")
        speaker = Speaker(ScriptedSynthesizer(chunk_ms=70))
        await spoken(speaker, "先说这一句")
        interrupted = asyncio.create_task(spoken(speaker, "再说一句长的话"))
        await asyncio.sleep(0)
        interrupted.cancel()
        await asyncio.wait([interrupted])
        speaker._synthesizer = ScriptedSynthesizer()
        assert await spoken(speaker, "好的好的") == alone

    run(scene())


class Slow:
    """Says every chunk of a tone a second after the one before, and fails after ``fail_after`` of them."""

    def __init__(self, fail_after: int = 99, error: Callable[[], Exception] = lambda: SynthesisError("mute")) -> None:
        self.running = self.started = 0
        self._fail_after = fail_after
        self._error = error

    async def speak(self, text: str, language: str = "") -> AsyncGenerator[SpeechChunk, None]:
        self.running += 1
        self.started += 1
        try:
            for number in range(len(text)):
                await asyncio.sleep(1)
                if number == self._fail_after:
                    raise self._error()
                yield SpeechChunk(pcm=tone(600, 24_000), sample_rate_hz=24_000)
        finally:
            self.running -= 1


@pytest.mark.parametrize("leaver", [0, 1, 2])
def test_one_who_leaves_hurts_nobody_else(leaver: int) -> None:
    voice = Slow()
    speaker = Speaker(voice)

    async def scene() -> None:
        tasks = [asyncio.create_task(spoken(speaker)) for _ in range(3)]
        await asyncio.sleep(2.5)
        tasks[leaver].cancel()
        await asyncio.wait(tasks)
        assert tasks[leaver].cancelled()
        assert {len(task.result()) for task in tasks if not task.cancelled()} == {60}
        assert nothing_runs(speaker)

    run(scene())
    assert voice.started == 1


def test_work_stops_when_the_last_one_leaves_and_nothing_half_is_remembered() -> None:
    voice, memory = Slow(), MemoryTier()
    speaker = Speaker(voice, memory=SpeechMemory(Ladder(memory)))

    async def scene() -> None:
        tasks = [asyncio.create_task(spoken(speaker)) for _ in range(2)]
        await asyncio.sleep(2.5)
        for task in tasks:
            assert voice.running == 1
            task.cancel()
            await asyncio.wait([task])
        assert voice.running == 0
        assert nothing_runs(speaker)
        assert len(memory) == 0
        assert len(await spoken(speaker)) == 60

    run(scene())
    assert voice.started == 2


@pytest.mark.parametrize("error", [lambda: SynthesisError("mute"), lambda: OSError("secret"), asyncio.CancelledError])
def test_failure_reaches_everybody_after_the_packets_before_it_and_is_not_remembered(
    error: Callable[[], Exception],
) -> None:
    memory = MemoryTier()
    speaker = Speaker(Slow(2, error), memory=SpeechMemory(Ladder(memory)))

    async def listen() -> tuple[int, VoiceError | None]:
        heard = 0
        try:
            async with aclosing(speaker.speak(SENTENCE)) as pieces:
                async for piece in pieces:
                    heard += len(piece.packets)
        except SynthesisError as failure:
            return heard, failure
        return heard, None

    async def scene() -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(listen()) for _ in range(3)]
        results = [task.result() for task in tasks]
        assert {heard for heard, _ in results} == {20}
        failures = [failure for _, failure in results]
        assert None not in failures
        assert not any("secret" in str(failure) for failure in failures)
        assert len(set(map(id, failures))) == 3
        assert len(memory) == 0
        assert nothing_runs(speaker)

    run(scene())


def test_closing_ends_every_rendering_with_an_error_for_its_listeners() -> None:
    voice = Slow()
    speaker = Speaker(voice)

    async def scene() -> None:
        tasks = [asyncio.create_task(spoken(speaker, text)) for text in ("甲甲", "乙乙")]
        await asyncio.sleep(0.5)
        await speaker.close()
        assert voice.running == 0
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(result) for result in results] == [SynthesisError] * 2
        assert nothing_runs(speaker)

    run(scene())


def test_level_in_force_is_used_and_a_better_one_in_the_cache_is_taken() -> None:
    clock = [0.0]
    quality = QualityController(now=lambda: clock[0])
    synthesizer, heard = ScriptedSynthesizer(), list[str]()
    speaker = Speaker(synthesizer, quality=quality, observe=heard.append)

    def load() -> None:
        for _ in range(60):
            clock[0] += 1
            quality.took(1.0, wall_s=1.0, busy_s=1.0)

    async def scene() -> None:
        best = await spoken(speaker)
        load()
        assert quality.level == len(LEVELS) - 1
        assert await spoken(speaker) == best
        cheap = await spoken(speaker, "换一句话说")
        clock[0] += 1000
        assert quality.level == len(LEVELS) - 1 - 1
        clock[0] += 1000
        for _ in LEVELS:
            assert quality.level >= 0
            clock[0] += 1000
        assert quality.level == 0
        fine = await spoken(speaker, "换一句话说")
        assert len(fine) == len(cheap)
        assert sum(map(len, fine)) > 1.5 * sum(map(len, cheap))

    run(scene())
    assert heard == ["miss", "hit", "miss", "miss"]


@cache
def spoken_alone(text: str) -> list[bytes]:
    return run(spoken(Speaker(Slow()), text))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32),
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 60), st.one_of(st.none(), st.integers(0, 60))), max_size=12),
    st.sampled_from([0, 5_000, 1 << 20]),
)
def test_random_joins_and_leaves_give_everybody_all_packets_or_an_error_and_leave_nothing(
    seed: int, listeners: list[tuple[int, int, int | None]], max_bytes: int
) -> None:
    texts = ["甲", "乙乙", "丙丙丙", "丁丁丁丁"]
    whole = [spoken_alone(text) for text in texts]

    async def scene() -> None:
        flaky = random.Random(seed)
        voice = Slow(1, lambda: SynthesisError("mute")) if flaky.random() < 0.3 else Slow()
        memory = MemoryTier(max_bytes=max_bytes)
        speaker = Speaker(voice, memory=SpeechMemory(Ladder(memory)))

        async def listen(text: int, after: int, leave: int | None) -> None:
            await asyncio.sleep(after / 10)
            try:
                async with asyncio.timeout(None if leave is None else leave / 10):
                    assert await spoken(speaker, texts[text]) == whole[text]
            except TimeoutError:
                assert leave is not None
            except SynthesisError:
                assert voice._fail_after == 1
                assert text > 0
            assert memory.held_bytes <= max_bytes

        async with asyncio.TaskGroup() as group:
            for text, after, leave in listeners:
                group.create_task(listen(text, after, leave))
        assert voice.running == 0
        assert nothing_runs(speaker)

    run(scene())


def test_encoding_in_threads_gives_the_same_packets_and_survives_cancelling() -> None:
    async def scene() -> None:
        expected = await spoken(Speaker(ScriptedSynthesizer()))
        speaker = Speaker(ScriptedSynthesizer(), slots=Slots("opus", 2, refusal=SynthesisError))
        tasks = [asyncio.create_task(spoken(speaker, SENTENCE + "好" * number)) for number in range(20)]
        same = [asyncio.create_task(spoken(speaker)) for _ in range(5)]
        await asyncio.sleep(0)
        for task in tasks[1::2]:
            task.cancel()
        await asyncio.wait([*tasks, *same])
        assert [task.result() for task in same] == [expected] * 5
        assert [len(task.result()) for task in tasks[::2]] == [
            -(-(6 + number) * 200 // 60) for number in range(0, 20, 2)
        ]
        assert nothing_runs(speaker)
        assert speaker.waiting == 0
        await speaker.close()
        with pytest.raises(SynthesisError):
            await spoken(speaker, "关了")

    real_time.run(scene())
