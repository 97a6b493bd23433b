from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from coordinator.attempt import AHEAD, Attempt, Gate
from coordinator.breaker import Breaker, Outcome, State
from coordinator.clauses import Clauses, Passing
from coordinator.turns import RoutingDecision, Tier
from models.engines import Completer
from models.errors import CloudUnreachableError, CompletionError, DeadlineError
from models.prompts import CompletionDelta, Prompt, Usage
from models.scripted import ScriptedCompleter
from tests.coordinator.sources import EASY, HANG, Source, Wait, prompt_of
from tests.virtual_time import run

DECISION = RoutingDecision(turn_id="t", tier=Tier.CLOUD, reason="complex", pool="p")


def attempt(
    completer: Completer, *, gate: Gate | None = None, ahead: int = AHEAD, breaker: Breaker | None = None
) -> Attempt:
    call = breaker.begin() if breaker else None
    changed = asyncio.Event()
    return Attempt(completer, prompt_of(EASY), DECISION, changed, gate=gate or Passing(), ahead=ahead, call=call)


async def read(made: Attempt) -> list[CompletionDelta]:
    deltas = []
    while (delta := await made.next()) is not None:
        deltas.append(delta)
    return deltas


def test_an_answer_comes_through_with_its_model_and_usage() -> None:
    async def scenario() -> None:
        made = attempt(ScriptedCompleter({EASY: "一百度。就是。"}, model="m"), gate=Clauses())
        deltas = await read(made)
        assert [(delta.text, delta.model) for delta in deltas] == [("一百度。", "m"), ("就是。", "m"), ("", "")]
        assert deltas[-1].usage == Usage(prompt_tokens=len(EASY), completion_tokens=7)
        await made.close()

    run(scenario())


def test_blanks_wait_for_the_first_word() -> None:
    async def scenario() -> None:
        made = attempt(Source(" \n", "嗯", "。"))
        assert [delta.text for delta in await read(made)] == [" \n嗯", "。"]
        await made.close()

    run(scenario())


@pytest.mark.parametrize("said", ["", "。", " \n "])
def test_an_answer_without_a_word_is_an_error(said: str) -> None:
    async def scenario() -> None:
        made = attempt(Source(said))
        with pytest.raises(CompletionError, match="empty"):
            await made.next()
        assert not made.is_ready
        await made.close()

    run(scenario())


def test_what_came_before_an_error_is_read_first() -> None:
    async def scenario() -> None:
        made = attempt(Source("好的。", "没说", CloudUnreachableError("x")), gate=Clauses())
        await asyncio.sleep(1)
        assert made.error is None
        delta = await made.next()
        assert delta is not None
        assert delta.text == "好的。"
        assert isinstance(made.error, CloudUnreachableError)
        with pytest.raises(CloudUnreachableError):
            await made.next()
        await made.close()

    run(scenario())


class Odd:
    """Fails in ways a completer must not."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    async def complete(self, prompt: Prompt) -> AsyncGenerator[CompletionDelta, None]:
        await asyncio.sleep(0)
        raise self.error
        yield


def test_an_engine_that_is_shut_down_counts_as_failed_and_what_is_not_ours_is_raised() -> None:
    async def scenario() -> None:
        made = attempt(Odd(asyncio.CancelledError()))
        with pytest.raises(CompletionError, match="cancelled by itself"):
            await made.next()
        await made.close()
        made = attempt(Odd(KeyError("bug")))
        with pytest.raises(KeyError):
            await made.next()
        await made.close()

    run(scenario())


def test_a_reader_that_is_elsewhere_makes_the_completer_wait() -> None:
    async def scenario() -> None:
        source = Source("一二三四五六七八")
        made = attempt(source, ahead=2)
        await asyncio.sleep(60)
        assert source.open == 1
        assert len([await made.next() for _ in range(8)]) == 8
        assert await made.next() is None
        assert source.open == 0
        await made.close()

    run(scenario())


def test_stalls_and_trickles_end_the_wait() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        made = attempt(Source("好的。", "一", Wait(1.5), "二", HANG), gate=Clauses())
        delta = await made.next()
        assert delta is not None
        with pytest.raises(DeadlineError):
            await made.next(stall_s=2.0)
        assert loop.time() == pytest.approx(3 * 0.05 + 0.05 + 1.5 + 0.05 + 2.0), "two seconds after the last token"
        with pytest.raises(DeadlineError):
            await made.next(stall_s=9.0, lag_s=1.0)
        await made.close()

    run(scenario())


def test_closing_stops_it_and_is_neither_good_nor_bad_for_its_pool() -> None:
    async def scenario() -> None:
        breaker, source = Breaker(failures=1), Source(HANG)
        made = attempt(source, breaker=breaker)
        await asyncio.sleep(0.1)
        await made.close()
        assert source.open == 0
        assert (breaker.state, breaker.failures_in_row) == (State.CLOSED, 0)

    run(scenario())


def test_an_answer_read_to_its_end_is_good_for_its_pool_and_a_failure_bad() -> None:
    async def scenario() -> None:
        breaker = Breaker(failures=2)
        for source, expected in ((Source(HANG), 1), (Source("好。"), 0), (Source(HANG), 1)):
            made = attempt(source, breaker=breaker)
            if expected:
                made.fail(CompletionError("x"))
            else:
                await read(made)
            await made.close()
            assert breaker.failures_in_row == expected
        assert Outcome.GOOD

    run(scenario())


def test_closing_goes_on_when_cancelled_meanwhile() -> None:
    class Slow(Source):
        async def complete(self, prompt: Prompt) -> AsyncGenerator[CompletionDelta, None]:
            try:
                async for delta in super().complete(prompt):
                    yield delta
            finally:
                await asyncio.sleep(1)

    async def scenario() -> None:
        source = Slow("好" * 100)
        made = attempt(source)
        await asyncio.sleep(0.1)
        closing = asyncio.create_task(made.close())
        await asyncio.sleep(0.5)
        closing.cancel()
        await asyncio.wait([closing])
        assert closing.cancelled()
        assert asyncio.get_running_loop().time() == pytest.approx(1.1)

    run(scenario())
