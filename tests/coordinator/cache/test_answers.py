from __future__ import annotations

import asyncio

import pytest

from coordinator.cache.answers import LOOK_AGAIN_S, WAIT_S, AnswerCache, Remembered, Scope
from coordinator.cache.keys import answer_key
from coordinator.cache.ladder import Ladder
from coordinator.cache.memory import MemoryTier
from models.prompts import Message, Prompt
from tests.coordinator.cache.tiers import LeasingTier
from tests.virtual_time import run

QUESTION = "水的沸点是多少度"


def prompt(question: str = QUESTION, device_id: str = "d") -> Prompt:
    return Prompt(turn_id="t", messages=(Message(role="user", text=question),), device_id=device_id)


def test_an_answer_comes_back_with_its_model() -> None:
    async def scenario() -> None:
        cache = AnswerCache(Ladder(MemoryTier()))
        cache.put(prompt("水的沸点是多少度？"), "一百度。", "qwen")
        assert await cache.get(prompt("水的沸点是多少度")) == Remembered(text="一百度。", model="qwen")

    run(scenario())


def test_what_is_not_memorable_or_empty_is_not_kept() -> None:
    async def scenario() -> None:
        memory = MemoryTier()
        cache = AnswerCache(Ladder(memory))
        cache.put(prompt("现在几点"), "三点。", "qwen")
        cache.put(prompt("水的沸点是多少度"), "  ", "qwen")
        assert len(memory) == 0

    run(scenario())


def test_bytes_of_another_format_are_a_miss() -> None:
    async def scenario() -> None:
        ladder = Ladder(MemoryTier())
        asked = prompt("水的沸点是多少度")
        key = answer_key(asked, "")
        assert key is not None
        ladder.put(key, b"\xc1 not msgpack")
        assert await AnswerCache(ladder).get(asked) is None

    run(scenario())


def test_without_any_tier_no_question_has_a_key() -> None:
    assert AnswerCache(Ladder()).key(prompt()) is None
    assert AnswerCache(Ladder(MemoryTier())).key(prompt()) is not None


@pytest.mark.parametrize(
    ("scope", "same_device", "same_group", "other_group"),
    [("all", True, True, True), ("group", True, True, False), ("device", True, False, False)],
)
def test_an_answer_is_for_those_of_its_scope(
    scope: Scope, same_device: bool, same_group: bool, other_group: bool
) -> None:
    async def scenario() -> None:
        ladder = Ladder(MemoryTier())
        north, south = (AnswerCache(ladder, scope=scope, group=group) for group in ("north", "south"))
        assert north.put(prompt(device_id="d1"), "一百度。", "qwen")
        for cache, device, knows in (
            (north, "d1", same_device),
            (north, "d2", same_group),
            (south, "d3", other_group),
        ):
            assert (await cache.get(prompt(device_id=device)) is not None) is knows

    run(scenario())


def test_another_version_is_another_memory() -> None:
    async def scenario() -> None:
        ladder = Ladder(MemoryTier())
        AnswerCache(ladder, "old").put(prompt(), "一百度。", "qwen")
        assert await AnswerCache(ladder, "new").get(prompt()) is None

    run(scenario())


def test_a_node_waits_a_moment_for_what_another_one_is_making() -> None:
    async def scenario() -> None:
        redis = LeasingTier()
        async with Ladder(MemoryTier(), [redis]).open() as one, Ladder(MemoryTier(), [redis]).open() as other:
            here, there = AnswerCache(one), AnswerCache(other)
            key = here.key(prompt())
            assert key is not None
            async with here.making(key) as made:
                assert made is None
                waiting = asyncio.create_task(first_of(there, key))
                await asyncio.sleep(WAIT_S / 2)
                here.put(prompt(), "一百度。", "qwen")
                assert await waiting == Remembered(text="一百度。", model="qwen")
                began_s = asyncio.get_running_loop().time()
                other_key = there.key(prompt("月亮离地球多远"))
                assert other_key is not None
                async with there.making(other_key) as theirs:
                    assert theirs is None
                assert asyncio.get_running_loop().time() == began_s
            assert not redis.leases

    run(scenario())


def test_a_node_that_waited_in_vain_makes_it_itself() -> None:
    async def scenario() -> None:
        redis = LeasingTier()
        async with Ladder(MemoryTier(), [redis]).open() as one, Ladder(MemoryTier(), [redis]).open() as other:
            here, there = AnswerCache(one), AnswerCache(other)
            key = here.key(prompt())
            assert key is not None
            async with here.making(key):
                began_s = asyncio.get_running_loop().time()
                assert await first_of(there, key) is None
                assert asyncio.get_running_loop().time() - began_s == pytest.approx(WAIT_S, abs=LOOK_AGAIN_S)

    run(scenario())


async def first_of(cache: AnswerCache, key: str) -> Remembered | None:
    async with cache.making(key) as made:
        return made
