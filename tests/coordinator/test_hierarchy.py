from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import aclosing

import pytest

from coordinator.cache.answers import AnswerCache
from coordinator.cache.ladder import Ladder
from coordinator.cache.memory import MemoryTier
from coordinator.clauses import speech_s
from coordinator.turns import Tier
from models.errors import CloudUnreachableError, CompletionError, DeadlineError, OverloadedError
from models.prompts import Prompt
from tests.coordinator.cache.tiers import LeasingTier
from tests.coordinator.sources import EASY, HANG, HARD, POOL, Bench, Plan, Source, Step, Wait, policy_of, prompt_of
from tests.virtual_time import run

HARD_MEMORABLE = "请详细分析电动汽车和燃油汽车的优缺点，比较两者的区别，并解释为什么"
FIRST, SECOND, REST = "电动汽车更省钱。", "燃油汽车跑得更远。", "充电也更慢。"


def finisher(rest: str = REST, whole: str = "我想想。") -> Source:
    """An edge that goes on where an answer was begun."""

    def plan(_call: int, prompt: Prompt) -> Plan:
        return (rest,) if prompt.messages[-1].role == "assistant" else (whole,)

    return Source(plans=plan)


def test_easy_goes_to_the_edge_and_hard_to_the_cloud() -> None:
    async def scenario() -> None:
        bench = Bench(Source("edge"), Source("cloud"))
        assert await bench.ask(EASY) == "edge"
        assert await bench.ask(HARD) == "cloud"
        assert bench.reasons == ["edge:below-threshold", f"{POOL}:complex"]
        assert bench.router.charged == [POOL]

    run(scenario())


def test_the_same_question_is_answered_from_memory() -> None:
    async def scenario() -> None:
        edge = Source("edge")
        bench = Bench(edge, Source("cloud"))
        assert [await bench.ask(EASY), await bench.ask(EASY)] == ["edge", "edge"]
        assert bench.reasons == ["edge:below-threshold", "cache:remembered"]
        assert edge.started == 1
        assert bench.seen[1].score == bench.seen[0].score

    run(scenario())


def test_a_hundred_and_fifty_who_ask_the_same_at_once_are_one_call() -> None:
    async def scenario() -> None:
        cloud = Source("一二三四五")
        bench = Bench(Source("edge"), cloud)

        async def one(number: int) -> tuple[str, float]:
            await asyncio.sleep(number / 1000)
            return await bench.ask(HARD_MEMORABLE), asyncio.get_running_loop().time()

        answers = await asyncio.gather(*(one(number) for number in range(150)))
        assert {text for text, _ in answers} == {"一二三四五"}
        assert max(at_s for _, at_s in answers) <= 0.26, "those who came later wait no longer"
        assert cloud.started == 1
        assert bench.router.charged == [POOL]
        assert Counter(bench.reasons) == {f"{POOL}:complex": 1, "cache:being-written": 149}
        assert len(bench.hierarchy._cache.flights) == 0

    run(scenario())


def test_who_asks_something_private_or_of_the_moment_hears_nobody_elses_answer() -> None:
    async def scenario() -> None:
        edge = Source("edge")
        bench = Bench(edge, Source("cloud"))
        await asyncio.gather(*(bench.ask(EASY, private=True) for _ in range(5)))
        assert edge.started == 5

    run(scenario())


def test_the_one_who_asked_first_may_leave_and_the_others_are_answered() -> None:
    async def scenario() -> None:
        cloud = Source("一二三四五", Wait(2.0), "六")
        bench = Bench(Source("edge"), cloud, policy=policy_of(first_token_ms=5000.0))
        first, second = (asyncio.create_task(bench.ask(HARD_MEMORABLE)) for _ in range(2))
        await asyncio.sleep(0.1)
        first.cancel()
        await asyncio.wait([first])
        assert cloud.open == 1
        assert await second == "一二三四五六"
        assert cloud.started == 1
        third, fourth = (asyncio.create_task(bench.ask("请问" + HARD_MEMORABLE)) for _ in range(2))
        await asyncio.sleep(0.1)
        for task in (third, fourth):
            task.cancel()
            await asyncio.wait([task])
        assert cloud.open == 0

    run(scenario())


