"""Sound to log-mel features as OpenAI's Whisper and models built on its encoder want them."""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

SAMPLE_RATE_HZ = 16_000
BANDS = 80
"""Mel bands of every Whisper before large-v3."""
HOP = 160
"""Samples from one frame to the next: 10 ms."""

_WINDOW = 400
"""Samples of a frame, 25 ms; Whisper's own, as are the numbers below."""
_FLOOR = 1e-10
_RANGE = 8.0
"""What is more than this many decades of power below the loudest is cut."""
_VARIANCE_FLOOR = 1e-7
_LINEAR_HZ = 200 / 3
"""Width of a mel below ``_BREAK_HZ`` on Slaney's scale; above it the scale is logarithmic."""
_BREAK_HZ = 1000.0
_LOG_STEP = np.log(6.4) / 27


def normalized(sound: Floats) -> Floats:
    """Return ``sound`` with mean 0 and variance 1; silence stays silence."""
    scaled: Floats = (sound - sound.mean()) / np.sqrt(sound.var() + np.float32(_VARIANCE_FLOOR))
    return scaled


def log_mel(sound: Floats) -> Floats:
    """Return shape [80, frames], a frame per 160 whole samples, of ``sound`` at 16 kHz with at least 201 samples; about in [-1, 1]."""
    padded = np.pad(sound.astype(np.float64), _WINDOW // 2, mode="reflect")
    frames = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::HOP][: len(sound) // HOP]
    spectrum = np.fft.rfft(frames * _hann(), axis=-1)
    power = spectrum.real**2 + spectrum.imag**2
    mel = np.log10(np.maximum(_filters() @ power.T, _FLOOR))
    features: Floats = ((np.maximum(mel, mel.max() - _RANGE) + 4) / 4).astype(np.float32)
    return features


@cache
def _hann() -> Doubles:
    """Return the periodic Hann window."""
    return np.hanning(_WINDOW + 1)[:-1]


@cache
def _filters() -> Doubles:
    """Return triangles of equal area on Slaney's mel scale from 0 to 8 kHz, shape [80, 201]."""
    top = _BREAK_HZ / _LINEAR_HZ + np.log(SAMPLE_RATE_HZ / 2 / _BREAK_HZ) / _LOG_STEP
    corners = _hz(np.linspace(0, top, BANDS + 2))
    bins = np.linspace(0, SAMPLE_RATE_HZ / 2, _WINDOW // 2 + 1)
    widths = np.diff(corners)[:, None]
    slopes = corners[:, None] - bins
    triangles = np.maximum(0, np.minimum(-slopes[:-2] / widths[:-1], slopes[2:] / widths[1:]))
    areas: Doubles = triangles * (2 / (corners[2:] - corners[:-2]))[:, None]
    return areas


def _hz(mels: Doubles) -> Doubles:
    """Return frequencies for places on Slaney's mel scale."""
    break_mel = _BREAK_HZ / _LINEAR_HZ
    curved = _BREAK_HZ * np.exp(_LOG_STEP * (np.maximum(mels, break_mel) - break_mel))
    return np.where(mels < break_mel, mels * _LINEAR_HZ, curved)
