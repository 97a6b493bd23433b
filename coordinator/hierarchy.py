"""The coordinator's spine, a Completer made of Completers: remember, score, choose, ask, fall back.

An answer changes hands only before its first word: once something was said, a failure is reported. Only an answer that came to its
end is remembered; neither a failed nor an interrupted one is.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field

import msgspec

from coordinator.cache.answers import AnswerCache
from coordinator.routing.policy import Conditions, Policy
from coordinator.turns import RoutingDecision, Tier
from models.engines import Completer
from models.errors import CompletionError, DeadlineError
from models.prompts import CompletionDelta, Prompt

FIRST_TOKEN_S = 4.0
"""How long the cloud may be silent before the edge answers instead. A guess that leaves a slow first token its chance on a CPU."""


def _ignore(_decision: RoutingDecision) -> None:
    """Observe nothing."""


@dataclass(frozen=True, slots=True)
class Hierarchy:
    """Answers from memory, from the edge's model or from the cloud's, and says why."""

    edge: Completer
    cloud: Completer
    cache: AnswerCache
    policy: Callable[[], Policy] = Policy
    conditions: Callable[[], Conditions] = Conditions
    observe: Callable[[RoutingDecision], None] = _ignore
    first_token_s: float = field(default=FIRST_TOKEN_S, kw_only=True)

    async def complete(self, prompt: Prompt) -> AsyncGenerator[CompletionDelta, None]:
        """Yield the answer from the cheapest place that can give it; raise CompletionError when no place can."""
        remembered = await self.cache.get(prompt)
        decision = self.policy().decide(prompt, self.conditions())
        if remembered is not None:
            self.observe(msgspec.structs.replace(decision, tier=Tier.CACHE, reason="remembered"))
            yield CompletionDelta(text=remembered.text, model=remembered.model)
            return

        answer, model = "", ""
        async with aclosing(self._ask(decision, prompt)) as deltas:
            async for delta in deltas:
                answer += delta.text
                model = model or delta.model
                yield delta
        await self.cache.put(prompt, answer, model)

    async def _ask(self, decision: RoutingDecision, prompt: Prompt) -> AsyncGenerator[CompletionDelta, None]:
        """Ask the decided tier, and the other one when it fails before its first word; a private prompt never leaves."""
        self.observe(decision)
        try:
            first, rest = await self._first(decision.tier, prompt)
        except CompletionError as error:
            other = Tier.EDGE if decision.tier is Tier.CLOUD else Tier.CLOUD
            may_leave = not prompt.is_private and self.conditions().cloud_reachable
            if other is Tier.CLOUD and not (error.retryable and may_leave):
                raise
            self.observe(msgspec.structs.replace(decision, tier=other, reason=error.code))
            first, rest = await self._first(other, prompt)
        async with aclosing(rest):
            yield first
            async for delta in rest:
                yield delta

    async def _first(self, tier: Tier, prompt: Prompt) -> tuple[CompletionDelta, AsyncGenerator[CompletionDelta, None]]:
        """Return the first piece that says something and the open rest; raise CompletionError with the stream closed."""
        completer = self.cloud if tier is Tier.CLOUD else self.edge
        limit_s = self.first_token_s if tier is Tier.CLOUD else prompt.budget_ms / 1000
        async with AsyncExitStack() as unless_it_speaks:
            stream = await unless_it_speaks.enter_async_context(aclosing(completer.complete(prompt)))
            try:
                async with asyncio.timeout(limit_s):
                    async for delta in stream:
                        if delta.text:
                            unless_it_speaks.pop_all()
                            return delta, stream
            except TimeoutError as error:
                raise DeadlineError(f"{tier}: no first word within {limit_s:g} s") from error
        raise CompletionError(f"{tier}: the answer was empty")
