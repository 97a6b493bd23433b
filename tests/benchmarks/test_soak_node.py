from __future__ import annotations

import asyncio

import msgspec

from benchmarks.soak_engines import engines
from benchmarks.soak_node import NODE, Listening, node
from edge.simulator.client import connect
from tests.real_time import run


def test_a_node_counts_its_sessions_and_is_as_it_was_when_they_are_gone() -> None:
    async def work() -> None:
        async with node(4, engines()) as here:
            assert here.url.startswith("ws://127.0.0.1:")
            base = here.counts()
            async with connect(url=here.url):
                # The device of this test has tasks and a descriptor of its own.
                seen = here.counts()
                assert (seen.sessions, seen.answered, seen.other) == (1, 0, 0)
                assert seen.tasks > base.tasks
                assert seen.fds > base.fds
            while here.counts().sessions or here.counts().tasks > base.tasks:  # noqa: ASYNC110 - what is waited for is what nobody tells
                await asyncio.sleep(0.01)
            left = here.counts()
            assert (left.tasks, left.fds, left.sessions) == (base.tasks, base.fds, 0)

    run(work())


def test_where_it_listens_survives_its_way_to_the_parent() -> None:
    told = Listening(url=f"ws://{NODE}", pid=1)
    assert msgspec.json.decode(msgspec.json.encode(told), type=Listening) == told
