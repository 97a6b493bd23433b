from __future__ import annotations

import wave
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from models.errors import ConfigError
from models.factory.agreement import compare, probabilities, read_sounds, segments
from models.onnx import Array


class Peak:
    """Stands in for a model: a window's peak is its speech probability, ``off`` more in every window."""

    providers: Sequence[str] = ("fake",)

    def __init__(self, off: float = 0.0) -> None:
        self.off = off
        self.heard: list[Array] = []

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        self.heard.append(inputs["input"])
        assert inputs["input"].shape[1:] == (576,)
        return [np.abs(inputs["input"][:, 64:]).max(axis=1, keepdims=True) + np.float32(self.off), inputs["state"]]


def sound(*levels: float) -> np.ndarray:
    """Return a window of each level."""
    return np.repeat(np.array(levels, np.float32), 512)


def test_each_window_comes_with_the_end_of_the_one_before_and_short_sounds_end_in_silence():
    session = Peak()
    found = probabilities(session, [sound(0.25, 0.5, 0.75), sound(0.125)])
    assert found.tolist() == [[0.25, 0.5, 0.75], [0.125, 0, 0]]
    assert [float(one[0, 0]) for one in session.heard] == [0, 0.25, 0.5]


@pytest.mark.parametrize(
    ("speech", "wanted"),
    [
        ([], []),
        ([0.4, 0.4], []),
        ([0.5, 0.4, 0.3], [(0, 2)]),
        ([0.9, *[0.0] * 9, 0.9], [(0, 11)]),
        ([0.9, *[0.0] * 10, 0.9], [(0, 1), (11, 12)]),
    ],
)
def test_speech_begins_ends_and_bridges_short_pauses(speech, wanted):
    assert segments(np.array(speech, np.float32)) == wanted


def test_a_model_agrees_with_itself():
    found = compare(Peak(), Peak(), [sound(0.1, 0.9, 0.9, 0.1)])
    assert (found.windows, found.segments) == (4, 1)
    assert (found.max_difference, found.mean_difference, found.boundary_shift_ms_max) == (0, 0, 0)
    assert (found.decisions_alike, found.segments_alike) == (1, 1)


def test_a_model_that_hears_more_differs_by_as_much():
    found = compare(Peak(), Peak(0.25), [sound(0.125, 0.375, 0.875, 0.0625), sound(0, 0.375)])
    assert found.max_difference == found.mean_difference == 0.25
    assert found.decisions_alike == 0.75
    assert found.segments_alike == 0.5
    assert found.boundary_shift_ms_max == 32


def write(path: Path, rate_hz: int = 16_000, channels: int = 1) -> None:
    with wave.open(str(path), "wb") as out:
        out.setnchannels(channels)
        out.setsampwidth(2)
        out.setframerate(rate_hz)
        out.writeframes(np.full(channels * 100, 16384, "<i2").tobytes())


def test_recordings_are_read_as_mono(tmp_path: Path):
    (tmp_path / "deep").mkdir()
    write(tmp_path / "a.wav")
    write(tmp_path / "deep" / "b.WAV", channels=2)
    assert [(len(one), float(one[0])) for one in read_sounds(tmp_path)] == [(100, 0.5), (100, 0.5)]


def test_compressed_recordings_are_read_at_16_khz(tmp_path: Path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "a.ogg"), "w") as out:
        stream = out.add_stream("libopus", rate=48_000, layout="mono")
        tone = (8000 * np.sin(np.arange(48_000) / 20)).astype("<i2")
        frame = av.AudioFrame.from_ndarray(tone[None], format="s16", layout="mono")
        frame.sample_rate = 48_000
        out.mux([*stream.encode(frame), *stream.encode(None)])
    (heard,) = read_sounds(tmp_path)
    assert abs(len(heard) - 16_000) < 1_000
    assert 0.1 < np.abs(heard).max() < 0.5


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [(None, b"", "no .wav or .ogg"), ("a.wav", b"junk", "WAV"), ("a.ogg", b"junk", "not a readable recording")],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, name, content, said):
    pytest.importorskip("av")
    if name:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigError, match=said):
        read_sounds(tmp_path)


def test_another_rate_is_refused(tmp_path: Path):
    write(tmp_path / "a.wav", rate_hz=8_000)
    with pytest.raises(ConfigError, match="16 bit at 16000 Hz"):
        read_sounds(tmp_path)
