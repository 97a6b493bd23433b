"""The road to the cloud while parts of it are killed, frozen or swallowed by the network: turns go on, and nothing is left behind."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, aclosing
from pathlib import Path

import pytest

from coordinator.nats_bus import NatsBus
from coordinator.remote import Asker
from models.errors import CloudUnreachableError
from tests.integration.road import (
    ANSWER_S,
    EDGE_SAYS,
    LIMIT_S,
    TOKENS,
    Hole,
    prompt_of,
    site,
    told,
    well_again_after_s,
)
from tests.real_time import run


def test_turns_go_on_when_a_worker_is_killed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with site(tmp_path) as made:
            told(
                "worker killed: turns well again after",
                await well_again_after_s(made, lambda: made.kill(made.workers["w1"])),
            )

    run(scenario(), timeout_s=90)


def test_turns_go_on_when_a_worker_is_frozen_and_when_it_thaws(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with site(tmp_path) as made:

            async def freeze() -> None:
                os.kill(made.workers["w1"].pid, signal.SIGSTOP)

            async def thaw() -> None:
                os.kill(made.workers["w1"].pid, signal.SIGCONT)

            told("worker frozen: turns well again after", await well_again_after_s(made, freeze))
            told("worker thawed: turns well again after", await well_again_after_s(made, thaw))

    run(scenario(), timeout_s=120)


def test_turns_go_on_when_a_worker_s_network_swallows_everything(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with site(tmp_path, workers=1) as made:
            hole = Hole(made.nats_port)
            async with hole.dug():
                await made.worker("w2", hole.port)
                await made.ready()

                async def swallow() -> None:
                    hole.swallow()

                told("worker in a black hole: turns well again after", await well_again_after_s(made, swallow))
                hole.heal()
                await made.ready()
                await made.nothing_is_left()
                await made.kill(made.workers["w2"])

    run(scenario(), timeout_s=90)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_turns_go_on_when_the_server_of_messages_is_started_again(tmp_path: Path, number: signal.Signals) -> None:
    async def scenario() -> None:
        async with site(tmp_path) as made:

            async def restart() -> None:
                os.kill(made.nats.pid, number)
                await made.nats.process.wait()
                made.group.running.remove(made.nats)
                await made.serve()

            told(f"NATS ended by {number.name}: turns well again after", await well_again_after_s(made, restart))

    run(scenario(), timeout_s=90)


def test_turns_go_on_when_the_edge_s_network_comes_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with site(tmp_path, workers=1) as made:
            hole = Hole(made.nats_port)
            async with (
                hole.dug(),
                NatsBus.connect(f"nats://127.0.0.1:{hole.port}", name="edge-2") as edge,
                Asker.open(edge, "edge-2") as asker,
            ):
                made.edge, made.asker, before = edge, asker, (made.edge, made.asker)
                async with aclosing(made.completer.complete(prompt_of("400 20 20 long"))) as deltas:
                    await anext(deltas)
                    hole.swallow()
                    cut_s = time.monotonic()
                    with pytest.raises(CloudUnreachableError, match="nothing heard"):
                        async for _ in deltas:
                            pass
                told("edge cut off: noticed by it after", time.monotonic() - cut_s)
                ending = await made.ending()
                told("edge cut off: upstream's stream closed after", ending.at_s - cut_s)
                assert not ending.is_whole, "aborted, not written to its end for nobody"
                hole.heal()
                async with asyncio.timeout(LIMIT_S):
                    while True:
                        try:
                            assert await made.ask() == "好" * TOKENS
                            break
                        except CloudUnreachableError:
                            await asyncio.sleep(0.05)
                made.edge, made.asker = before

    run(scenario(), timeout_s=90)


# The server of messages frozen or out of reach: the edge's own model answers meanwhile


def test_an_edge_answers_while_the_server_of_messages_is_frozen_and_asks_the_cloud_when_it_thaws(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with site(tmp_path) as made:
            edge = made.hierarchy

            async def ask() -> str:
                async with aclosing(edge.complete(prompt_of(f"{TOKENS} 20 5 -"))) as deltas:
                    return "".join([delta.text async for delta in deltas])

            async def freeze() -> None:
                os.kill(made.nats.pid, signal.SIGSTOP)

            async def thaw() -> None:
                os.kill(made.nats.pid, signal.SIGCONT)

            assert await ask() == "好" * TOKENS
            took_s = await well_again_after_s(made, freeze, ask=ask, within_s=ANSWER_S)
            told("NATS frozen: an edge's turns answered within 3 s again after", took_s)
            assert await ask() == EDGE_SAYS
            told("NATS thawed: the pool answers again after", await well_again_after_s(made, thaw))
            await until_the_cloud_speaks(ask)

    run(scenario(), timeout_s=120)


def test_an_edge_answers_while_the_server_of_messages_is_in_a_black_hole_and_asks_the_cloud_afterwards(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with site(tmp_path) as made:
            hole = Hole(made.nats_port)
            async with (
                hole.dug(),
                NatsBus.connect(f"nats://127.0.0.1:{hole.port}", name="edge-2") as bus,
                Asker.open(bus, "edge-2") as asker,
            ):
                made.edge, made.asker, before = bus, asker, (made.edge, made.asker)
                edge = made.hierarchy

                async def ask() -> str:
                    async with aclosing(edge.complete(prompt_of(f"{TOKENS} 20 5 -"))) as deltas:
                        return "".join([delta.text async for delta in deltas])

                async def swallow() -> None:
                    hole.swallow()

                async def heal() -> None:
                    hole.heal()

                assert await ask() == "好" * TOKENS
                took_s = await well_again_after_s(made, swallow, ask=ask, within_s=ANSWER_S)
                told("NATS in a black hole: an edge's turns answered within 3 s again after", took_s)
                assert await ask() == EDGE_SAYS
                told(
                    "NATS back from the black hole: the pool answers again after", await well_again_after_s(made, heal)
                )
                await until_the_cloud_speaks(ask)
                made.edge, made.asker = before

    run(scenario(), timeout_s=120)


async def until_the_cloud_speaks(ask: Callable[[], Awaitable[str]]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while await ask() != "好" * TOKENS:  # noqa: ASYNC110  # other processes: nothing to wait on
            await asyncio.sleep(0.1)


# A replica out of reach


def test_turns_go_on_when_a_replica_s_network_swallows_everything(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with site(tmp_path, workers=0) as made:
            holes = [Hole(made.upstream_port) for _ in range(3)]
            async with AsyncExitStack() as stack:
                for hole in holes:
                    await stack.enter_async_context(hole.dug())
                urls = [f"http://127.0.0.1:{hole.port}" for hole in holes]
                await made.worker("w1", upstream_urls=urls)
                await made.ready()

                async def swallow() -> None:
                    holes[0].swallow()

                async def heal() -> None:
                    holes[0].heal()

                told("replica in a black hole: turns well again after", await well_again_after_s(made, swallow))
                told("replica back: turns well again after", await well_again_after_s(made, heal))
                await made.nothing_is_left()
                await made.kill(made.workers.pop("w1"))

    run(scenario(), timeout_s=120)
