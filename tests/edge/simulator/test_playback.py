from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edge.simulator.playback import QUEUE_PACKETS, Playback

FRAME_BYTES = 24_000 * 60 // 1000 * 2


class EchoDecoder:
    """Every packet is one frame of its first byte; an empty one is not Opus."""

    def __init__(self, rate_hz: int) -> None:
        self.concealed = 0

    def decode(self, packet: bytes) -> bytes:
        if not packet:
            self.concealed += 1
            return bytes(FRAME_BYTES)
        return packet[:1] * FRAME_BYTES


def playback() -> Playback:
    started = Playback(EchoDecoder)
    started.reset(0)
    return started


def test_packets_in_time_play_without_a_gap() -> None:
    loud = playback()
    for number in range(10):
        loud.put(bytes([number + 1]), 100 + number * 60)
    assert loud.drains_ms == 700
    assert loud.is_drained(700)
    sound = loud.take()
    assert (sound.first_ms, sound.gaps_ms, sound.frames) == (100, [], 10)
    assert bytes(sound.pcm) == b"".join(bytes([number + 1]) * FRAME_BYTES for number in range(10))


def test_a_late_packet_leaves_a_gap_that_can_be_heard() -> None:
    loud = playback()
    loud.put(b"a", 0)
    loud.put(b"b", 100)
    assert loud.sound.gaps_ms == [40]
    assert bytes(loud.sound.pcm) == b"a" * FRAME_BYTES + bytes(24 * 40 * 2) + b"b" * FRAME_BYTES


def test_the_wait_for_the_first_packet_is_no_gap() -> None:
    loud = playback()
    loud.put(b"a", 5000)
    assert loud.sound.gaps_ms == []
    assert loud.sound.first_ms == 5000


def test_a_burst_beyond_the_queue_is_dropped() -> None:
    loud = playback()
    for _ in range(50):
        loud.put(b"a", 0)
    assert loud.sound.dropped == 50 - QUEUE_PACKETS - 1
    assert loud.is_drained(60 * (QUEUE_PACKETS + 1))
    assert not loud.sound.gaps_ms


def test_speaking_anew_empties_the_queue_and_counts_what_was_cut() -> None:
    loud = playback()
    for _ in range(5):
        loud.put(b"a", 0)
    loud.reset(70)
    assert loud.sound.cut == 3
    assert loud.is_drained(70)
    loud.put(b"b", 500)
    assert loud.sound.gaps_ms == []


def test_what_is_not_opus_or_of_another_length_is_counted() -> None:
    loud = Playback(EchoDecoder, rate_hz=16_000)
    loud.put(b"", 0)
    loud.put(b"a", 0)
    assert loud.is_drained(120)
    sound = loud.take()
    assert sound.undecodable == 2
    assert len(sound.pcm) == 2 * 16 * 60 * 2


@given(st.lists(st.integers(0, 300), max_size=120))
def test_every_packet_is_played_dropped_or_cut_and_sound_lasts_as_long_as_time(waits_ms: list[int]) -> None:
    loud = playback()
    now_ms = 0
    for wait_ms in waits_ms:
        now_ms += wait_ms
        loud.put(b"a", now_ms)
    loud.reset(now_ms)
    sound = loud.take()
    assert sound.frames + sound.dropped + sound.cut == len(waits_ms)
    if sound.first_ms is not None:
        played_ms = len(sound.pcm) / 2 / 24
        assert played_ms == sound.frames * 60 + sum(sound.gaps_ms)
        assert sound.first_ms + played_ms <= now_ms + 60
