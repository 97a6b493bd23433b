"""A worker without an upstream, for what the road alone carries: ``python -m benchmarks.bus_worker URL POOL ANSWERS``.

Its answers are made in its own process: ``ANSWERS`` tokens at once. A request on ``voice.bench.frames.<pool>`` with a number as its
payload is answered with as many frames of an answer, sent as fast as the bus takes them.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator

from benchmarks.bus_loop import loop_factory
from cloud.admission import Admission, Terms
from cloud.worker import PoolWorker
from coordinator import wire
from coordinator.nats_bus import NatsBus
from models.prompts import CompletionDelta, Prompt, Usage

MAX_RUNNING = 4096


class Instant:
    """A Completer whose answer is ready: ``tokens`` deltas at once."""

    def __init__(self, tokens: int) -> None:
        self._tokens = tokens

    async def complete(self, prompt: Prompt) -> AsyncGenerator[CompletionDelta, None]:
        """Yield the tokens and what they cost."""
        for _ in range(self._tokens):
            yield CompletionDelta(text="好", model="stub")
        yield CompletionDelta(text="", usage=Usage(prompt_tokens=len(prompt.messages), completion_tokens=self._tokens))


def frames_subject(pool: str) -> str:
    """Subject on which a worker is asked for frames."""
    return f"voice.bench.frames.{wire.token(pool)}"


async def send_frames(bus: NatsBus, pool: str) -> None:
    """Send as many frames as each request says to where it says, until cancelled."""
    async with bus.subscribe(frames_subject(pool)) as orders:
        async for order in orders:
            for seq in range(int(order.payload)):
                await bus.publish(order.reply, wire.encode(wire.AnswerDelta(seq=seq, text="好", model="stub")))
                if seq % 64 == 0:
                    await asyncio.sleep(0)


async def serve(url: str, pool: str, tokens: int) -> None:
    """Serve until cancelled."""
    async with NatsBus.connect(url, name="bench-worker") as bus, asyncio.TaskGroup() as tasks:
        worker = PoolWorker(
            bus,
            pool,
            Instant(tokens),
            worker_id="stub",
            admission=Admission(Terms(max_running=MAX_RUNNING)),
        )
        tasks.create_task(worker.run(), name="worker")
        tasks.create_task(send_frames(bus, pool), name="frames")


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(serve(sys.argv[1], sys.argv[2], int(sys.argv[3])))
