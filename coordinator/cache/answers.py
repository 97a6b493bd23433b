"""Answers by question: keys above, a ladder below, and one model call for all who ask the same at once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Literal

import msgspec

from coordinator.cache.flight import Flights
from coordinator.cache.keys import answer_key, normalise
from coordinator.cache.ladder import Ladder
from models.prompts import CompletionDelta, Prompt

LEASE_S = 5.0
"""After how long another node may make the same answer all the same: whoever makes it may have died."""
WAIT_S = 0.2
"""How long an answer may be waited for that another node is making. A guess: less than a busy cloud's first token."""
LOOK_AGAIN_S = 0.025

Scope = Literal["all", "group", "device"]
"""For whom an answer is remembered: everybody, the devices of one group (an edge's region), or the device that asked."""


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """An answer given before."""

    text: str
    model: str = ""
    """Model that wrote it."""


_decoder = msgspec.msgpack.Decoder(Remembered)


class AnswerCache:
    """Remembers whole answers to memorable questions."""

    def __init__(
        self,
        ladder: Ladder,
        version: str = "",
        *,
        scope: Scope = "all",
        group: str = "",
        form_of: Callable[[str], str] = normalise,
        wait_s: float = WAIT_S,
    ) -> None:
        """``version`` names the models in force; another version is another memory. So are other groups or devices, by ``scope``.

        ``form_of`` is what questions with the same answer share: their words, or with ``meaning.meaning_of`` what they mean.
        """
        self.flights: Flights[str, CompletionDelta] = Flights()
        """Answers being written, by key."""
        self._ladder = ladder
        self._version = version
        self._scope = scope
        self._group = group
        self._form_of = form_of
        self._wait_s = wait_s

    def key(self, prompt: Prompt) -> str | None:
        """Return the key of the prompt's answer, None when it must not be remembered, or nothing is."""
        if self._ladder.is_empty:
            return None
        whose = {"all": "", "group": self._group, "device": prompt.device_id}[self._scope]
        return answer_key(prompt, self._version, whose, self._form_of)

    async def get(self, prompt: Prompt) -> Remembered | None:
        """Return the answer to the same question, None when unknown, not memorable, or not readable."""
        key = self.key(prompt)
        value = None if key is None else await self._ladder.get(key)
        return None if value is None else _decoded(value)

    def put(self, prompt: Prompt, answer: str, model: str) -> bool:
        """Remember a whole answer, if its question is memorable and it says anything; return whether so."""
        key = self.key(prompt)
        if key is None or not answer.strip():
            return False
        self._ladder.put(key, msgspec.msgpack.encode(Remembered(text=answer, model=model)))
        return True

    @asynccontextmanager
    async def making(self, key: str) -> AsyncGenerator[Remembered | None, None]:
        """Be the one node that makes this answer while the body runs; what another one made meanwhile is yielded instead."""
        async with self._ladder.leased(key, LEASE_S) as is_ours:
            yield None if is_ours else await self._made_elsewhere(key)

    async def _made_elsewhere(self, key: str) -> Remembered | None:
        """Return the answer once another node has written it, None when that takes too long."""
        until_s = asyncio.get_running_loop().time() + self._wait_s
        while asyncio.get_running_loop().time() < until_s:
            await asyncio.sleep(LOOK_AGAIN_S)
            value = await self._ladder.beyond(key, again=True)
            if value is not None:
                return _decoded(value)
        return None


def _decoded(value: bytes) -> Remembered | None:
    try:
        return _decoder.decode(value)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return None
