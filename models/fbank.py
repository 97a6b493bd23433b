"""Sound into the features FunASR's models hear: log mel energies, stacked in sevens and normalized."""

from __future__ import annotations

import math
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.errors import CatalogError, ConfigError

Floats = npt.NDArray[np.float32]
Doubles = npt.NDArray[np.float64]

_MEND = "delete it and pull the model again with: xiaozhi-fleet models pull"


@dataclass(frozen=True, slots=True)
class FbankSettings:
    """What ``frontend_conf`` of a FunASR model's config.yaml says; these are SenseVoice's values."""

    sample_rate_hz: int = 16_000
    window: str = "hamming"
    mels: int = 80
    frame_ms: float = 25.0
    hop_ms: float = 10.0
    stacked: int = 7
    """Frames in one feature vector (FunASR's lfr_m)."""
    step: int = 6
    """Frames from one feature vector to the next (lfr_n): 60 ms."""

    @property
    def width(self) -> int:
        """Numbers in one feature vector."""
        return self.mels * self.stacked


class Fbank:
    """FunASR's WavFrontend (funasr_onnx/utils/frontend.py) without its dither, so that the same sound always gives the same text."""

    def __init__(self, settings: FbankSettings, shift: Doubles, scale: Doubles) -> None:
        """Take the model's normalization, both of shape [``settings.width``]; raise ConfigError without kaldi-native-fbank."""
        if find_spec("kaldi_native_fbank") is None:
            raise ConfigError("kaldi-native-fbank is missing; install xiaozhi-fleet[engines]")
        import kaldi_native_fbank

        options = kaldi_native_fbank.FbankOptions()
        options.frame_opts.samp_freq = settings.sample_rate_hz
        options.frame_opts.dither = 0.0
        options.frame_opts.window_type = settings.window
        options.frame_opts.frame_shift_ms = settings.hop_ms
        options.frame_opts.frame_length_ms = settings.frame_ms
        options.frame_opts.snip_edges = True
        options.mel_opts.num_bins = settings.mels
        options.energy_floor = 0.0
        self._options = options
        self._open: Any = kaldi_native_fbank.OnlineFbank
        self.settings = settings
        self._shift = shift
        self._scale = scale

    def features(self, pcm: npt.NDArray[np.int16]) -> Floats:
        """Return the features of 16-bit mono sound, shape [ceil(frames / step), width]; none when it is shorter than one frame."""
        stacked = stack(self.mel(pcm), self.settings.stacked, self.settings.step)
        return ((stacked + self._shift) * self._scale).astype(np.float32)

    def mel(self, pcm: npt.NDArray[np.int16]) -> Floats:
        """Return the log mel energies, shape [frames, mels]."""
        extractor = self._open(self._options)
        # A list is taken in twice as fast as an array.
        extractor.accept_waveform(self.settings.sample_rate_hz, pcm.astype(np.float32).tolist())
        frames = [extractor.get_frame(index) for index in range(extractor.num_frames_ready)]
        return np.array(frames, np.float32).reshape(-1, self.settings.mels)


def stack(mel: Floats, stacked: int, step: int) -> Floats:
    """Return every ``step``-th frame with its neighbours, ``stacked`` in all, side by side; the first and the last frame repeat."""
    frames = len(mel)
    before = (stacked - 1) // 2
    first = np.arange(0, frames, step)[:, np.newaxis] - before
    wanted = np.clip(first + np.arange(stacked), 0, frames - 1) if frames else first.astype(int)
    features: Floats = mel[wanted].reshape(-1, stacked * mel.shape[1])
    return features


def read_normalization(path: Path, width: int) -> tuple[Doubles, Doubles]:
    """Return shift and scale of a Kaldi ``am.mvn`` file, shape [``width``] each; raise CatalogError naming the file."""
    try:
        words = path.read_text("utf-8").split()
    except (OSError, ValueError) as error:
        raise CatalogError(f"{path}: not a readable normalization file; {_MEND}") from error
    return _vector(path, words, "<AddShift>", width), _vector(path, words, "<Rescale>", width)


def _vector(path: Path, words: list[str], name: str, width: int) -> Doubles:
    """Return the numbers between the brackets that follow ``name``."""
    try:
        begin = words.index("[", words.index(name)) + 1
        numbers = [float(word) for word in words[begin : words.index("]", begin)]]
    except ValueError as error:
        raise CatalogError(f"{path}: no {name} with numbers in it; {_MEND}") from error
    if len(numbers) != width or not all(map(math.isfinite, numbers)):
        raise CatalogError(f"{path}: {name} should have {width} numbers and has {len(numbers)}; {_MEND}")
    return np.array(numbers, np.float64)