def test_another_node_that_asks_the_same_waits_a_moment_and_takes_the_answer() -> None:
    async def scenario() -> None:
        redis, sources = LeasingTier(), [Source("一二三"), Source("四五六")]
        async with Ladder(MemoryTier(), [redis]).open() as one, Ladder(MemoryTier(), [redis]).open() as other:
            benches = [
                Bench(source, Source("cloud"), cache=AnswerCache(ladder))
                for source, ladder in zip(sources, (one, other), strict=True)
            ]
            answers = await asyncio.gather(*(bench.ask(EASY) for bench in benches))
        assert len(set(answers)) == 1
        assert sum(source.started for source in sources) == 1
        assert sorted(reason for bench in benches for reason in bench.reasons) == [
            "cache:remembered",
            "edge:below-threshold",
        ]

    run(scenario())


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (CloudUnreachableError("x"), "cloud-unreachable"),
        (OverloadedError("x"), "llm-overloaded"),
        (DeadlineError("x"), "llm-deadline"),
        (CompletionError("x"), "llm-failed"),
    ],
)
@pytest.mark.parametrize("said", ["", "电动", "…… \n"])
def test_a_cloud_that_fails_before_its_first_clause_is_replaced_by_the_edge(
    error: CompletionError, reason: str, said: str
) -> None:
    async def scenario() -> None:
        cloud = Source(said, error)
        bench = Bench(Source("edge"), cloud)
        assert await bench.ask(HARD_MEMORABLE) == "edge"
        assert bench.reasons == [f"{POOL}:complex", f"edge:{reason}"]
        assert cloud.open == 0
        assert bench.router.charged == ([POOL] if said else [])
        cloud.plan = ("cloud",)
        assert await bench.ask(HARD_MEMORABLE) == "cloud", "what stood in for it is not remembered"

    run(scenario())


def test_a_cloud_that_hangs_is_replaced_after_the_first_token_limit_and_closed_at_once() -> None:
    async def scenario() -> None:
        cloud = Source(HANG)
        bench = Bench(Source("edge", pause_s=0.1), cloud)
        loop = asyncio.get_running_loop()
        assert await bench.ask(HARD) == "edge"
        assert cloud.closed_s == [pytest.approx(1.2)]
        assert loop.time() == pytest.approx(1.2 + 0.4)
        assert bench.router.charged == []

    run(scenario())


@pytest.mark.parametrize("said", ["", " ", "……\n", "😊"])
def test_an_answer_without_a_word_counts_as_a_failure(said: str) -> None:
    async def scenario() -> None:
        bench = Bench(Source("edge"), Source(said))
        assert await bench.ask(HARD) == "edge"
        assert bench.reasons == [f"{POOL}:complex", "edge:llm-failed"]
        with pytest.raises(CompletionError, match="the answer was empty"):
            await Bench(Source(said), Source(said)).ask(HARD)

    run(scenario())


def test_a_full_edge_hands_over_to_the_cloud_only_when_it_can_be_reached() -> None:
    async def scenario() -> None:
        bench = Bench(Source(OverloadedError("x")), Source("cloud"))
        assert await bench.ask(EASY) == "cloud"
        assert bench.reasons == ["edge:below-threshold", f"{POOL}:llm-overloaded"]
        away = Bench(Source(OverloadedError("x")), Source("cloud"), reachable=False)
        with pytest.raises(OverloadedError):
            await away.ask(EASY)
        never = Bench(Source(OverloadedError("x")), Source("cloud"), policy=policy_of(threshold=1.5))
        with pytest.raises(OverloadedError):
            await never.ask(EASY)
        late = Bench(Source(DeadlineError("x")), Source("cloud"))
        with pytest.raises(DeadlineError):
            await late.ask(EASY)

    run(scenario())


