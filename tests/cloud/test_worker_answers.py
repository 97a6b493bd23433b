from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from cloud.worker_answers import Answer, Outbox
from coordinator import wire
from coordinator.memory_bus import MemoryBus
from models.errors import CloudUnreachableError, OverloadedError
from models.prompts import CompletionDelta, Usage
from tests.virtual_time import run

USAGE = Usage(prompt_tokens=1, completion_tokens=2)


class Road(MemoryBus):
    """A bus that keeps what was published, and can be away."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[wire.AnyAnswerFrame] = []
        self.is_away = False

    async def publish(self, subject: str, payload: bytes, *, reply: str = "") -> None:
        if self.is_away:
            raise CloudUnreachableError(f"{subject}: not connected")
        self.sent.append(wire.decode_answer(payload))


@asynccontextmanager
async def outbox() -> AsyncGenerator[tuple[Road, Outbox], None]:
    road = Road()
    box = Outbox(road, "w")
    sending = asyncio.create_task(box.run())
    try:
        yield road, box
    finally:
        sending.cancel()
        await asyncio.wait([sending])


def says(*texts: str) -> list[CompletionDelta]:
    return [CompletionDelta(text=text, model="m") for text in texts]


def test_pieces_of_one_loop_turn_leave_together_and_the_last_ones_with_the_end() -> None:
    async def scenario() -> None:
        async with outbox() as (road, box):
            answer = Answer(box, "inbox")
            for delta in says("一", "二"):
                answer.say(delta)
            await box.emptied()
            for delta in says("三", "四"):
                answer.say(delta)
            answer.end(USAGE)
            await box.emptied()
            assert road.sent == [
                wire.AnswerDelta(seq=0, worker_id="w", text="一二", model="m"),
                wire.AnswerEnd(seq=1, usage=USAGE, text="三四", model="m"),
            ]

    run(scenario())


def test_what_was_said_before_a_failure_is_sent_before_it() -> None:
    async def scenario() -> None:
        async with outbox() as (road, box):
            answer = Answer(box, "inbox")
            answer.say(*says("一"))
            answer.fail(OverloadedError("full"))
            await box.emptied()
            assert road.sent == [
                wire.AnswerDelta(seq=0, worker_id="w", text="一", model="m"),
                wire.AnswerFailed(seq=1, code="llm-overloaded", message="full"),
            ]

    run(scenario())


def test_a_beat_is_sent_only_when_nothing_else_is() -> None:
    async def scenario() -> None:
        async with outbox() as (road, box):
            answer = Answer(box, "inbox")
            answer.beat()
            await box.emptied()
            answer.beat()
            answer.say(*says("一"))
            await box.emptied()
            assert road.sent == [
                wire.AnswerBeat(seq=0, worker_id="w"),
                wire.AnswerDelta(seq=1, text="一", model="m"),
            ]

    run(scenario())


@pytest.mark.parametrize("has_ended", [False, True])
def test_nothing_leaves_after_the_end_or_after_being_dropped(has_ended: bool) -> None:  # a table
    async def scenario() -> None:
        async with outbox() as (road, box):
            answer = Answer(box, "inbox")
            answer.say(*says("一"))
            if has_ended:
                answer.end(None)
            else:
                answer.drop()
            await box.emptied()
            count = len(road.sent)
            assert count == has_ended
            answer.say(*says("late"))
            answer.beat()
            answer.fail(OverloadedError("late"))
            await box.emptied()
            assert len(road.sent) == count

    run(scenario())


def test_an_asker_that_cannot_be_reached_is_told_once_and_others_are_served() -> None:
    async def scenario() -> None:
        async with outbox() as (road, box):
            lost: list[str] = []
            away = Answer(box, "inbox.1", on_lost=lambda: lost.append("1"))
            road.is_away = True
            away.say(*says("一"))
            await box.emptied()
            road.is_away = False
            away.say(*says("二"))
            other = Answer(box, "inbox.2")
            other.end(None)
            await box.emptied()
            assert lost == ["1"]
            assert isinstance(away.error, CloudUnreachableError)
            assert road.sent == [wire.AnswerEnd(seq=0, worker_id="w")]

    run(scenario())
