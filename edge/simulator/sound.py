"""WAV files and sample rates: any mono or stereo s16 file into what a device's microphone hears, and back onto disk."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np

from edge.simulator.uplink import RATE_HZ
from models.errors import ConfigError

_SAMPLE_BYTES = 2
MAX_SPEECH_S = 120
"""Longest file taken; nobody says more to a device in one breath. A guess."""


def read_speech(path: Path) -> bytes:
    """Return the file as s16le mono at 16 kHz; raise ConfigError naming the file and the mend."""
    try:
        with wave.open(str(path), "rb") as file:
            if file.getsampwidth() != _SAMPLE_BYTES:
                bits = file.getsampwidth() * 8
                raise ConfigError(f"{path} has {bits}-bit samples: convert it to 16-bit PCM")
            if file.getnframes() > MAX_SPEECH_S * file.getframerate():
                raise ConfigError(f"{path} is longer than {MAX_SPEECH_S} s: cut it")
            pcm = file.readframes(file.getnframes())
            return resampled(_mono(pcm, file.getnchannels()), file.getframerate())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    except (wave.Error, EOFError) as error:
        raise ConfigError(f"{path} is no PCM WAV file: convert it to 16-bit PCM ({error})") from error


def write_wav(path: Path, pcm: bytes, rate_hz: int) -> None:
    """Write s16le mono; raise ConfigError when the place cannot be written."""
    try:
        with path.open("wb") as out, wave.open(out, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(_SAMPLE_BYTES)
            file.setframerate(rate_hz)
            file.writeframes(pcm)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error


def resampled(pcm: bytes, from_hz: int, to_hz: int = RATE_HZ) -> bytes:
    """Return s16le mono ``pcm`` at another rate; raise ConfigError when the resampler is missing."""
    if from_hz == to_hz:
        return pcm
    try:
        import soxr
    except ImportError as error:
        raise ConfigError(f"sound at {from_hz} Hz needs resampling; run: pip install soxr") from error
    samples = soxr.resample(np.frombuffer(pcm, dtype="<i2"), from_hz, to_hz, quality="HQ")
    return bytes(samples.astype("<i2").tobytes())


def _mono(pcm: bytes, channels: int) -> bytes:
    if channels == 1:
        return pcm
    samples = np.frombuffer(pcm[: len(pcm) // (channels * _SAMPLE_BYTES) * channels * _SAMPLE_BYTES], dtype="<i2")
    return bytes(samples.reshape(-1, channels).mean(axis=1).astype("<i2").tobytes())
