"""The first pool that speaks: each is asked in turn until one has a word to say; after that nobody takes its place."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing

from msgspec.structs import replace

from coordinator.breaker import Call, Outcome
from coordinator.openai_api.choice import ASKED_FOR
from coordinator.pools import Pools
from coordinator.turns import RoutingDecision
from models.errors import CompletionError, DeadlineError, OverloadedError
from models.prompts import CompletionDelta, Prompt


class Speaking:
    """An answer that has begun; read ``deltas`` once. Whoever opened it closes it through the stack."""

    def __init__(
        self,
        decision: RoutingDecision,
        first: CompletionDelta | None,
        rest: AsyncGenerator[CompletionDelta, None],
        call: Call | None,
    ) -> None:
        self.decision = decision
        """Who speaks, and why."""
        self._first = first
        self._rest = rest
        self._call = call

    async def deltas(self) -> AsyncGenerator[CompletionDelta, None]:
        """Yield the answer; raise CompletionError when it breaks off."""
        if self._first is not None:
            yield self._first
        try:
            async for delta in self._rest:  # closed by the stack
                yield delta
        except CompletionError as error:
            _end(self._call, _outcome(error))
            raise
        _end(self._call, Outcome.GOOD)


class Opener:
    """Asks pools in turn; ``charge`` hears of each answer that the routing policy pays for."""

    def __init__(self, pools: Pools, charge: Callable[[RoutingDecision], None]) -> None:
        self._pools = pools
        self._charge = charge

    async def speaking(
        self, steps: Sequence[RoutingDecision], prompt: Prompt, first_token_s: float, stack: AsyncExitStack
    ) -> Speaking:
        """Return the first answer with a word in it, which the stack then closes; raise the CompletionError of the last pool asked.

        A pool with another one after it may be silent for ``first_token_s``; one that was left alone for failing lately is asked only when
        nobody else is left.
        """
        began_s = _now_s()
        error: CompletionError | None = None
        for place, step in enumerate(steps):
            is_last = place == len(steps) - 1
            call = self._pools.begin(step.pool, may_probe=True)
            if call is None and not is_last:
                continue
            left_ms = prompt.budget_ms - int((_now_s() - began_s) * 1000)
            if left_ms <= 0:
                _end(call, Outcome.NEITHER)
                break
            decision = step if error is None else replace(step, reason=error.code)
            asked = replace(prompt, budget_ms=left_ms)
            try:
                return await self._begun(decision, asked, call, None if is_last else first_token_s, stack)
            except CompletionError as failed:
                error = failed
        raise error or DeadlineError("the budget ran out")

    async def _begun(
        self,
        decision: RoutingDecision,
        prompt: Prompt,
        call: Call | None,
        first_token_s: float | None,
        stack: AsyncExitStack,
    ) -> Speaking:
        rest = self._pools.completer(decision.pool).complete(prompt)
        async with AsyncExitStack() as attempt:
            attempt.callback(_end, call, Outcome.NEITHER)
            await attempt.enter_async_context(aclosing(rest))
            try:
                async with asyncio.timeout(first_token_s):
                    first = await _first(rest)
            except TimeoutError as error:
                _end(call, Outcome.BAD)
                raise DeadlineError(f"{decision.pool}: no first word within {first_token_s or 0:g} s") from error
            except CompletionError as error:
                _end(call, _outcome(error))
                raise
            if decision.reason != ASKED_FOR:
                self._charge(decision)
            stack.push_async_exit(attempt.pop_all())
        return Speaking(decision, first, rest, call)


async def _first(deltas: AsyncGenerator[CompletionDelta, None]) -> CompletionDelta | None:
    """Return the first delta with a word in it, the last one of an answer without any, None when there was none at all."""
    last = None
    async for delta in deltas:  # closed by the caller
        last = delta
        if delta.text:
            break
    return last


def _outcome(error: CompletionError) -> Outcome:
    return Outcome.FULL if isinstance(error, OverloadedError) else Outcome.BAD


def _end(call: Call | None, outcome: Outcome) -> None:
    if call is not None:
        call.ended(outcome)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
