"""Twenty replicas, one slow and one failing, under the same arrivals by each way of choosing, on virtual time."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import structlog

from cloud import choice
from models.errors import CompletionError
from models.prompts import CompletionDelta, Prompt
from tests.cloud.servers import Server, pool_of, prompt, text_of
from tests.virtual_time import run

LIMIT = 8
PIECES = 4
PIECE_S = 0.15
"""Per piece in an idle replica; twice as long in a full one."""
Choose = Callable[[Sequence[Any], int | None, random.Random], Any]


class Batched(Server):
    """Is slower the more it has to do."""

    slowness = 1.0

    async def complete(self, prompt: Prompt) -> AsyncGenerator[CompletionDelta, None]:
        if self.error:
            await asyncio.sleep(0.02)
        self.pause_s = PIECE_S * self.slowness * (1 + (self.running + 1) / LIMIT)
        async for delta in super().complete(prompt):
            yield delta


@dataclass
class Seen:
    p50_s: float
    p95_s: float
    p99_s: float
    refused: int
    asked: list[int]


def drawn(candidates: Sequence[Any], _key: int | None, dice: random.Random) -> Any:
    return dice.choice(candidates)


def in_turn() -> Choose:
    counter = itertools.count()
    return lambda candidates, _key, _dice: sorted(candidates, key=lambda each: each.replica.name)[
        next(counter) % len(candidates)
    ]


def under_load(per_s: float, for_s: float, *, choose: Choose | None = None, seed: int = 1, devices: int = 0) -> Seen:
    """Return how answers fared; with ``choose`` nothing is ejected either."""

    async def scenario() -> Seen:
        many = [Batched(f"s{number:02}", pieces=PIECES) for number in range(20)]
        many[0].slowness = 4.0  # type: ignore[misc]
        many[1].error = CompletionError("500")
        dice, loop, lasted, lost = random.Random(seed), asyncio.get_running_loop(), [], []

        async def ask(device_id: str) -> None:
            began_s = loop.time()
            try:
                await text_of(pool, prompt(device_id))
                lasted.append(loop.time() - began_s)
            except CompletionError as error:
                lost.append(error)

        async with pool_of(many, per_replica=LIMIT) as pool, asyncio.TaskGroup() as tasks:
            until_s = loop.time() + for_s
            while loop.time() < until_s:
                tasks.create_task(ask(f"d{dice.randrange(devices)}" if devices else ""))
                await asyncio.sleep(dice.expovariate(per_s))
        lasted.sort()
        p50, p95, p99 = (lasted[int(len(lasted) * share)] for share in (0.5, 0.95, 0.99))
        return Seen(p50, p95, p99, len(lost), [server.asked for server in many])

    with pytest.MonkeyPatch.context() as patch, structlog.testing.capture_logs():
        if choose:
            patch.setattr(choice, "choose", choose)
            patch.setattr("cloud.ejection.FAILURES", 10**9)
        return run(scenario())


@pytest.mark.parametrize("devices", [0, 400])
def test_waits_are_shorter_than_at_random_and_in_turn(devices: int) -> None:
    ours = under_load(40.0, 10, devices=devices)
    for choose in (drawn, in_turn()):
        other = under_load(40.0, 10, devices=devices, choose=choose)
        assert ours.p95_s < other.p95_s
        assert ours.p99_s < other.p99_s / 2
        assert ours.refused == 0
        assert ours.asked[0] < other.asked[0] / 2, "the slow one"
        assert ours.asked[1] < other.asked[1], "the failing one"
