"""The coordinator's spine, a Completer made of Completers: remember, decide, ask, fall back.

Until something was said the answer may change hands freely (``opening``). What a cloud writes is given out in whole clauses only, so
one that dies or starves afterwards leaves no half sentence behind: the edge is asked to go on from the last words given. Only an answer
that came to its end, from where it was meant to come from, is remembered.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AsyncExitStack, aclosing
from dataclasses import replace as changed

from msgspec.structs import replace

from coordinator.attempt import Attempt
from coordinator.cache.answers import AnswerCache, Remembered
from coordinator.clauses import speech_s
from coordinator.continuation import continued
from coordinator.first_clause import draft
from coordinator.opening import DOUBTS, Desk, Opening, Routes
from coordinator.pools import Pools
from coordinator.routing.policy import Conditions
from coordinator.turns import RoutingDecision, Tier
from models.engines import Completer
from models.errors import CompletionError
from models.prompts import CompletionDelta, Prompt

STALL_S = 2.0
"""A cloud that has begun may pause this long between two tokens, or its first-token time if that is longer. A busy pool takes 0.1 s."""
LAG_S = 1.2
"""A listener who has heard all may wait this long while tokens trickle in, or the first-token time if that is longer. A guess."""
BEING_WRITTEN = "being-written"
"""Reason of a turn that hears what somebody else is answered."""


def _ignore(_decision: RoutingDecision) -> None:
    """Observe nothing."""


def _ignore_hit(_prompt: Prompt, _answer: str) -> None:
    """Sample nothing."""


class Hierarchy:
    """Answers from memory, from the edge's model or from the cloud's, and says why."""

    def __init__(
        self,
        edge: Completer,
        clouds: Mapping[str, Completer],
        cache: AnswerCache,
        router: Routes,
        *,
        conditions: Callable[[], Conditions] = Conditions,
        observe: Callable[[RoutingDecision], None] = _ignore,
        doubt_threshold: float | None = None,
        now: Callable[[], float] = time.monotonic,
        dice: random.Random | None = None,
        recalled: Callable[[Prompt, str], None] = _ignore_hit,
    ) -> None:
        """``clouds`` has a way to each pool; ``recalled`` hears what was answered from memory; ``doubt_threshold`` is a mean log-probability, None for an edge that never doubts.

        ``now`` and ``dice`` are for the breakers; turns are timed by the loop's clock.
        """
        self.pools = Pools(clouds, now=now, dice=dice)
        """For metrics: states of breakers, hedges so far."""
        self._cache = cache
        self._recalled_to = recalled
        self._desk = Desk(edge, self.pools, router, conditions, observe, doubt_threshold)

    async def complete(self, prompt: Prompt) -> AsyncGenerator[CompletionDelta, None]:
        """Yield the answer from the cheapest place that can give it; raise CompletionError when no place can.

        Who asks what somebody else is being answered hears that answer from its beginning.
        """
        key = self._cache.key(prompt)
        remembered = await self._cache.get(prompt)
        decision = self._decide(prompt)
        if remembered is not None:
            yield self._recalled(decision, prompt, remembered)
            return
        if key is None:
            answer = self._write(prompt, decision)
        else:
            if key in self._cache.flights:
                self._desk.observe(replace(decision, tier=Tier.CACHE, pool="", reason=BEING_WRITTEN))
            answer = self._cache.flights.join(key, lambda: self._write_once(key, prompt, decision))
        async with aclosing(answer) as deltas:
            async for delta in deltas:
                yield delta

    async def _write_once(
        self, key: str, prompt: Prompt, decision: RoutingDecision
    ) -> AsyncGenerator[CompletionDelta, None]:
        """Yield an answer that only one node at a time writes."""
        async with self._cache.making(key) as made_elsewhere:
            if made_elsewhere is not None:
                yield self._recalled(decision, prompt, made_elsewhere)
                return
            async with aclosing(self._write(prompt, decision)) as deltas:
                async for delta in deltas:
                    yield delta

    def _recalled(self, decision: RoutingDecision, prompt: Prompt, remembered: Remembered) -> CompletionDelta:
        self._recalled_to(prompt, remembered.text)
        self._desk.observe(replace(decision, tier=Tier.CACHE, pool="", reason="remembered"))
        return CompletionDelta(text=remembered.text, model=remembered.model, is_kept=True)

    async def _write(self, prompt: Prompt, decision: RoutingDecision) -> AsyncGenerator[CompletionDelta, None]:
        """Yield a new answer and remember it."""
        answer, model = "", ""
        last = decision

        def observe(made: RoutingDecision) -> None:
            nonlocal last
            last = made
            self._desk.observe(made)

        async with aclosing(self._ask(changed(self._desk, observe=observe), decision, prompt)) as deltas:
            async for delta in deltas:
                answer += delta.text
                model = model or delta.model
                yield delta
        if (last.tier is decision.tier or last.reason == DOUBTS) and self._cache.put(prompt, answer, model):
            yield CompletionDelta(text="", is_kept=True)

    def _decide(self, prompt: Prompt) -> RoutingDecision:
        policy = self._desk.routes.policy_for(prompt.device_id)
        conditions = self._desk.conditions()
        closed = conditions.closed_pools | self.pools.closed(policy)
        return self._desk.routes.decide(prompt, changed(conditions, closed_pools=closed))

    async def _ask(
        self, desk: Desk, decision: RoutingDecision, prompt: Prompt
    ) -> AsyncGenerator[CompletionDelta, None]:
        """Yield what the decided tier answers, or whoever takes its place; a private prompt never leaves."""
        if decision.tier is Tier.CLOUD and desk.routes.policy_for(prompt.device_id).edge_speaks_first:
            begun = await draft(desk.edge, prompt)
            if begun:
                yield CompletionDelta(text=begun)
                prompt = continued(prompt, begun, prompt.budget_ms / 1000)
        async with AsyncExitStack() as stack:
            opening = Opening(desk, prompt, decision, stack)
            speaker = await opening.speaker()
            async with aclosing(_spoken(opening, speaker)) as deltas:
                async for delta in deltas:
                    yield delta


async def _spoken(opening: Opening, speaker: Attempt) -> AsyncGenerator[CompletionDelta, None]:
    """Yield the answer of who speaks, finished by the edge if that is a cloud that does not come to its end."""
    if speaker.decision.tier is Tier.CLOUD:
        given, waited_s = "", 0.0
        stall_s, lag_s = (max(limit_s, opening.first_token_s) for limit_s in (STALL_S, LAG_S))
        try:
            while True:
                since_s = _now_s()
                delta = await speaker.next(stall_s=stall_s, lag_s=speech_s(given) + lag_s - waited_s)
                waited_s += _now_s() - since_s
                if delta is None:
                    return
                given += delta.text
                yield delta
        except CompletionError as error:
            speaker.fail(error)
        speaker = opening.finish(given)
    while (delta := await speaker.next()) is not None:
        yield delta


def _now_s() -> float:
    return asyncio.get_running_loop().time()
