from __future__ import annotations

import asyncio

import pytest

from edge.gateway.device_protocol import DeviceProtocol
from edge.gateway.observer import DeafObserver
from edge.gateway.pacing import Outgoing, Pace, Speech
from edge.gateway.writer import Writer
from models.errors import DeviceTooSlowError
from tests.virtual_time import run


class Gaps(DeafObserver):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def gap_seconds(self, seconds: float) -> None:
        self.seen.append(seconds)


class Desk:
    """A writer, what it sent, and what it told."""

    def __init__(self, stuck_at: int | None = None) -> None:
        now = asyncio.get_running_loop().time
        self.sent: list[str | bytes] = []
        self.reports: list[int] = []
        self.rests = 0
        self.stuck_at = stuck_at
        self.gaps = Gaps()
        self.outgoing = Outgoing(now=now)
        self.speech = self.outgoing.speech = Speech("t", ("stt", "start"), "stop", Pace())
        self.writer = Writer(
            self,
            self.outgoing,
            DeviceProtocol("s"),
            self.gaps,
            send_s=5.0,
            report=self._report,
            rest=self._rest,
            now=now,
        )

    async def send(self, message: str | bytes) -> None:
        if len(self.sent) == self.stuck_at:
            await asyncio.Event().wait()
        self.sent.append(message)

    async def _report(self, speech: Speech) -> None:
        speech.reported_ms = speech.played_ms
        self.reports.append(speech.played_ms)

    def _rest(self) -> None:
        self.rests += 1
        self.outgoing.end()


def test_turn_is_written_reported_and_rested_from() -> None:
    async def scene() -> None:
        desk = Desk()
        for _ in range(10):
            desk.speech.put(b"x")
        desk.speech.end()
        await desk.writer.run()
        assert desk.sent == ["stt", "start", *[b"x"] * 10, "stop"]
        assert (desk.reports[0], desk.reports[-1], desk.rests) == (480, 600, 1)
        assert desk.outgoing.speech is None
        assert desk.gaps.seen == []
        assert desk.writer.sent_s == asyncio.get_running_loop().time()

    run(scene())


def test_gap_in_the_speech_is_told() -> None:
    async def scene() -> None:
        desk = Desk()
        desk.speech.put(b"x")

        async def more() -> None:
            await asyncio.sleep(1)
            desk.speech.put(b"x")
            desk.speech.end()
            desk.outgoing.changed()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(more())
            await desk.writer.run()
        assert desk.gaps.seen == [pytest.approx(0.88)]

    run(scene())


@pytest.mark.parametrize("stuck_at", [0, 2])
def test_device_that_does_not_read_is_too_slow(stuck_at: int) -> None:
    async def scene() -> None:
        desk = Desk(stuck_at)
        desk.speech.put(b"x")
        with pytest.raises(DeviceTooSlowError, match="not read within 5 s"):
            await desk.writer.run()

    run(scene())
