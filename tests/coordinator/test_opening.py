from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from coordinator.opening import Opening
from coordinator.routing.policy import Policy, PoolTerms
from models.errors import CloudUnreachableError, CompletionError, DeadlineError, OverloadedError
from models.prompts import Image, Message, Prompt
from tests.coordinator.sources import (
    EASY,
    HANG,
    HARD,
    OTHER,
    POOL,
    Bench,
    Plan,
    Source,
    Step,
    Wait,
    policy_of,
    prompt_of,
)
from tests.virtual_time import run

SURE, UNSURE = -0.2, -3.0


def now_s() -> float:
    return asyncio.get_running_loop().time()


async def first(bench: Bench, question: str = HARD) -> tuple[str, float]:
    """Return the first words and how long they took."""
    began_s = now_s()
    async with aclosing(bench.hierarchy.complete(prompt_of(question))) as deltas:
        return (await anext(deltas)).text, now_s() - began_s


def test_its_public_face_is_a_speaker_and_a_finisher() -> None:
    assert {name for name in vars(Opening) if not name.startswith("_")} == {"speaker", "finish"}


# Deadlines


@pytest.mark.parametrize(
    ("plan", "words", "after_s"),
    [
        ((Wait(1.1), "电动汽车，"), "电动汽车，", 1.35),
        ((Wait(1.2), "电动汽车，"), "边", 1.25),
        ((Wait(1.1), "电", Wait(0.4), "动汽车，"), "电动汽车，", 1.75),
        ((Wait(1.1), "电", Wait(0.6), "动汽车，"), "边", 1.8),
        ((Wait(1.1), "电", CloudUnreachableError("x")), "边", 1.2),
    ],
)
def test_the_cloud_has_its_first_token_time_and_half_of_it_more_for_a_clause(
    plan: Plan, words: str, after_s: float
) -> None:
    async def scenario() -> None:
        edge, cloud = Source("边缘。"), Source(*plan)
        bench = Bench(edge, cloud)
        assert await first(bench) == (words, pytest.approx(after_s))
        assert (edge.open, cloud.open) == (0, 0)

    run(scenario())


def test_the_time_is_the_policy_s() -> None:
    async def scenario() -> None:
        bench = Bench(Source("边缘。"), Source(HANG), policy=policy_of(first_token_ms=4000.0))
        assert await first(bench) == ("边", pytest.approx(4.05))

    run(scenario())


def test_an_edge_that_says_nothing_fails_with_the_budget() -> None:
    async def scenario() -> None:
        bench = Bench(Source(HANG), Source(HANG))
        with pytest.raises(DeadlineError, match="no first word within 5 s"):
            await bench.ask(HARD, budget_ms=5000)
        assert now_s() == pytest.approx(5.0)

    run(scenario())


# Several pools


@pytest.mark.parametrize(
    ("step", "reason"), [(OverloadedError("x"), "llm-overloaded"), (CompletionError("x"), "llm-failed")]
)
def test_a_pool_that_fails_fast_is_replaced_by_the_next_and_each_is_charged_for_what_it_said(
    step: Step, reason: str
) -> None:
    async def scenario() -> None:
        edge = Source("边缘。")
        bench = Bench(edge, Source(step), Source("云端。"))
        assert await bench.ask(HARD) == "云端。"
        assert bench.reasons == [f"{POOL}:complex", f"{OTHER}:{reason}"]
        assert edge.started == 0
        assert bench.router.charged == [OTHER]

    run(scenario())


def test_all_pools_together_have_one_first_token_time() -> None:
    async def scenario() -> None:
        clouds = Source(Wait(0.5), OverloadedError("x")), Source(HANG)
        bench = Bench(Source("边缘。"), *clouds)
        assert await first(bench) == ("边", pytest.approx(1.25))
        assert bench.reasons == [f"{POOL}:complex", f"{OTHER}:llm-overloaded", "edge:llm-deadline"]
        late = Source(Wait(0.7), OverloadedError("x")), Source("云端。")
        bench = Bench(Source("边缘。"), *late)
        assert await first(bench) == ("边", pytest.approx(0.75))
        assert late[1].started == 0, "too late to begin with another"

    run(scenario())


