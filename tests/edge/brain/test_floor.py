from __future__ import annotations

import asyncio

import pytest

from edge.brain.barge_in import BargeInRules
from edge.brain.floor import Floor
from edge.brain.packets import SpeechPackets
from edge.brain.sentences import Sentence
from edge.brain.turn import Turn, TurnNames
from edge.seam import DownMessage, SpeechDown
from models.speech import Transcript
from tests.edge.brain.talking import story
from tests.virtual_time import run

NAMES = TurnNames(turn_id="t", session_id="s", device_id="d", edge_id="e", fence=3)


class Stage:
    """A floor, one turn that has it, and what the gateway was told."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self.down: list[DownMessage] = []
        now = asyncio.get_running_loop().time
        self.floor = Floor(BargeInRules(), self._send, group, now=now)
        self.turn = Turn(NAMES, self.floor.send, now=now)
        self.floor.give(self.turn)

    async def _send(self, message: DownMessage) -> None:
        self.down.append(message)

    async def answers(self, packets: int = 10) -> None:
        await self.turn.emit(Transcript(turn_id="t", text="你好"))
        await self.turn.emit(Sentence(text="好。", emotion=""))
        await self.turn.emit(SpeechPackets(packets=(b"x",) * packets))
        self.down = [message for message in self.down if not isinstance(message, SpeechDown)]


def test_hold_and_resume_reach_the_gateway_with_the_names_of_the_turn() -> None:
    async def scene() -> None:
        async with asyncio.TaskGroup() as group:
            on = Stage(group)
            await on.answers()
            assert not await on.floor.voiced(240)
            assert on.floor.is_held
            assert not await on.floor.heard("嗯", 240)
            assert story(on.down)[-2:] == ["held", "resumed"]
            assert {(message.session_id, message.fence) for message in on.down} == {("s", 3)}
            assert await on.floor.voiced(1200)
            await on.floor.take_back(tell=False)

    run(scene())


def test_hold_nobody_ends_ends_after_two_seconds() -> None:
    async def scene() -> None:
        async with asyncio.TaskGroup() as group:
            on = Stage(group)
            await on.answers()
            await on.floor.voiced(240)
            await asyncio.sleep(1)
            await on.floor.voiced(300)
            await asyncio.sleep(1.9)
            assert on.floor.is_held
            await asyncio.sleep(0.2)
            assert not on.floor.is_held
            assert story(on.down)[-2:] == ["held", "resumed"]
            await on.floor.take_back(tell=True)
            assert story(on.down)[-1] == "resumed"

    run(scene())


def test_turn_held_before_the_gateway_knows_it_is_held_as_soon_as_it_does() -> None:
    async def scene() -> None:
        async with asyncio.TaskGroup() as group:
            on = Stage(group)
            await on.floor.voiced(240)
            assert on.down == []
            await on.answers()
            assert story(on.down)[:2] == ["heard 你好", "held"]
            await on.floor.over("")
            await on.floor.take_back(tell=False)

    run(scene())


@pytest.mark.parametrize("tell", [True, False])
def test_end_of_the_turn_frees_the_floor(*, tell: bool) -> None:
    async def scene() -> None:
        async with asyncio.TaskGroup() as group:
            on = Stage(group)
            await on.answers()
            await on.floor.voiced(240)
            await on.floor.take_back(tell=tell)
            assert not on.floor.is_held
            assert ("resumed" in story(on.down)) is tell
            assert len(asyncio.all_tasks()) == 1
            assert not await on.floor.heard("嗯", 240)

    run(scene())


def test_wait_for_the_end_of_playing_does_not_count_the_hold() -> None:
    async def scene() -> None:
        async with asyncio.TaskGroup() as group:
            on = Stage(group)
            await on.answers(packets=50)
            await on.turn.finish()
            waiting = group.create_task(on.floor.until_played(on.turn))
            for second in range(1, 10):
                await on.floor.voiced(240 + second)
                await asyncio.sleep(1)
            assert not waiting.done()
            await on.floor.over("嗯") or await on.floor.voiced(0)
            await asyncio.sleep(1.9)
            assert not waiting.done()
            on.turn.played(3000)
            await asyncio.sleep(0)
            await waiting
            await on.floor.take_back(tell=False)

    run(scene())


def test_lost_report_ends_the_wait_all_the_same() -> None:
    async def scene() -> None:
        async with asyncio.TaskGroup() as group:
            on = Stage(group)
            await on.answers(packets=50)
            await on.turn.finish()
            await on.floor.until_played(on.turn)
            assert asyncio.get_running_loop().time() == pytest.approx(5.0)

    run(scene())
