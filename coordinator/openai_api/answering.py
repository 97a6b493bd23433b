"""One answer on its way to its client: whole or as a stream, and stopped everywhere the moment the client is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, aclosing, suppress

from msgspec.structs import replace
from starlette.types import Receive, Send

from coordinator.openai_api.choice import ASKED_FOR
from coordinator.openai_api.chunks import DONE, Form, event, finish_reason
from coordinator.openai_api.opening import Speaking
from coordinator.openai_api.refusals import Refusal, refusal_of
from coordinator.openai_api.request import Ask
from coordinator.openai_api.stops import StopWatch
from coordinator.probes import unless_gone
from coordinator.turns import RoutingDecision
from models.errors import CompletionError, DeadlineError
from models.prompts import CompletionDelta, Usage

GONE = "client-gone"
"""What becomes of an answer nobody waits for."""
ANSWERED = "answered"
_STREAM_HEADERS = {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-cache",
    "x-accel-buffering": "no",  # or nginx would keep words back
}
_GRACE_S = 1.0
"""What the last words to a client that does not read may take, and what a budget may be overrun by whoever keeps it himself."""

Opening = Callable[[AsyncExitStack], Awaitable[Speaking]]
"""Returns who speaks, to be closed by the stack; raises CompletionError."""


class Answering:
    """Tells one client one answer; ``run`` it once."""

    def __init__(self, ask: Ask, form: Form, send: Send) -> None:
        self.result = GONE
        """"answered", "client-gone" or an error's code, once ``run`` has returned."""
        self.decision: RoutingDecision | None = None
        """Who spoke, None while nobody has."""
        self._ask = ask
        self._form = form
        self._send = send
        self._has_begun = False

    async def run(self, opening: Opening, receive: Receive) -> Refusal | None:
        """Answer; return the refusal to send instead when not a word was sent. A client that leaves ends everything at once."""
        return await unless_gone(receive, self._answer(opening), name="api-answer")

    async def _answer(self, opening: Opening) -> Refusal | None:
        try:
            async with asyncio.timeout(self._ask.prompt.budget_ms / 1000 + _GRACE_S), AsyncExitStack() as stack:
                speaking = await opening(stack)
                self.decision = speaking.decision
                self._form = replace(self._form, model=speaking.decision.pool)
                await (self._stream(speaking) if self._ask.is_streamed else self._tell(speaking))
                self.result = ANSWERED
                return None
        except TimeoutError:
            error: CompletionError = DeadlineError("the budget ran out")
        except CompletionError as failed:
            error = failed
        self.result = error.code
        refusal = refusal_of(error)
        if not self._has_begun:
            return refusal
        if self._ask.is_streamed:  # a whole answer is all but sent, to a client that does not read
            await self._break_off(refusal)
        return None

    async def _break_off(self, refusal: Refusal) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(_GRACE_S):
                await self._write(event(refusal.body))
                await self._write(b"", is_last=True)

    async def _stream(self, speaking: Speaking) -> None:
        form, words = self._form, _Words(self._ask)
        await self._begin(speaking.decision, _STREAM_HEADERS)
        await self._write(form.opened())
        async with aclosing(words.of(speaking)) as texts:
            async for text in texts:
                await self._write(form.said(text))
        tail = form.finished(words.finish_reason)
        if form.counts:
            tail += form.counted(words.usage)
        await self._write(tail + DONE, is_last=True)

    async def _tell(self, speaking: Speaking) -> None:
        words = _Words(self._ask)
        async with aclosing(words.of(speaking)) as texts:
            text = "".join([text async for text in texts])
        body = self._form.whole(text, words.finish_reason, words.usage)
        await self._begin(speaking.decision, {"content-type": "application/json", "content-length": str(len(body))})
        await self._write(body, is_last=True)

    async def _begin(self, decision: RoutingDecision, headers: Mapping[str, str]) -> None:
        told = {**headers, **decision_headers(decision), "x-request-id": self._form.answer_id}
        raw = [(name.encode(), value.encode()) for name, value in told.items()]
        self._has_begun = True
        await self._send({"type": "http.response.start", "status": 200, "headers": raw})

    async def _write(self, data: bytes, *, is_last: bool = False) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": not is_last})


class _Words:
    """The text of an answer up to its end or to a text that ends it, and how it ended."""

    def __init__(self, ask: Ask) -> None:
        self.usage: Usage | None = None
        self._max_tokens = ask.prompt.max_tokens
        self._watch = StopWatch(ask.stops)

    @property
    def finish_reason(self) -> str:
        return finish_reason(self.usage, self._max_tokens)

    async def of(self, speaking: Speaking) -> AsyncGenerator[str, None]:
        """Yield pieces that are not empty."""
        async with aclosing(speaking.deltas()) as deltas:
            async for delta in deltas:
                if text := self._take(delta):
                    yield text
                if self._watch.has_stopped:
                    return
        if text := self._watch.flush():
            yield text

    def _take(self, delta: CompletionDelta) -> str:
        self.usage = delta.usage or self.usage
        return self._watch.feed(delta.text)


def decision_headers(decision: RoutingDecision) -> dict[str, str]:
    """Return why the answer came from where it came, for people and gateways; no score where none was needed."""
    headers = {
        "x-fleet-tier": str(decision.tier),
        "x-fleet-pool": decision.pool,
        "x-fleet-reason": decision.reason,
        "x-fleet-policy": str(decision.policy),
    }
    if decision.reason != ASKED_FOR:
        figures = {"score": decision.score, "threshold": decision.threshold, "gain": decision.gain}
        headers |= {f"x-fleet-{name}": f"{figure:.4f}" for name, figure in figures.items()}
    return headers