def test_when_both_fail_the_last_error_is_raised_once() -> None:
    async def scenario() -> None:
        with pytest.raises(OverloadedError):
            await Bench(Source(OverloadedError("edge")), Source(CloudUnreachableError("cloud"))).ask(HARD)
        with pytest.raises(CloudUnreachableError):
            await Bench(Source(OverloadedError("edge")), Source(CloudUnreachableError("cloud"))).ask(EASY)

    run(scenario())


# After the first words


@pytest.mark.parametrize(
    ("then", "after_s"),
    [
        (CloudUnreachableError("x"), 0.0),
        (CompletionError("garbage"), 0.0),
        (HANG, 2.0),
    ],
)
@pytest.mark.parametrize("broken", ["", "燃油汽车跑"])
def test_a_cloud_that_dies_after_its_first_words_is_finished_by_the_edge_from_the_last_whole_ones(
    then: Step, after_s: float, broken: str
) -> None:
    async def scenario() -> None:
        edge, cloud = finisher(), Source(FIRST, broken, then)
        bench = Bench(edge, cloud)
        began_s = asyncio.get_running_loop().time()
        assert await bench.ask(HARD_MEMORABLE) == FIRST + REST
        assert bench.reasons == [f"{POOL}:complex", "edge:edge-finishes"]
        assert [message.text for message in edge.prompts[0].messages] == [HARD_MEMORABLE, FIRST]
        assert edge.prompts[0].question == HARD_MEMORABLE
        written_s = 0.05 * len(FIRST + broken)
        assert cloud.closed_s[0] - began_s == pytest.approx(written_s + after_s)
        assert edge.prompts[0].budget_ms == pytest.approx(30_000 - 1000 * (written_s + after_s), abs=2)
        await bench.ask(HARD_MEMORABLE)
        assert cloud.started == 2, "not remembered"

    run(scenario())


def test_an_answer_that_trickles_is_finished_by_the_edge_once_the_listener_has_waited() -> None:
    async def scenario() -> None:
        slow: list[Step] = [step for letter in SECOND * 3 for step in (letter, Wait(1.0))]
        cloud = Source(FIRST, *slow)
        bench = Bench(finisher(), cloud)
        answer = await bench.ask(HARD)
        assert answer == FIRST + REST
        assert cloud.closed_s[0] == pytest.approx(0.05 * len(FIRST) + speech_s(FIRST) + 1.2)

    run(scenario())


def test_a_reader_that_is_slow_does_not_make_the_cloud_a_slow_one() -> None:
    async def scenario() -> None:
        bench = Bench(finisher(), Source(FIRST, SECOND, Wait(1.9), REST))
        answer = ""
        async with aclosing(bench.hierarchy.complete(prompt_of(HARD))) as deltas:
            async for delta in deltas:
                answer += delta.text
                await asyncio.sleep(10)
        assert answer == FIRST + SECOND + REST
        assert bench.reasons == [f"{POOL}:complex"]

    run(scenario())


def test_when_the_edge_cannot_finish_either_its_error_is_reported_and_nothing_remembered() -> None:
    async def scenario() -> None:
        cloud = Source(FIRST, CloudUnreachableError("x"))
        bench = Bench(Source(OverloadedError("full")), cloud)
        with pytest.raises(OverloadedError):
            await bench.ask(HARD_MEMORABLE)
        cloud.plan = (FIRST,)
        assert await bench.ask(HARD_MEMORABLE) == FIRST
        assert bench.reasons[-1] == f"{POOL}:complex"

    run(scenario())


def test_an_edge_that_fails_after_its_first_word_is_reported() -> None:
    async def scenario() -> None:
        bench = Bench(Source("ed", OverloadedError("x")), Source("cloud"))
        with pytest.raises(OverloadedError):
            await bench.ask(EASY)
        assert bench.reasons == ["edge:below-threshold"]

    run(scenario())


