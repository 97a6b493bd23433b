from __future__ import annotations

import asyncio

import msgspec
import pytest

from coordinator.cache.answers import AnswerCache
from coordinator.cache.ladder import Ladder
from coordinator.cache.memory import MemoryTier
from coordinator.turns import RoutingDecision, Tier
from edge.brain.spoken_answers import MAX_PACKETS, REMEMBERED, SpokenAnswer, SpokenAnswers, SpokenPiece
from models.prompts import Message, Prompt
from tests.coordinator.cache.tiers import FakeTier
from tests.virtual_time import run

ANSWER = SpokenAnswer(
    model="qwen", pieces=(SpokenPiece("一百度。", "happy", (b"\x01", b"\x02")), SpokenPiece("在海边。", "", (b"\x03",)))
)


def prompt(question: str = "水的沸点是多少度", language: str = "zh") -> Prompt:
    return Prompt(turn_id="t", messages=(Message(role="user", text=question),), language=language)


def made(ladder: Ladder, *, voice: str = "v", qualities: tuple[str, ...] = ("best",)) -> SpokenAnswers:
    return SpokenAnswers(ladder, AnswerCache(ladder), voice=voice, qualities=lambda: qualities)


def test_a_spoken_answer_comes_back_and_is_told() -> None:
    async def scenario() -> None:
        ladder, told = Ladder(MemoryTier()), list[RoutingDecision]()
        answers = SpokenAnswers(ladder, AnswerCache(ladder), voice="v", qualities=lambda: ["best"], observe=told.append)
        assert await answers.get(prompt()) is None
        answers.put(prompt(), ANSWER)
        assert await answers.get(prompt("水的沸点是多少度？")) == ANSWER
        assert told == [RoutingDecision(turn_id="t", tier=Tier.CACHE, reason=REMEMBERED)]

    run(scenario())


@pytest.mark.parametrize(
    ("other", "asked"),
    [({"voice": "w"}, prompt()), ({"qualities": ("worse",)}, prompt()), ({}, prompt(language="en"))],
)
def test_another_voice_quality_or_language_does_not_have_it(other: dict[str, object], asked: Prompt) -> None:
    async def scenario() -> None:
        ladder = Ladder(MemoryTier())
        made(ladder).put(prompt(), ANSWER)
        assert await made(ladder, **other).get(asked) is None  # type: ignore[arg-type]  # as the table says

    run(scenario())


def test_what_was_spoken_better_than_is_affordable_now_is_taken() -> None:
    async def scenario() -> None:
        ladder = Ladder(MemoryTier())
        made(ladder).put(prompt(), ANSWER)
        assert await made(ladder, qualities=("best", "worse")).get(prompt()) == ANSWER

    run(scenario())


@pytest.mark.parametrize("question", ["现在几点", "把灯打开"])
def test_what_is_not_memorable_is_neither_kept_nor_looked_for(question: str) -> None:
    async def scenario() -> None:
        redis, memory = FakeTier(), MemoryTier()
        async with Ladder(memory, [redis]).open() as ladder:
            answers = made(ladder)
            answers.put(prompt(question), ANSWER)
            assert await answers.get(prompt(question)) is None
        assert not redis.asked
        assert len(memory) == 0

    run(scenario())


@pytest.mark.parametrize("packets", [0, MAX_PACKETS + 1])
def test_an_answer_without_sound_or_with_very_much_is_not_kept(packets: int) -> None:
    memory = MemoryTier()
    piece = SpokenPiece("a", "", (b"\x01",) * packets)
    made(Ladder(memory)).put(prompt(), SpokenAnswer(model="m", pieces=(piece,)))
    assert len(memory) == 0


@pytest.mark.parametrize(
    "value", [b"", b"\xc1", msgspec.msgpack.encode(["m", [["a", "b"]]]), msgspec.msgpack.encode(5)]
)
def test_what_cannot_be_read_is_a_miss(value: bytes) -> None:
    async def scenario() -> None:
        ladder = Ladder(MemoryTier())
        answers = made(ladder)
        key = AnswerCache(ladder).key(prompt())
        assert key is not None
        ladder.put(answers.key(key), value)
        assert await answers.get(prompt()) is None

    run(scenario())


def test_sound_and_text_are_looked_for_at_the_same_time() -> None:
    async def scenario() -> None:
        redis = FakeTier(slow_s=0.01)
        async with Ladder(MemoryTier(), [redis]).open() as ladder:
            answers, texts = made(ladder), AnswerCache(ladder)
            began_s = asyncio.get_running_loop().time()
            assert await answers.get(prompt()) is None
            assert await texts.get(prompt()) is None
            assert asyncio.get_running_loop().time() - began_s == pytest.approx(0.01)
        assert redis.asked.count("get") == 2

    run(scenario())


def test_memorable_questions_are_counted_when_they_are_asked_and_answers_when_they_are_kept() -> None:
    async def scenario() -> None:
        ladder, seen = Ladder(MemoryTier()), list[tuple[str, str]]()
        answers = SpokenAnswers(
            ladder,
            AnswerCache(ladder),
            voice="v",
            qualities=lambda: ["best"],
            asked=lambda key, prompt: seen.append((key, prompt.question)),
            kept=lambda key: seen.append((key, "kept")),
        )
        for question in ("现在几点了", "水的沸点是多少度"):
            await answers.get(prompt(question))
            answers.put(prompt(question), ANSWER)
        key = AnswerCache(ladder).key(prompt())
        assert key is not None
        assert seen == [(key, "水的沸点是多少度"), (key, "kept")]
        assert ladder.near(answers.key(key)) is not None

    run(scenario())
