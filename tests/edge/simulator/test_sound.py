from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest

from edge.simulator.sound import read_speech, resampled, write_wav
from models.errors import ConfigError


def tone(rate_hz: int, length_s: float = 0.5) -> np.ndarray:
    return (8000 * np.sin(2 * np.pi * 300 * np.arange(int(rate_hz * length_s)) / rate_hz)).astype("<i2")


def write(path: Path, samples: np.ndarray, rate_hz: int, channels: int = 1, width: int = 2) -> Path:
    with wave.open(str(path), "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate_hz)
        file.writeframes(samples.tobytes())
    return path


def test_a_file_of_the_right_kind_is_taken_as_it_is(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", tone(16_000).tobytes(), 16_000)
    assert read_speech(tmp_path / "a.wav") == tone(16_000).tobytes()


@pytest.mark.parametrize("rate_hz", [8_000, 22_050, 24_000, 44_100, 48_000])
def test_any_rate_becomes_16_khz(tmp_path: Path, rate_hz: int) -> None:
    pcm = read_speech(write(tmp_path / "a.wav", tone(rate_hz), rate_hz))
    samples = np.frombuffer(pcm, dtype="<i2")
    assert abs(len(samples) - 8000) <= 2
    spectrum = np.abs(np.fft.rfft(samples[:8000], 16_000))
    assert abs(int(spectrum.argmax()) - 300) <= 1


def test_stereo_becomes_mono(tmp_path: Path) -> None:
    both = np.stack([np.full(100, 1000), np.full(100, 3000)], axis=1).astype("<i2")
    pcm = read_speech(write(tmp_path / "a.wav", both, 16_000, channels=2))
    assert np.frombuffer(pcm, dtype="<i2").tolist() == [2000] * 100


def test_a_rate_that_is_right_costs_nothing() -> None:
    assert resampled(b"ab", 16_000) == b"ab"


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.wav cannot be read"):
        read_speech(tmp_path / "none.wav")


@pytest.mark.parametrize("content", [b"", b"RIFF", b"not a wav file at all"])
def test_a_file_that_is_no_wav_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.wav").write_bytes(content)
    with pytest.raises(ConfigError, match=r"a\.wav is no PCM WAV"):
        read_speech(tmp_path / "a.wav")


def test_other_sample_widths_are_refused_with_the_mend(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="convert it to 16-bit"):
        read_speech(write(tmp_path / "a.wav", np.zeros(10, dtype="i1"), 16_000, width=1))


def test_an_endless_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cut it"):
        read_speech(write(tmp_path / "a.wav", np.zeros(121 * 100, dtype="<i2"), 100))


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        write_wav(tmp_path / "no" / "a.wav", b"", 16_000)
