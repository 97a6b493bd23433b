"""A breaker before a tier that costs turns nothing: late once, or failed a few times, it is left alone and asked in the background."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import structlog

from models.errors import CacheError

_log = structlog.get_logger()

FAILURES_TO_OPEN = 3
"""Failures in a row that come at once; being late even once opens, for each further turn would wait as long."""
PROBE_S = 0.05
"""First pause before a tier that is left alone is asked whether it is back; doubles up to the longest. Short, for one late answer is no death."""
LONGEST_PROBE_S = 5.0
ANSWER_S = 0.02
"""A tier that takes longer to say that it is back is not."""


class Guard:
    """Says whether a tier may be asked; ``run`` it in a task to have it asked again when it may not."""

    def __init__(self, name: str, ping: Callable[[], Awaitable[None]]) -> None:
        """``ping`` returns when the tier answers and raises CacheError when it is broken."""
        self.is_open = False
        """Whether the tier is left alone."""
        self._name = name
        self._ping = ping
        self._failures = 0
        self._opened, self._closed = asyncio.Event(), asyncio.Event()
        self._closed.set()

    def succeeded(self) -> None:
        """Note that the tier answered."""
        self._failures = 0

    def failed(self, *, late: bool = False) -> None:
        """Note that it failed, or did not answer in time."""
        self._failures += 1
        if not self.is_open and (late or self._failures >= FAILURES_TO_OPEN):
            self.is_open = True
            self._opened.set()
            self._closed.clear()
            _log.warning("cache_tier_left_alone", tier=self._name, reason="late" if late else "failing")

    async def closed(self) -> None:
        """Return while the tier may be asked, as soon as it may."""
        await self._closed.wait()

    async def run(self) -> None:
        """Ask a tier that is left alone whether it is back, until cancelled."""
        while True:
            await self._opened.wait()
            pause_s = PROBE_S
            while self.is_open:
                await asyncio.sleep(pause_s)
                pause_s = min(2 * pause_s, LONGEST_PROBE_S)
                with suppress(CacheError, TimeoutError):
                    async with asyncio.timeout(ANSWER_S):
                        await self._ping()
                    self.is_open = False
                    self._closed.set()
            self._failures = 0
            self._opened.clear()
            _log.info("cache_tier_back", tier=self._name)