# Interrupted


@pytest.mark.parametrize("after_s", [0.02, 0.12, 0.3, 1.21, 1.5])
@pytest.mark.parametrize("question", [EASY, HARD])
@pytest.mark.parametrize("plan", [("cloud cloud cloud",), (HANG,), (FIRST, HANG)])
def test_an_interrupted_answer_closes_its_sources_and_is_not_remembered(
    after_s: float, question: str, plan: Plan
) -> None:
    async def scenario() -> None:
        edge, cloud = Source("edge " * 10), Source(*plan)
        bench = Bench(edge, cloud)
        asking = asyncio.create_task(bench.ask(question))
        await asyncio.sleep(after_s)
        asking.cancel()
        await asyncio.wait([asking])
        assert edge.open == cloud.open == 0
        if after_s < 0.5:
            assert bench.hierarchy.pools.breaker(POOL).failures_in_row == 0

    run(scenario())


def test_closing_after_the_first_words_closes_the_source() -> None:
    async def scenario() -> None:
        cloud = Source(FIRST, SECOND)
        bench = Bench(Source("edge"), cloud)
        stream = bench.hierarchy.complete(prompt_of(HARD))
        assert (await anext(stream)).text == FIRST
        assert cloud.open == 1
        await stream.aclose()
        assert cloud.open == 0

    run(scenario())


# Privacy, breakers, several pools


def test_a_private_prompt_fails_rather_than_leave_the_edge() -> None:
    async def scenario() -> None:
        cloud = Source("cloud")
        bench = Bench(Source(OverloadedError("full")), cloud)
        with pytest.raises(OverloadedError):
            await bench.ask(HARD, private=True)
        assert cloud.started == 0
        assert [decision.reason for decision in bench.seen] == ["private"]

    run(scenario())


def test_what_a_private_prompt_was_answered_is_not_remembered() -> None:
    async def scenario() -> None:
        edge = Source("edge")
        bench = Bench(edge, Source("cloud"))
        for private in (True, False, True):
            await bench.ask(EASY, private=private)
        assert edge.started == 3
        await bench.ask(EASY)
        assert edge.started == 3, "the answer to the other was"

    run(scenario())


def test_five_failures_close_a_pool_and_a_probe_that_is_answered_opens_it_again() -> None:
    async def scenario() -> None:
        cloud = Source(HANG)
        bench = Bench(Source("edge"), cloud)
        for _ in range(7):
            assert await bench.ask(HARD) == "edge"
        assert cloud.started == 5
        assert bench.reasons[-1] == "edge:pools-closed"
        assert bench.hierarchy.pools.states() == {POOL: "open"}
        await asyncio.sleep(1.3)
        cloud.plan = ("cloud",)
        assert [await bench.ask(HARD), await bench.ask(HARD)] == ["cloud", "cloud"]
        assert bench.hierarchy.pools.states() == {POOL: "closed"}

    run(scenario())


def test_a_probe_has_the_edge_standing_by_and_needs_time_for_it() -> None:
    async def scenario() -> None:
        edge, cloud = Source("edge", pause_s=0.5), Source(HANG)
        bench = Bench(edge, cloud)
        for _ in range(5):
            await bench.ask(HARD)
        await asyncio.sleep(1.3)
        began_s = asyncio.get_running_loop().time()
        assert await bench.ask(HARD, budget_ms=2500) == "edge", "too little time to try"
        assert cloud.started == 5
        assert bench.reasons[-2:] == [f"{POOL}:complex", "edge:pools-closed"]
        began_s = asyncio.get_running_loop().time()
        async with aclosing(bench.hierarchy.complete(prompt_of(HARD))) as deltas:
            assert (await anext(deltas)).text == "e"
            assert asyncio.get_running_loop().time() - began_s == pytest.approx(1.2), "the edge was ready"
        assert cloud.started == 6
        assert bench.seen[-1].tier is Tier.EDGE

    run(scenario())
