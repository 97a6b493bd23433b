"""One completer writing one answer in a task of its own, so that several can be waited for at once and any of them dropped."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from contextlib import aclosing, suppress
from math import inf, isinf
from typing import Protocol

from coordinator.breaker import Call, Outcome
from coordinator.clauses import says_something
from coordinator.turns import RoutingDecision
from models.engines import Completer
from models.errors import CompletionError, DeadlineError, OverloadedError
from models.prompts import CompletionDelta, Prompt
from models.stopping import stopped

AHEAD = 64
"""Pieces kept for a reader that is elsewhere; then the completer waits. A whole short answer."""

_SOON_S = 1e-6
"""A timer this near is due: clocks are not exact."""


class Gate(Protocol):
    """Decides what of an answer may be given out: ``clauses.Passing``, ``clauses.Clauses``, ``doubt.Doubt``."""

    def feed(self, delta: CompletionDelta) -> str:
        """Return the text that may be given out now; raise CompletionError for what is no answer."""
        ...

    def flush(self) -> str:
        """Return what is left at the end of the answer."""
        ...


class Attempt:
    """An answer under way from the moment it is made; read it with ``next``. Nothing of it runs once ``close`` has returned."""

    def __init__(
        self,
        completer: Completer,
        prompt: Prompt,
        decision: RoutingDecision,
        changed: asyncio.Event,
        *,
        gate: Gate,
        ahead: int = AHEAD,
        call: Call | None = None,
        begun: Callable[[Attempt], None] = lambda _attempt: None,
    ) -> None:
        """``changed`` is set whenever something comes or ends; ``begun`` is called at the first text; ``call`` hears how it ended."""
        self.decision = decision
        self.gate = gate
        self.asked_s = _now_s()
        self._heard_s = self.asked_s
        self.begun_s: float | None = None
        """When its first text came."""
        self._completer = completer
        self._prompt = prompt
        self._changed = changed
        self._ahead = ahead
        self._call = call
        self._begun = begun
        self._model = ""
        self._blank = ""
        self._says = False
        self._line: deque[CompletionDelta] = deque()
        self._room = asyncio.Event()
        self._task = asyncio.create_task(self._pump(), name=f"attempt-{decision.tier}")
        self._task.add_done_callback(lambda _task: changed.set())

    @property
    def is_ready(self) -> bool:
        """Whether it has words to say now."""
        return bool(self._line)

    @property
    def is_probe(self) -> bool:
        """Whether it finds out if its pool is back."""
        return self._call is not None and self._call.is_probe

    @property
    def error(self) -> CompletionError | None:
        """What it ended with, an answer without a word included; None while it goes on or when all is well. Raises what is not ours."""
        if not self._task.done() or self._line:
            return None
        if self._task.cancelled():
            return CompletionError(f"{self.decision.tier}: cancelled by itself")
        error = self._task.exception()
        if error is not None and not isinstance(error, CompletionError):
            raise error
        if error is None and not self._says:
            return CompletionError(f"{self.decision.tier}: the answer was empty")
        return error

    def fail(self, error: CompletionError) -> None:
        """Report the failure to the pool's breaker and stop."""
        if self._call is not None:
            self._call.ended(Outcome.FULL if isinstance(error, OverloadedError) else Outcome.BAD)
        self.drop()

    def drop(self) -> None:
        """Stop at once, without a word to the breaker; ``close`` waits for the end."""
        if self._call is not None:
            self._call.ended(Outcome.NEITHER)
        self._task.cancel()

    async def close(self) -> None:
        """Stop and return once nothing runs, whatever it raised; being cancelled meanwhile is raised only then."""
        self.drop()
        await stopped(self._task)

    async def next(self, *, stall_s: float = inf, lag_s: float = inf) -> CompletionDelta | None:
        """Return the next piece, None at the end; raise the error it ended with.

        Raises DeadlineError when no token came for ``stall_s``, or no piece for ``lag_s`` though tokens trickle in.
        """
        since_s = _now_s()
        while not self._line and not self._task.done():
            until_s = min(max(since_s, self._heard_s) + stall_s, since_s + lag_s)
            if _now_s() >= until_s - _SOON_S:
                raise DeadlineError(f"{self.decision.tier}: nothing more to say for {_now_s() - since_s:.3g} s")
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout_at(None if isinf(until_s) else until_s):
                    await self._changed.wait()
        if self._line:
            self._room.set()
            return self._line.popleft()
        if error := self.error:
            raise error
        if self._call is not None:
            self._call.ended(Outcome.GOOD)
        return None

    async def _pump(self) -> None:
        usage = None
        async with aclosing(self._completer.complete(self._prompt)) as deltas:
            async for delta in deltas:
                self._heard_s = _now_s()
                if delta.text and self.begun_s is None:
                    self.begun_s = self._heard_s
                    self._begun(self)
                    self._changed.set()
                self._model = self._model or delta.model
                usage = delta.usage or usage
                await self._give(self.gate.feed(delta))
        await self._give(self.gate.flush())
        if usage is not None and self._says:
            self._line.append(CompletionDelta(text="", usage=usage))

    async def _give(self, text: str) -> None:
        """Put text into the line, from the first on that has something to say."""
        if not text:
            return
        self._blank += text
        self._says = self._says or says_something(text)
        if not self._says:
            return
        self._line.append(CompletionDelta(text=self._blank, model=self._model))
        self._blank = ""
        self._changed.set()
        while len(self._line) >= self._ahead:
            self._room.clear()
            await self._room.wait()


def _now_s() -> float:
    return asyncio.get_running_loop().time()
