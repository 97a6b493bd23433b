from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from benchmarks.load import Crowd, LoadEvent, LoadPlan, hold, mac
from benchmarks.load_device import Sound, TurnSample
from models.errors import DeviceError
from tests.real_time import run

SOUND = Sound(speech=(b"s",), voiced_packets=1, silence=b"-")


def sample(device: int) -> TurnSample:
    return TurnSample(
        device=device,
        at_s=1.0,
        transcript_ms=1.0,
        first_audio_ms=2.0,
        packets=1,
        lost=0,
        stutters=0,
        longest_gap_ms=0.0,
        underruns=0,
        silence_ms=0.0,
    )


def test_the_crowd_is_full_when_everybody_came_or_went() -> None:
    crowd = Crowd(3, 1)
    crowd.greeted(0)
    crowd.greeted(0)
    crowd.failed(1, "refused", "answered 503")
    crowd.gone(1)
    assert not crowd.is_full.is_set()
    crowd.greeted(2)
    assert crowd.is_full.is_set()


def test_the_crowd_is_done_when_the_last_held_its_turns() -> None:
    crowd = Crowd(2, 2)
    for device in (0, 0, 0, 1):
        crowd.held(sample(device))
    assert not crowd.is_done.is_set()
    crowd.failed(1, "alert", "")
    assert crowd.is_done.is_set()
    assert len(crowd.samples) == 4
    assert crowd.faults == Counter(alert=1)


def test_a_crowd_without_a_number_of_turns_is_never_done() -> None:
    crowd = Crowd(1, 0)
    crowd.held(sample(0))
    crowd.gone(0)
    assert not crowd.is_done.is_set()


def test_only_the_first_faults_are_told_one_by_one() -> None:
    crowd = Crowd(1, 100)
    for _ in range(50):
        crowd.failed(0, "alert", "")
    assert (crowd.faults["alert"], len(crowd.told)) == (50, 20)


def test_every_device_has_an_address_of_its_own() -> None:
    assert len({mac(number) for number in range(1000)}) == 1000


def test_an_address_that_is_none_is_an_error_at_once() -> None:
    with pytest.raises(DeviceError, match="write ws://"):
        run(hold(LoadPlan(url="http://x/", devices=1, sound=SOUND), lambda _event: None))


def test_devices_that_reach_nobody_are_faults_and_end_the_run() -> None:
    told: list[LoadEvent] = []

    async def scene() -> None:
        server = await asyncio.start_server(lambda _reader, writer: writer.close(), "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        server.close()
        await server.wait_closed()
        plan = LoadPlan(url=f"ws://127.0.0.1:{port}/", devices=3, stagger_s=0.0, sound=SOUND)
        result = await hold(plan, told.append)
        assert result.faults == {"unreachable": 3}
        assert result.turns == ()

    run(scene())
    assert [type(event).__name__ for event in told] == ["Full", "Over"]
