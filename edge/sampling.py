"""How often the cache is wrong, asked of a few hits: the question is asked again in the background and the two answers compared."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Literal, Self

from msgspec.structs import replace

from coordinator.cache.agreement import agree
from models.engines import Completer
from models.errors import CompletionError
from models.prompts import Prompt
from models.stopping import stopped

BUDGET_MS = 30_000
"""What asking again may take; nobody waits for it."""

Sample = Literal["agrees", "differs", "failed"]


class HitSampler:
    """Asks a share of the hits again, one at a time and only while nobody has to wait for it."""

    def __init__(
        self,
        fresh: Completer,
        *,
        share: float,
        is_busy: Callable[[], bool],
        observe: Callable[[Sample], None],
        dice: random.Random | None = None,
    ) -> None:
        """``fresh`` answers without the cache; ``share`` is of all hits, in [0, 1]."""
        self._fresh = fresh
        self._share = share
        self._is_busy = is_busy
        self._observe = observe
        self._dice = dice or random.Random()  # noqa: S311  # not a secret
        self._asking: asyncio.Task[None] | None = None
        self._is_open = False

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Self, None]:
        """Take hits while the body runs; what is asked then is stopped."""
        self._is_open = True
        try:
            yield self
        finally:
            self._is_open = False
            if self._asking is not None:
                await stopped(self._asking)

    def hit(self, prompt: Prompt, answer: str) -> None:
        """Note that ``answer`` was given from memory; returns at once."""
        is_asking = self._asking is not None and not self._asking.done()
        if self._is_open and not is_asking and self._dice.random() < self._share and not self._is_busy():
            self._asking = asyncio.create_task(self._compare(prompt, answer), name="cache-sample")

    async def _compare(self, prompt: Prompt, answer: str) -> None:
        said = ""
        try:
            async with aclosing(self._fresh.complete(replace(prompt, budget_ms=BUDGET_MS))) as deltas:
                async for delta in deltas:
                    said += delta.text
        except CompletionError:
            self._observe("failed")
            return
        self._observe("agrees" if agree(answer, said) else "differs")
