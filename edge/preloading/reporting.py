"""Tells the coordinator, hour by hour, what this edge was asked for; nothing of private devices, words only as ``EdgeUsage`` allows."""

from __future__ import annotations

import asyncio
import random
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

import structlog

from coordinator import wire
from coordinator.bus import Bus
from coordinator.preloading.reports import EdgeUsage, encode_report
from models.errors import CloudUnreachableError
from models.prompts import Prompt

_log = structlog.get_logger()

HOUR_S = 3600
SPREAD_S = 45.0
"""Reports of a fleet come within so long after the hour, each edge at a moment of its own."""
MAX_WAITING = 3
"""Reports kept while NATS is away; older ones no coordinator takes any more."""


class UsageReporter:
    """Counts what is asked and tells it; ``run`` it in a task."""

    def __init__(
        self,
        bus: Bus,
        edge_id: str,
        group: str,
        *,
        now: Callable[[], float] = time.time,
        dice: random.Random | None = None,
    ) -> None:
        """``group`` is a name as ``group_of`` makes it."""
        self._bus = bus
        self._edge_id = edge_id
        self._usage = EdgeUsage(edge_id, group)
        self._made: list[str] = []
        self._now = now
        self._dice = dice or random.Random()  # noqa: S311  # not a secret
        self._waiting: deque[bytes] = deque(maxlen=MAX_WAITING)

    def asked(self, key: str, prompt: Prompt) -> None:
        """Count one ask for the memorable answer of this key."""
        self._usage.note(key, prompt.device_id, words_of(prompt))

    def made(self, key: str) -> None:
        """Note that the answer of this key was made before anybody asked."""
        self._made.append(key)

    async def run(self) -> None:
        """Report each hour soon after its end until cancelled, and then what there is of the running one."""
        hour = int(self._now() // HOUR_S)
        try:
            while True:
                await asyncio.sleep((hour + 1) * HOUR_S + SPREAD_S * self._dice.random() - self._now())
                await self._tell(hour)
                hour = max(hour + 1, int(self._now() // HOUR_S))
        finally:
            await self._tell(hour)

    async def _tell(self, hour: int) -> None:
        report, self._made = self._usage.report(hour, self._made), []
        if report is not None:
            self._waiting.append(encode_report(report))
        with suppress(CloudUnreachableError):
            while self._waiting:
                await self._bus.publish(wire.usage_subject(self._edge_id), self._waiting[0])
                self._waiting.popleft()
        if self._waiting:
            _log.info("usage_not_told", waiting=len(self._waiting))


def words_of(prompt: Prompt) -> str:
    """Return what the answer to a memorable question is made from: its language and its words."""
    return f"{prompt.language} {prompt.question}"


def words_from(text: str) -> tuple[str, str]:
    """Return language and question of ``words_of``."""
    language, _, question = text.partition(" ")
    return language, question
