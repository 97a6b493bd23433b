from __future__ import annotations

import asyncio
import random

import pytest

from benchmarks.soak_barge import MAX_TOLD, Barged, Talker, barge_in
from benchmarks.soak_engines import NUMBERS
from edge.simulator.device import Device, Framing
from edge.simulator.firmware import Firmware
from edge.simulator.playback import Playback
from models.errors import ConfigError
from tests import real_time
from tests.virtual_time import run


def test_figures_are_counted_and_summed_up() -> None:
    found = Barged(tried=3, stuck=1, stale=2, stops_ms=[1.0, 2.0, 30.0], turn_s=1.876)
    found.moments["end"] += 3
    results = found.results()
    assert (results["tried"], results["stuck"], results["stale_packets"]) == (3, 1, 2)
    assert results["stop_ms"] == {"p50": 2.0, "p95": 30.0, "max": 30.0, "n": 3}
    assert (results["moments"], results["turn_s"]) == ({"end": 3}, 1.88)


def test_only_the_first_troubles_are_told() -> None:
    found = Barged()
    for number in range(100):
        found.tell(str(number))
    assert found.told == [str(number) for number in range(MAX_TOLD)]


def test_a_gateway_that_nobody_reaches_makes_every_try_a_stuck_one_and_comes_to_an_end() -> None:
    found = real_time.run(barge_in("ws://127.0.0.1:9/", 5, 1, devices=2, turn_s=1.0))
    assert (found.tried, found.stuck) == (5, 5)
    assert all("cannot reach" in line for line in found.told)


def test_a_gateway_that_nobody_reaches_has_no_usual_turn() -> None:
    with pytest.raises(ConfigError, match="uninterrupted"):
        real_time.run(barge_in("ws://127.0.0.1:9/", 5, 1))


class Silent:
    """A socket at whose other end nobody is."""

    def __init__(self) -> None:
        self.sent: list[str | bytes] = []

    async def send(self, message: str | bytes) -> None:
        self.sent.append(message)

    async def receive(self) -> str | bytes | None:
        await asyncio.Event().wait()
        return None


class Mute:
    concealed = 0

    def decode(self, packet: bytes) -> bytes:
        return bytes(2880)

    def encode(self, pcm: bytes) -> bytes:
        return b"\0"


def test_a_talker_keeps_the_state_of_the_device_it_takes_over() -> None:
    async def work() -> None:
        firmware = Firmware(lambda _rate_hz: Mute(), version=3)
        firmware.is_open, firmware.session_id = True, "s1"
        device = Device(Silent(), firmware, Mute(), Framing(pack=bytes, unpack=bytes))
        Talker(device, "auto", random.Random(1))
        assert device.firmware is not firmware
        assert (device.firmware.version, device.firmware.session_id, device.firmware.is_open) == (3, "s1", True)
        assert isinstance(device.firmware.playback, Playback)
        assert len(NUMBERS) >= 3

    run(work())
