from __future__ import annotations

from coordinator.cache.answers import AnswerCache, Remembered
from coordinator.cache.keys import answer_key
from coordinator.cache.ladder import Ladder
from coordinator.cache.memory import MemoryTier
from models.prompts import Message, Prompt
from tests.virtual_time import run


def prompt(question: str) -> Prompt:
    return Prompt(turn_id="t", messages=(Message(role="user", text=question),))


def test_an_answer_comes_back_with_its_model() -> None:
    async def scenario() -> None:
        cache = AnswerCache(Ladder([MemoryTier()]))
        await cache.put(prompt("水的沸点是多少度？"), "一百度。", "qwen")
        assert await cache.get(prompt("水的沸点是多少度")) == Remembered(text="一百度。", model="qwen")

    run(scenario())


def test_what_is_not_memorable_or_empty_is_not_kept() -> None:
    async def scenario() -> None:
        memory = MemoryTier()
        cache = AnswerCache(Ladder([memory]))
        await cache.put(prompt("现在几点"), "三点。", "qwen")
        await cache.put(prompt("水的沸点是多少度"), "  ", "qwen")
        assert len(memory) == 0

    run(scenario())


def test_bytes_of_another_format_are_a_miss() -> None:
    async def scenario() -> None:
        ladder = Ladder([MemoryTier()])
        asked = prompt("水的沸点是多少度")
        key = answer_key(asked, "")
        assert key is not None
        await ladder.put(key, b"\xc1 not msgpack")
        assert await AnswerCache(ladder).get(asked) is None

    run(scenario())
