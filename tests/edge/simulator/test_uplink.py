from __future__ import annotations

import numpy as np
import pytest

from edge.simulator.uplink import MAX_BEHIND_FRAMES, Microphone, voiced_ms

FRAME_BYTES = 1920


def tone(length_ms: int, amplitude: int = 8000) -> bytes:
    times = np.arange(length_ms * 16) / 16_000
    return (amplitude * np.sin(2 * np.pi * 300 * times)).astype("<i2").tobytes()


def silence(length_ms: int) -> bytes:
    return bytes(length_ms * 32)


@pytest.mark.parametrize(
    ("pcm", "expected_ms"),
    [
        (b"", 0.0),
        (silence(500), 0.0),
        (tone(500), 500.0),
        (tone(500) + silence(700), 500.0),
        (silence(100) + tone(200) + silence(300) + tone(50) + silence(40), 650.0),
        (tone(500) + tone(300, amplitude=20), 500.0),
        (tone(505), 505.0),
    ],
)
def test_speech_ends_with_the_last_audible_window(pcm: bytes, expected_ms: float) -> None:
    assert voiced_ms(pcm) == expected_ms


def test_a_microphone_that_is_off_sends_nothing() -> None:
    assert Microphone().due(1e9) == []


def test_the_first_frame_comes_after_the_warm_up_and_then_one_every_60_ms() -> None:
    microphone = Microphone()
    microphone.switch_on(1000)
    assert microphone.next_due_ms == 1120
    assert microphone.due(1119) == []
    assert len(microphone.due(1120)) == 1
    assert len(microphone.due(1300)) == 3


def test_speech_is_followed_by_silence() -> None:
    microphone = Microphone()
    microphone.switch_on(0)
    microphone.say(tone(90))
    frames = microphone.due(240)
    assert b"".join(frames) == tone(90) + silence(90)
    assert not microphone.has_more_to_say


def test_the_end_of_speech_is_when_the_last_audible_sample_was_said() -> None:
    microphone = Microphone()
    microphone.switch_on(0)
    microphone.say(tone(90) + silence(200))
    microphone.due(120)
    assert microphone.spoke_until_ms is None
    microphone.due(180)
    assert microphone.spoke_until_ms == 60 + 90


def test_speech_on_a_closing_microphone_is_counted_as_unheard() -> None:
    microphone = Microphone()
    microphone.switch_on(0)
    microphone.say(tone(300) + silence(100))
    microphone.due(180)
    microphone.switch_off()
    assert microphone.unheard_ms == 180
    assert microphone.spoke_until_ms == 60 + 300
    assert not microphone.has_more_to_say


def test_trailing_silence_on_a_closing_microphone_is_no_loss() -> None:
    microphone = Microphone()
    microphone.switch_on(0)
    microphone.say(tone(60) + silence(600))
    microphone.due(180)
    microphone.switch_off()
    assert microphone.unheard_ms == 0


def test_a_stalled_network_loses_the_oldest_frames() -> None:
    microphone = Microphone()
    microphone.switch_on(0)
    frames = microphone.due(120 + 60 * 49)
    assert len(frames) == MAX_BEHIND_FRAMES
    assert microphone.lost_frames == 10
    assert all(len(frame) == FRAME_BYTES for frame in frames)
