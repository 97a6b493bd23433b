from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from benchmarks.load_playback import STUTTER_S, UNDERRUN_S, PlaybackClock
from edge.simulator.playback import QUEUE_PACKETS, Playback


def played(arrivals_s: list[float]) -> PlaybackClock:
    clock = PlaybackClock()
    for now_s in arrivals_s:
        clock.put(now_s)
    return clock


def test_packets_at_their_pace_play_without_a_gap() -> None:
    clock = played([10 + 0.06 * number for number in range(50)])
    assert (clock.packets, clock.lost, clock.stutters, clock.underruns) == (50, 0, 0, 0)
    assert clock.first_s == 10
    assert clock.plays_until_s == pytest.approx(13.0)


def test_a_burst_beyond_the_queue_loses_what_comes_last() -> None:
    clock = played([1.0] * (QUEUE_PACKETS + 5))
    assert (clock.packets, clock.lost) == (QUEUE_PACKETS + 1, 4)
    assert clock.left_s(1.0) == pytest.approx((QUEUE_PACKETS + 1) * 0.06)


def test_a_late_packet_is_heard_as_silence_and_plays_at_once() -> None:
    clock = played([0.0, 0.26])
    assert clock.underruns == 1
    assert clock.silence_s == pytest.approx(0.2)
    assert clock.plays_until_s == pytest.approx(0.32)


def test_a_gap_that_the_lead_covers_is_a_stutter_on_the_wire_only() -> None:
    clock = played([0.0, 0.0, 0.0, 0.0, 0.2])
    assert (clock.stutters, clock.underruns) == (1, 0)
    assert clock.longest_gap_s == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("gap_s", "stutters", "underruns"),
    [(0.06, 0, 0), (0.06 + UNDERRUN_S / 2, 0, 0), (STUTTER_S, 0, 1), (STUTTER_S + 0.001, 1, 1)],
)
def test_gaps_count_beyond_their_bounds(gap_s: float, stutters: int, underruns: int) -> None:
    clock = played([0.0, gap_s])
    assert (clock.stutters, clock.underruns) == (stutters, underruns)


def test_nothing_sounds_before_the_first_packet_and_after_the_last() -> None:
    clock = PlaybackClock()
    assert clock.left_s(5.0) == 0.0
    clock.put(5.0)
    assert clock.left_s(9.0) == 0.0


class Dumb:
    concealed = 0

    def decode(self, packet: bytes) -> bytes:
        return bytes(2880)


@given(st.lists(st.integers(0, 400), min_size=1, max_size=120))
@example([1, 65])
def test_it_agrees_with_the_simulated_firmware(pauses_ms: list[int]) -> None:
    arrivals_ms = [1000 + sum(pauses_ms[: number + 1]) for number in range(len(pauses_ms))]
    firmware = Playback(lambda _rate: Dumb())
    firmware.reset(0.0)
    for now_ms in arrivals_ms:
        firmware.put(b"x", float(now_ms))
    drains_ms = firmware.drains_ms
    firmware.advance(1e9)
    clock = played([now_ms / 1000 for now_ms in arrivals_ms])
    assert clock.packets == firmware.sound.frames
    assert clock.lost == firmware.sound.dropped
    assert clock.underruns == sum(gap_ms > UNDERRUN_S * 1000 + 1e-6 for gap_ms in firmware.sound.gaps_ms)
    assert drains_ms is None or clock.plays_until_s * 1000 == pytest.approx(drains_ms)
