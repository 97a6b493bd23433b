from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from edge.sampling import HitSampler, Sample
from models.engines import Completer
from models.errors import CompletionError
from models.prompts import CompletionDelta, Message, Prompt
from tests.virtual_time import run

PROMPT = Prompt(turn_id="t", messages=(Message(role="user", text="法国的首都是哪里"),))


class Fresh:
    def __init__(self, text: str = "巴黎是法国的首都。", *, fails: bool = False) -> None:
        self.text, self.fails, self.calls, self.running = text, fails, 0, 0

    async def complete(self, _prompt: Prompt) -> AsyncGenerator[CompletionDelta, None]:
        self.calls += 1
        self.running += 1
        try:
            await asyncio.sleep(1)
            if self.fails:
                raise CompletionError("no")
            yield CompletionDelta(text=self.text)
        finally:
            self.running -= 1


def sampler(fresh: Completer, seen: list[Sample], *, share: float = 1.0, busy: bool = False) -> HitSampler:
    return HitSampler(fresh, share=share, is_busy=lambda: busy, observe=seen.append)


@pytest.mark.parametrize(
    ("fresh", "expected"),
    [(Fresh(), "agrees"), (Fresh("我不知道你在说什么呀。"), "differs"), (Fresh(fails=True), "failed")],
)
def test_a_hit_is_asked_again_and_compared(fresh: Fresh, expected: Sample) -> None:
    async def scenario() -> None:
        seen: list[Sample] = []
        async with sampler(fresh, seen).open() as sampled:
            sampled.hit(PROMPT, "法国的首都是巴黎。")
            assert not seen
            await asyncio.sleep(2)
            assert seen == [expected]

    run(scenario())


def test_one_is_asked_at_a_time_and_none_while_the_node_is_busy_or_the_share_is_nothing() -> None:
    async def scenario() -> None:
        fresh, seen = Fresh(), list[Sample]()
        async with sampler(fresh, seen).open() as sampled:
            for _ in range(10):
                sampled.hit(PROMPT, "巴黎。")
            await asyncio.sleep(2)
            assert fresh.calls == 1
        for quiet in (sampler(fresh, seen, busy=True), sampler(fresh, seen, share=0.0)):
            async with quiet.open() as unsampled:
                unsampled.hit(PROMPT, "巴黎。")
                await asyncio.sleep(2)
        assert fresh.calls == 1

    run(scenario())


def test_leaving_stops_what_is_asked_and_nothing_is_asked_afterwards() -> None:
    async def scenario() -> None:
        fresh, seen = Fresh(), list[Sample]()
        async with sampler(fresh, seen).open() as sampled:
            sampled.hit(PROMPT, "巴黎。")
            await asyncio.sleep(0.5)
            assert fresh.running == 1
        assert fresh.running == 0
        sampled.hit(PROMPT, "巴黎。")
        assert (fresh.calls, seen) == (1, [])

    run(scenario())
