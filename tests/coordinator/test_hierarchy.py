from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from coordinator.cache.answers import AnswerCache
from coordinator.cache.ladder import Ladder
from coordinator.cache.memory import MemoryTier
from coordinator.hierarchy import Hierarchy
from coordinator.routing.policy import Conditions, Policy
from coordinator.turns import RoutingDecision
from models.errors import CloudUnreachableError, CompletionError, DeadlineError, OverloadedError
from models.prompts import CompletionDelta, Message, Prompt
from tests.virtual_time import run

EASY = "水的沸点是多少度？"
HARD = "请详细分析电动汽车和燃油汽车的优缺点，比较它们的区别，并解释为什么"
HARD_MEMORABLE = "请详细分析电动汽车和燃油汽车的优缺点，比较两者的区别，并解释为什么"


class Source:
    """A completer with a plan: words with a pause before each, then perhaps an error."""

    def __init__(self, words: str, *, pause_s: float = 0.1, error: CompletionError | None = None) -> None:
        self.words, self.pause_s, self.error = words, pause_s, error
        self.started = self.open = 0

    async def complete(self, prompt: Prompt) -> AsyncGenerator[CompletionDelta, None]:
        self.started += 1
        self.open += 1
        try:
            for word in self.words:
                await asyncio.sleep(self.pause_s)
                yield CompletionDelta(text=word, model="m")
            if self.error:
                raise self.error
        finally:
            self.open -= 1


class Bench:
    def __init__(self, edge: Source, cloud: Source, *, reachable: bool = True) -> None:
        self.edge, self.cloud = edge, cloud
        self.seen: list[RoutingDecision] = []
        self.hierarchy = Hierarchy(
            edge,
            cloud,
            AnswerCache(Ladder([MemoryTier()])),
            policy=lambda: Policy(threshold=0.7),
            conditions=lambda: Conditions(cloud_reachable=reachable),
            observe=self.seen.append,
        )

    async def ask(self, question: str, *, private: bool = False) -> str:
        prompt = Prompt(turn_id="t", messages=(Message(role="user", text=question),), is_private=private)
        async with aclosing(self.hierarchy.complete(prompt)) as deltas:
            return "".join([delta.text async for delta in deltas])

    @property
    def reasons(self) -> list[str]:
        return [f"{decision.tier}:{decision.reason}" for decision in self.seen]


def test_easy_goes_to_the_edge_and_hard_to_the_cloud() -> None:
    async def scenario() -> None:
        bench = Bench(Source("edge"), Source("cloud"))
        assert await bench.ask(EASY) == "edge"
        assert await bench.ask(HARD) == "cloud"
        assert bench.reasons == ["edge:below-threshold", "cloud:complex"]

    run(scenario())


def test_the_same_question_is_answered_from_memory() -> None:
    async def scenario() -> None:
        bench = Bench(Source("edge"), Source("cloud"))
        assert [await bench.ask(EASY), await bench.ask(EASY)] == ["edge", "edge"]
        assert bench.reasons == ["edge:below-threshold", "cache:remembered"]
        assert bench.edge.started == 1
        assert bench.seen[1].score == bench.seen[0].score

    run(scenario())


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (CloudUnreachableError("x"), "cloud-unreachable"),
        (OverloadedError("x"), "llm-overloaded"),
        (DeadlineError("x"), "llm-deadline"),
    ],
)
def test_a_cloud_that_fails_before_its_first_word_is_replaced_by_the_edge(error: CompletionError, reason: str) -> None:
    async def scenario() -> None:
        bench = Bench(Source("edge"), Source("", error=error))
        assert await bench.ask(HARD) == "edge"
        assert bench.reasons == ["cloud:complex", f"edge:{reason}"]
        assert bench.cloud.open == 0

    run(scenario())


def test_a_cloud_that_hangs_is_replaced_after_the_first_token_limit() -> None:
    async def scenario() -> float:
        bench = Bench(Source("edge"), Source("cloud", pause_s=60))
        loop = asyncio.get_running_loop()
        assert await bench.ask(HARD) == "edge"
        assert bench.cloud.open == 0
        return loop.time()

    assert run(scenario()) == pytest.approx(4.0 + 0.4)


def test_an_empty_answer_counts_as_a_failure() -> None:
    async def scenario() -> None:
        bench = Bench(Source("edge"), Source(""))
        assert await bench.ask(HARD) == "edge"
        assert bench.reasons == ["cloud:complex", "edge:llm-failed"]

    run(scenario())


def test_a_full_edge_hands_over_to_the_cloud_only_when_it_can_be_reached() -> None:
    async def scenario() -> None:
        bench = Bench(Source("", error=OverloadedError("x")), Source("cloud"))
        assert await bench.ask(EASY) == "cloud"
        away = Bench(Source("", error=OverloadedError("x")), Source("cloud"), reachable=False)
        with pytest.raises(OverloadedError):
            await away.ask(EASY)
        late = Bench(Source("", error=DeadlineError("x")), Source("cloud"))
        with pytest.raises(DeadlineError):
            await late.ask(EASY)

    run(scenario())


def test_after_the_first_word_a_failure_is_reported_and_nothing_remembered() -> None:
    async def scenario() -> None:
        bench = Bench(Source("edge"), Source("clo", error=CloudUnreachableError("x")))
        with pytest.raises(CloudUnreachableError):
            await bench.ask(HARD_MEMORABLE)
        bench.cloud.error = None
        assert await bench.ask(HARD_MEMORABLE) == "clo"
        assert bench.reasons == ["cloud:complex", "cloud:complex"]

    run(scenario())


@pytest.mark.parametrize("after_s", [0.05, 0.15, 0.35])
@pytest.mark.parametrize("question", [EASY, HARD])
def test_an_interrupted_answer_closes_its_source_and_is_not_remembered(after_s: float, question: str) -> None:
    async def scenario() -> None:
        bench = Bench(Source("edge"), Source("cloud"))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(after_s):
                await bench.ask(question)
        assert bench.edge.open == bench.cloud.open == 0
        await bench.ask(question)
        assert "cache:remembered" not in bench.reasons

    run(scenario())


def test_closing_after_the_first_word_closes_the_source() -> None:
    async def scenario() -> None:
        bench = Bench(Source("edge"), Source("cloud"))
        stream = bench.hierarchy.complete(Prompt(turn_id="t", messages=(Message(role="user", text=HARD),)))
        await anext(stream)
        assert bench.cloud.open == 1
        await stream.aclose()
        assert bench.cloud.open == 0

    run(scenario())


def test_a_private_prompt_fails_rather_than_leave_the_edge() -> None:
    async def scenario() -> None:
        bench = Bench(Source("", error=OverloadedError("full")), Source("cloud"))
        with pytest.raises(OverloadedError):
            await bench.ask(HARD, private=True)
        assert bench.cloud.started == 0
        assert [decision.reason for decision in bench.seen] == ["private"]

    run(scenario())


def test_what_a_private_prompt_was_answered_is_not_remembered() -> None:
    async def scenario() -> None:
        bench = Bench(Source("edge"), Source("cloud"))
        for private in (True, False, True):
            await bench.ask(EASY, private=private)
        assert bench.edge.started == 3
        await bench.ask(EASY)
        assert bench.edge.started == 3, "the answer to the other was"

    run(scenario())