def test_a_pool_behind_its_breaker_is_not_the_next() -> None:
    async def scenario() -> None:
        clouds = Source(CompletionError("x")), Source(CompletionError("x"))
        bench = Bench(Source("边缘。"), *clouds)
        for _ in range(9):
            assert await bench.ask(HARD) == "边缘。"
        assert [cloud.started for cloud in clouds] == [5, 5]

    run(scenario())


def test_pool_that_sees_may_look_longer_than_others_may_think() -> None:
    async def scenario() -> None:
        policy = Policy(threshold=0.7, pools=(PoolTerms(name=POOL, vision=True),), first_token_ms=1200.0)
        bench = Bench(Source("边缘。"), Source(Wait(10.0), "一只猫。"), policy=policy)
        prompt = Prompt(
            turn_id="t1",
            messages=(Message(role="user", text=EASY),),
            images=(Image(media_type="image/png", data=b"x"),),
        )
        async with aclosing(bench.hierarchy.complete(prompt)) as deltas:
            assert (await anext(deltas)).text == "一只猫。"

    run(scenario())


def test_only_a_pool_that_sees_is_asked_about_a_picture() -> None:
    async def scenario() -> None:
        clouds = Source(CompletionError("x")), Source("云端。")
        eyes = PoolTerms(name=POOL, vision=True), PoolTerms(name=OTHER)
        bench = Bench(Source("边缘。"), *clouds, policy=Policy(threshold=0.7, pools=eyes))
        prompt = Prompt(
            turn_id="t",
            messages=(Message(role="user", text="这是什么"),),
            images=(Image(media_type="image/png", data=b"x"),),
        )
        async with aclosing(bench.hierarchy.complete(prompt)) as deltas:
            assert "".join([delta.text async for delta in deltas]) == "边缘。"
        assert bench.reasons == [f"{POOL}:picture", "edge:llm-failed"]

    run(scenario())


# Hedging


def hedging(*, share: float = 0.5, cloud: Source | None = None, edge: Source | None = None) -> Bench:
    return Bench(edge or Source("边缘。"), cloud or Source(Wait(0.35), "云端。"), policy=policy_of(hedge_share=share))


async def warmed(bench: Bench) -> None:
    for _ in range(20):
        assert await bench.ask(HARD) == "云端。"
    assert bench.hierarchy.pools.first_tokens(POOL).p95_s == pytest.approx(0.4)
    bench.seen.clear()


def test_a_cloud_later_than_its_p95_gets_the_edge_beside_it_and_the_first_speaks() -> None:
    async def scenario() -> None:
        bench = hedging()
        await warmed(bench)
        cloud = bench.clouds[0]
        assert isinstance(cloud, Source)
        cloud.plan = (Wait(0.75), "云端。")
        began_s = now_s()
        assert await bench.ask(HARD) == "边缘。"
        assert now_s() - began_s == pytest.approx(0.4 + 0.15)
        assert bench.reasons == [f"{POOL}:complex", "edge:edge-was-faster"]
        assert cloud.closed_s[-1] == pytest.approx(began_s + 0.45), "at once"
        assert bench.hierarchy.pools.breaker(POOL).failures_in_row == 0
        cloud.plan = (Wait(0.36), "云端。")
        assert await bench.ask(HARD) == "云端。", "the cloud was faster still"
        assert isinstance(bench.edge, Source)
        assert (bench.edge.started, bench.edge.open) == (2, 0)
        assert bench.hierarchy.pools.hedges.seconds == 2

    run(scenario())


def test_no_more_turns_are_hedged_than_the_share() -> None:
    async def scenario() -> None:
        bench = hedging(share=0.1)
        await warmed(bench)
        cloud, edge = bench.clouds[0], bench.edge
        assert isinstance(cloud, Source)
        assert isinstance(edge, Source)
        cloud.plan = (Wait(1.0), "云端。")
        for _ in range(30):
            await bench.ask(HARD)
        assert bench.hierarchy.pools.hedges.firsts == 50
        assert edge.started == bench.hierarchy.pools.hedges.seconds <= 5

    run(scenario())


