from __future__ import annotations

from collections.abc import Collection

import pytest

from coordinator.openai_api.choice import GLANCE_CHARS, candidates, models
from coordinator.openai_api.refusals import Refusal
from coordinator.openai_api.request import Ask
from coordinator.routing.policy import Conditions, Policy
from coordinator.routing.router import Router
from coordinator.turns import RoutingDecision, Tier
from models.prompts import Image, Message, Prompt
from tests.coordinator.openai_api.site import ALWAYS_CLOUD, NEVER_CLOUD, TERMS

ALL = ("qwen-72b", "qwen-14b", "qwen-vl", "edge")
CLOUDS = ALL[:3]
PICTURE = (Image(media_type="image/jpeg", data=b"\xff\xd8\xff"),)
NEVER_BY_SCORE = 1.0


def ask(model: str = "auto", *, has_picture: bool = False) -> Ask:
    prompt = Prompt(
        turn_id="api-1", messages=(Message(role="user", text="你好"),), images=PICTURE if has_picture else ()
    )
    return Ask(model=model, prompt=prompt)


def chosen(
    asked: Ask, pools: Collection[str], threshold: float = ALWAYS_CLOUD, closed: Collection[str] = ()
) -> list[tuple[str, str, str]] | Refusal:
    router = Router(Policy(router="complexity", threshold=threshold, pools=TERMS), None)
    steps = candidates(asked, router, pools, Conditions(closed_pools=frozenset(closed)))
    if isinstance(steps, Refusal):
        return steps
    return [(step.pool, step.tier, step.reason) for step in steps]


def names(*args: object, **options: object) -> list[str]:
    steps = chosen(*args, **options)  # type: ignore[arg-type]  # a table
    assert not isinstance(steps, Refusal), steps
    return [step[0] for step in steps]


@pytest.mark.parametrize(
    ("pools", "threshold", "closed", "order"),
    [
        (ALL, ALWAYS_CLOUD, (), ["qwen-72b", "qwen-14b", "qwen-vl", "edge"]),
        (CLOUDS, ALWAYS_CLOUD, (), ["qwen-72b", "qwen-14b", "qwen-vl"]),
        (ALL, ALWAYS_CLOUD, ["qwen-72b"], ["qwen-14b", "qwen-vl", "edge"]),
        (["qwen-14b"], ALWAYS_CLOUD, ["qwen-72b"], ["qwen-14b"]),
        (ALL, NEVER_BY_SCORE, (), ["edge", "qwen-14b", "qwen-vl", "qwen-72b"]),
        (CLOUDS, NEVER_BY_SCORE, (), ["qwen-14b", "qwen-vl", "qwen-72b"]),
        (ALL, NEVER_CLOUD, (), ["edge"]),
    ],
)
def test_auto_asks_in_the_policys_order(
    pools: Collection[str], threshold: float, closed: Collection[str], order: list[str]
) -> None:
    assert names(ask(), pools, threshold, closed) == order


def test_reason_is_the_policys_or_that_no_edge_is_here() -> None:
    assert chosen(ask(), ["edge"], NEVER_BY_SCORE) == [("edge", Tier.EDGE, "below-threshold")]
    assert chosen(ask(), ["qwen-14b"], NEVER_BY_SCORE) == [("qwen-14b", Tier.CLOUD, "no-edge-here")]
    assert chosen(ask(), ["qwen-72b"]) == [("qwen-72b", Tier.CLOUD, "complex")]


def test_picture_goes_only_to_pools_that_see() -> None:
    assert chosen(ask(has_picture=True), ALL) == [("qwen-vl", Tier.CLOUD, "picture")]


@pytest.mark.parametrize(
    ("asked", "pools", "threshold", "closed", "status"),
    [
        (ask(has_picture=True), ["qwen-14b", "edge"], ALWAYS_CLOUD, (), 503),
        (ask(has_picture=True), ALL, ALWAYS_CLOUD, ["qwen-vl"], 503),
        (ask(), CLOUDS, NEVER_CLOUD, (), 503),
        (ask(), ["qwen-14b"], ALWAYS_CLOUD, ["qwen-14b"], 503),
        (ask("gpt-4o"), ALL, ALWAYS_CLOUD, (), 404),
        (ask("edge"), CLOUDS, ALWAYS_CLOUD, (), 404),
        (ask("qwen-14b", has_picture=True), ALL, ALWAYS_CLOUD, (), 400),
        (ask("edge", has_picture=True), ALL, ALWAYS_CLOUD, (), 400),
    ],
)
def test_question_nobody_can_answer_is_refused(
    asked: Ask, pools: Collection[str], threshold: float, closed: Collection[str], status: int
) -> None:
    refusal = chosen(asked, pools, threshold, closed)
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.param) == (status, "model")


@pytest.mark.parametrize("model", ALL)
def test_model_asked_for_is_asked_alone(model: str) -> None:
    tier = Tier.EDGE if model == "edge" else Tier.CLOUD
    assert chosen(ask(model), ALL, NEVER_CLOUD, ALL) == [(model, tier, "asked-for")]


def test_model_asked_for_leaves_the_routers_account_alone() -> None:
    router = Router(Policy(router="complexity", cloud_share=0.5, pools=TERMS), None)
    before = router.state
    candidates(ask("qwen-14b"), router, ALL, Conditions())
    assert router.state == before


def test_models_are_auto_and_the_pools() -> None:
    assert models(ALL) == ("auto", "edge", "qwen-14b", "qwen-72b", "qwen-vl")


def test_pool_that_sees_beside_the_policy_takes_pictures_by_name_only() -> None:
    router = Router(Policy(router="complexity", threshold=ALWAYS_CLOUD), None)
    for model, is_taken in (("qwen-vl", True), ("auto", False)):
        steps = candidates(ask(model, has_picture=True), router, ALL, Conditions(), ["qwen-vl"])
        assert isinstance(steps, Refusal) is not is_taken


def test_long_question_is_routed_by_its_ends() -> None:
    seen: list[str] = []

    class Reading(Router):
        def decide(self, prompt: Prompt, conditions: Conditions) -> RoutingDecision:
            seen.append(prompt.question)
            return super().decide(prompt, conditions)

    router = Reading(Policy(router="complexity", threshold=ALWAYS_CLOUD, pools=TERMS), None)
    for text in ("短", "头" + "中" * GLANCE_CHARS + "尾"):
        prompt = Prompt(turn_id="api-1", messages=(Message(role="user", text=text),))
        candidates(Ask(model="auto", prompt=prompt), router, ALL, Conditions())
    short, long = seen
    assert short == "短"
    assert (long[0], long[-1], len(long)) == ("头", "尾", GLANCE_CHARS + 1)
