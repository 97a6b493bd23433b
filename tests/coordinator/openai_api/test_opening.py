from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest

from coordinator.breaker import FAILURES, State
from coordinator.openai_api.opening import Opener
from coordinator.pools import Pools
from coordinator.turns import RoutingDecision, Tier
from models.errors import CompletionError, DeadlineError, OverloadedError
from models.prompts import Message, Prompt
from models.scripted import ScriptedCompleter
from tests.virtual_time import run

PROMPT = Prompt(turn_id="api-1", messages=(Message(role="user", text="问"),), budget_ms=30_000)
FIRST_TOKEN_S = 4.0


def step(pool: str, reason: str = "complex") -> RoutingDecision:
    return RoutingDecision(turn_id="api-1", tier=Tier.CLOUD, pool=pool, reason=reason)


def scripted(text: str = "好的", **plan: Any) -> ScriptedCompleter:
    return ScriptedCompleter(lambda _: text, **plan)


class Desk:
    def __init__(self, **completers: ScriptedCompleter) -> None:
        self.completers: Mapping[str, ScriptedCompleter] = completers
        self.pools = Pools(completers)
        self.charged: list[str] = []
        self.steps = [step(name) for name in completers]

    async def ask(self, *steps: RoutingDecision, prompt: Prompt = PROMPT) -> tuple[str, str, str]:
        opener = Opener(self.pools, lambda decision: self.charged.append(decision.pool))
        async with AsyncExitStack() as stack:
            speaking = await opener.speaking(steps or self.steps, prompt, FIRST_TOKEN_S, stack)
            text = "".join([delta.text async for delta in speaking.deltas()])
        assert not any(completer.calls.running for completer in self.completers.values())
        return text, speaking.decision.pool, speaking.decision.reason


def test_first_pool_that_speaks_is_heard_out_and_paid() -> None:
    async def work() -> tuple[Any, list[str], int]:
        desk = Desk(a=scripted("一二"), b=scripted("三"))
        return await desk.ask(), desk.charged, len(desk.completers["b"].prompts)

    assert run(work()) == (("一二", "a", "complex"), ["a"], 0)


@pytest.mark.parametrize(
    ("plan", "reason"),
    [
        ({"fail_at_token": 0}, "llm-failed"),
        ({"fail_at_token": 0, "error": OverloadedError}, "llm-overloaded"),
        ({"first_token_s": 5.0}, "llm-deadline"),
    ],
)
def test_pool_that_does_not_speak_is_replaced_and_the_reason_told(plan: dict[str, Any], reason: str) -> None:
    async def work() -> tuple[Any, list[str]]:
        desk = Desk(a=scripted(**plan), b=scripted("三"))
        return await desk.ask(), desk.charged

    assert run(work()) == (("三", "b", reason), ["b"])


def test_last_pool_may_take_what_is_left_of_the_budget() -> None:
    async def work() -> tuple[Any, int]:
        desk = Desk(a=scripted(first_token_s=100), b=scripted("三", first_token_s=20.0))
        return await desk.ask(), desk.completers["b"].prompts[0].budget_ms

    assert run(work()) == (("三", "b", "llm-deadline"), 26_000)


def test_error_of_the_last_pool_is_raised() -> None:
    async def work() -> None:
        await Desk(a=scripted(fail_at_token=0), b=scripted(fail_at_token=0, error=OverloadedError)).ask()

    with pytest.raises(OverloadedError):
        run(work())


def test_nobody_takes_over_after_the_first_word() -> None:
    async def work() -> int:
        desk = Desk(a=scripted("一二", fail_at_token=1), b=scripted("三"))
        with pytest.raises(CompletionError):
            await desk.ask()
        return len(desk.completers["b"].prompts)

    assert run(work()) == 0


def test_pool_that_keeps_failing_is_left_alone_unless_nobody_else_is_left() -> None:
    async def work() -> tuple[Any, State, int]:
        desk = Desk(a=scripted(fail_at_token=0), b=scripted("三"))
        for _ in range(FAILURES + 2):
            answer = await desk.ask()
        with pytest.raises(CompletionError):
            await desk.ask(step("a", "asked-for"))
        return answer, desk.pools.breaker("a").state, len(desk.completers["a"].prompts)

    assert run(work()) == (("三", "b", "complex"), State.OPEN, FAILURES + 1)


def test_answer_that_breaks_off_counts_against_its_pool() -> None:
    async def work() -> int:
        desk = Desk(a=scripted("一二", fail_at_token=1))
        with pytest.raises(CompletionError):
            await desk.ask()
        return desk.pools.breaker("a").failures_in_row

    assert run(work()) == 1


def test_cancelling_while_nobody_spoke_stops_the_model_and_says_nothing_of_the_pool() -> None:
    async def work() -> tuple[int, int]:
        desk = Desk(a=scripted(first_token_s=3.0))
        task = asyncio.create_task(desk.ask())
        await asyncio.sleep(1)
        task.cancel()
        await asyncio.wait([task])
        return desk.completers["a"].calls.running, desk.pools.breaker("a").failures_in_row

    assert run(work()) == (0, 0)


def test_budget_that_is_over_asks_nobody_more() -> None:
    async def work() -> int:
        desk = Desk(a=scripted(first_token_s=100), b=scripted())
        with pytest.raises(DeadlineError):
            await desk.ask(prompt=Prompt(turn_id="api-1", messages=PROMPT.messages, budget_ms=3_900))
        return len(desk.completers["b"].prompts)

    assert run(work()) == 0


def test_model_asked_for_by_name_is_not_charged_to_the_policy() -> None:
    async def work() -> list[str]:
        desk = Desk(a=scripted())
        await desk.ask(step("a", "asked-for"))
        return desk.charged

    assert run(work()) == []
