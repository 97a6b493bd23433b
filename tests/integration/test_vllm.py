"""The road to a real vLLM on a CPU; ``make vllm`` makes what these tests need."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Coroutine, Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from cloud.upstream import OpenAIUpstream
from manifests.vllm_demo import LONG_QUESTION, QUESTIONS, Road, converse, interrupt, road
from manifests.vllm_environment import environment
from models.errors import CompletionError
from models.prompts import CompletionDelta, Message, Prompt

T = TypeVar("T")
MISSING = environment().missing()
TEST_S = 120.0
READY_S = 600.0
BLOCK_TOKENS = 32

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.skipif(bool(MISSING), reason=f"vLLM's environment lacks {' and '.join(MISSING)}: run make vllm"),
]


class Running:
    """A road that stays up between tests: one loop, and one task that holds everything open."""

    def __init__(self, runner: asyncio.Runner, ends: Road) -> None:
        self.ends = ends
        self._runner = runner

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        async def timed() -> T:
            async with asyncio.timeout(TEST_S):
                return await work

        return self._runner.run(timed())


@pytest.fixture(scope="module")
def up() -> Iterator[Running]:
    stop = asyncio.Event()

    async def hold(opened: asyncio.Future[Road]) -> None:
        async with road(environment(), lambda _line: None) as ends:
            opened.set_result(ends)
            await stop.wait()

    async def begin() -> tuple[asyncio.Task[None], Road]:
        opened: asyncio.Future[Road] = asyncio.get_running_loop().create_future()
        holding = asyncio.create_task(hold(opened), name="road")
        async with asyncio.timeout(READY_S):
            await asyncio.wait([holding, opened], return_when=asyncio.FIRST_COMPLETED)
        if holding.done():
            await holding
        return holding, opened.result()

    async def end(holding: asyncio.Task[None]) -> None:
        stop.set()
        await holding

    with asyncio.Runner() as runner:
        holding, ends = runner.run(begin())
        try:
            yield Running(runner, ends)
        finally:
            runner.run(end(holding))


def dialogue(*texts: str) -> tuple[Message, ...]:
    roles = ("user", "assistant")
    return tuple(Message(role=roles[number % 2], text=text) for number, text in enumerate(texts))  # type: ignore[arg-type]


async def collect(ends: Road, prompt: Prompt) -> list[CompletionDelta]:
    async with aclosing(ends.completer.complete(prompt)) as deltas:
        return [delta async for delta in deltas]


def text_of(deltas: list[CompletionDelta]) -> str:
    return "".join(delta.text for delta in deltas)


def test_a_conversation_streams_and_each_turn_reuses_the_ones_before(up: Running) -> None:
    async def scenario() -> None:
        async with aclosing(converse(up.ends, QUESTIONS)) as conversation:
            turns = [turn async for turn in conversation]
        assert all(turn.answer.strip() and turn.pieces > 1 for turn in turns)
        for before, turn in itertools.pairwise(turns):
            assert turn.reused_tokens >= before.prompt_tokens // BLOCK_TOKENS * BLOCK_TOKENS

    up.run(scenario())


def test_a_question_is_answered_rightly_and_what_it_cost_arrives(up: Running) -> None:
    deltas = up.run(collect(up.ends, Prompt(turn_id="t", messages=dialogue("法国的首都是哪个城市？"), max_tokens=32)))
    assert "巴黎" in text_of(deltas)
    usage = deltas[-1].usage
    assert usage is not None
    assert 0 < usage.completion_tokens <= 32
    assert usage.prompt_tokens > 10


def test_an_answer_that_was_begun_is_gone_on_with(up: Running) -> None:
    begun = dialogue("What is the capital of France? Answer in one sentence.", "The capital of France is")
    answer = text_of(up.run(collect(up.ends, Prompt(turn_id="t", messages=begun, max_tokens=16))))
    assert answer.strip().startswith("Paris")


@pytest.mark.parametrize("seed", range(5))
def test_an_interruption_at_any_point_ends_the_work_in_vllm(up: Running, seed: int) -> None:
    async def scenario() -> None:
        found = await interrupt(up.ends, random.Random(seed).uniform(0, 2), seed)
        assert found.was_running
        assert found.idle_ms is not None, "vLLM went on"
        after = await up.ends.readings()
        assert (after.running, after.waiting) == (0, 0)

    up.run(scenario())


def test_answers_side_by_side_do_not_disturb_each_other(up: Running) -> None:
    async def scenario() -> None:
        questions = {
            "法国的首都是哪个城市？": "巴黎",
            "日本的首都是哪个城市？": "东京",
            "中国的首都是哪个城市？": "北京",
        }
        async with asyncio.TaskGroup() as tasks:
            long = tasks.create_task(
                collect(up.ends, Prompt(turn_id="l", messages=dialogue(LONG_QUESTION), max_tokens=400))
            )
            asked = {
                word: tasks.create_task(
                    collect(up.ends, Prompt(turn_id="t", messages=dialogue(question), max_tokens=24))
                )
                for question, word in questions.items()
            }
            await asyncio.wait(asked.values())
            long.cancel()
        assert all(word in text_of(task.result()) for word, task in asked.items())
        assert await up.ends.becomes(busy=False, within_s=10) is not None

    up.run(scenario())


def test_a_dialogue_longer_than_the_context_is_a_failure_and_no_hang(up: Running) -> None:
    async def scenario() -> None:
        with pytest.raises(CompletionError, match="400"):
            await collect(up.ends, Prompt(turn_id="t", messages=dialogue("很长的故事，" * 2000), max_tokens=16))
        assert "巴黎" in text_of(
            await collect(up.ends, Prompt(turn_id="t", messages=dialogue("法国的首都是哪个城市？"), max_tokens=32))
        )

    up.run(scenario())


def test_a_model_that_is_not_served_is_a_failure(up: Running) -> None:
    async def scenario() -> None:
        prompt = Prompt(turn_id="t", messages=dialogue("你好"))
        async with OpenAIUpstream.connect(up.ends.vllm_url, "qwen-72b") as upstream:
            await upstream.probe()  # it lives
            with pytest.raises(CompletionError, match="404"):
                await collect(replace(up.ends, completer=upstream), prompt)

    up.run(scenario())