def test_without_a_share_nothing_is_hedged() -> None:
    async def scenario() -> None:
        bench = hedging(share=0.0)
        await warmed(bench)
        assert isinstance(bench.clouds[0], Source)
        assert isinstance(bench.edge, Source)
        bench.clouds[0].plan = (Wait(1.0), "云端。")
        assert await bench.ask(HARD) == "云端。"
        assert bench.edge.started == 0

    run(scenario())


def test_a_hedge_that_fails_leaves_the_cloud_its_time() -> None:
    async def scenario() -> None:
        bench = hedging(edge=Source(OverloadedError("full")))
        await warmed(bench)
        assert isinstance(bench.clouds[0], Source)
        bench.clouds[0].plan = (Wait(1.0), "云端。")
        assert await bench.ask(HARD) == "云端。"
        bench.clouds[0].plan = (HANG,)
        with pytest.raises(OverloadedError):
            await bench.ask(HARD)

    run(scenario())


# The edge's own doubt


def doubting(logprob: float, *clouds: Source, **changes: object) -> Bench:
    policy = policy_of(**{"doubt": True, **changes})
    return Bench(Source("水在一百度时沸腾，就是这样。", logprob=logprob), *clouds, policy=policy, doubt_threshold=-1.0)


def test_an_edge_that_doubts_its_first_words_hands_over_before_any_is_said() -> None:
    async def scenario() -> None:
        bench = doubting(UNSURE, Source("云端。"))
        assert await first(bench, EASY) == ("云端。", pytest.approx(8 * 0.05 + 3 * 0.05))
        assert bench.reasons == ["edge:below-threshold", f"{POOL}:doubt"]
        assert bench.router.charged == [POOL]
        assert isinstance(bench.edge, Source)
        assert bench.edge.open == 0
        assert await bench.ask(EASY) == "云端。"
        assert bench.reasons[-1] == f"{POOL}:doubt", "the first was cut off, so nothing was remembered"
        assert await bench.ask(EASY) == "云端。"
        assert bench.reasons[-1] == "cache:remembered"

    run(scenario())


@pytest.mark.parametrize("plan", [(HANG,), (CloudUnreachableError("x"),), ("云", HANG)])
def test_a_doubting_edge_stands_by_and_speaks_when_the_cloud_does_not(plan: Plan) -> None:
    async def scenario() -> None:
        bench = doubting(UNSURE, Source(*plan))
        words, after_s = await first(bench, EASY)
        assert words == "水在一百度时沸腾"
        assert after_s <= 8 * 0.05 + 1.8
        assert bench.seen[-1].tier == "edge"
        assert await bench.ask(EASY) == "水在一百度时沸腾，就是这样。"

    run(scenario())


@pytest.mark.parametrize(
    ("logprob", "changes", "question"),
    [
        (SURE, {}, EASY),
        (UNSURE, {"doubt": False}, EASY),
        (UNSURE, {"threshold": 1.5}, EASY),
        (UNSURE, {"budget_per_day": 0.0, "threshold": None}, EASY),
        (UNSURE, {}, "现在几点了"),
        (UNSURE, {}, "把音量调大一点"),
    ],
)
def test_no_doubt_where_the_edge_is_sure_or_a_rule_or_the_policy_keeps_the_prompt(
    logprob: float, changes: dict[str, object], question: str
) -> None:
    async def scenario() -> None:
        cloud = Source("云端。")
        bench = doubting(logprob, cloud, **changes)
        assert await bench.ask(question) == "水在一百度时沸腾，就是这样。"
        assert cloud.started == 0
        assert len(bench.seen) == 1

    run(scenario())


def test_a_private_prompt_is_answered_whatever_the_edge_thinks_of_it() -> None:
    async def scenario() -> None:
        cloud = Source("云端。")
        bench = doubting(UNSURE, cloud)
        assert await bench.ask(EASY, private=True) == "水在一百度时沸腾，就是这样。"
        assert cloud.started == 0

    run(scenario())


def test_without_a_calibrated_threshold_nothing_is_held_back() -> None:
    async def scenario() -> None:
        bench = Bench(Source("水在一百度沸腾。", logprob=UNSURE), Source("云端。"), policy=policy_of(doubt=True))
        assert await first(bench, EASY) == ("水", pytest.approx(0.05))

    run(scenario())
