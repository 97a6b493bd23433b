from __future__ import annotations

import asyncio
import random
from typing import Any, ClassVar

import pytest

from benchmarks.soak_memory import Point, own_rss_mib, slope
from benchmarks.soak_mill import FrameMill, Ground, Kind, MillPlan, TextMill, mill
from edge.brain.opus import OpusDecoder
from edge.gateway.session import DeviceSession


class Raises:
    """A decoder that breaks its word on every hundredth packet."""

    def __init__(self) -> None:
        self.calls = 0

    def decode(self, packet: bytes) -> bytes:
        self.calls += 1
        if self.calls % 100 == 0:
            raise IndexError("of a stub")
        return bytes(2 * 960)


class Overlong:
    def decode(self, packet: bytes) -> bytes:
        return bytes(20_000)


class Leaks:
    """A decoder that keeps something of every twentieth packet for ever."""

    kept: ClassVar[list[bytes]] = []

    def __init__(self) -> None:
        self.calls = 0

    def decode(self, packet: bytes) -> bytes:
        self.calls += 1
        if self.calls % 20 == 0:
            # So large that the allocator takes it from the system, whatever other tests have left free.
            self.kept.append(b"x" * 200_000)
        return bytes(2 * 960)


class Stumbles(DeviceSession):
    """A session that falls over some texts."""

    async def _tell(self, event: Any) -> None:
        raise ZeroDivisionError


class Leaves(DeviceSession):
    """A session of which something goes on."""

    async def run(self) -> Any:
        self.left = asyncio.create_task(asyncio.sleep(60), name="left")
        return await super().run()


def test_frames_of_garbage_do_no_harm_and_most_reach_a_decoder() -> None:
    made = FrameMill()
    assert made.grind(random.Random(1), 6_000) == []
    assert made.heard > 3_000


def test_a_decoder_that_raises_is_an_error_each_time_and_grinding_goes_on() -> None:
    made = FrameMill(Raises)
    errors = made.grind(random.Random(1), 6_000)
    assert len(errors) > 10
    assert all(error.startswith("IndexError at ") and "test_soak_mill.py" in error for error in errors)
    assert made.heard > 3_000


def test_more_sound_than_a_packet_holds_is_an_error() -> None:
    errors = FrameMill(Overlong).grind(random.Random(1), 100)
    assert errors
    assert all(error.startswith("ValueError") for error in errors)


def test_a_decoder_that_leaks_is_a_slope_and_ours_is_none() -> None:
    def gain(made: FrameMill) -> float:
        points = []
        for number in range(1, 13):
            made.grind(random.Random(number), 1_500)
            points.append(Point(number * 1_500, own_rss_mib()))
        found = slope(points, 1_000_000)
        assert found is not None
        return found

    assert gain(FrameMill(OpusDecoder)) < 200
    assert gain(FrameMill(Leaks)) > 1_000
    Leaks.kept.clear()


def test_texts_of_garbage_do_no_harm() -> None:
    made = TextMill()
    assert made.grind(random.Random(1), 3_000) == []
    assert 8 <= made.sessions < 1_500


def test_a_session_that_raises_is_an_error_and_the_next_one_is_served() -> None:
    errors = TextMill(Stumbles).grind(random.Random(1), 2_000)
    assert len(errors) > 1
    assert all(error.startswith("ZeroDivisionError") for error in errors)


def test_a_session_that_leaves_a_task_is_an_error() -> None:
    assert "a session left tasks behind" in TextMill(Leaves).grind(random.Random(1), 500)


@pytest.mark.parametrize("kind", ["frames", "messages"])
def test_a_plan_is_ground_batch_by_batch(kind: Kind) -> None:
    told: list[Ground] = []
    mill(MillPlan(kind=kind, seed=3, batches=(4, 6), batch=200), told.append)
    assert [ground.batch for ground in told] == [4, 6]
    assert all(ground.errors == 0 and ground.rss_mib > 10 for ground in told)
