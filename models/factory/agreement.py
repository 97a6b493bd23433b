"""How far a variant of Silero VAD is from the original, on real speech."""

from __future__ import annotations

import wave
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from models.errors import ConfigError
from models.onnx import OnnxSession

Floats = npt.NDArray[np.float32]

SAMPLE_RATE_HZ = 16_000
WINDOW_MS = 32
"""What the model judges at once."""

_WINDOW, _CONTEXT, _STATE = 512, 64, 128
_SPEECH_ON, _SPEECH_OFF = 0.5, 0.35
"""The segmenter's defaults."""
_BRIDGED = 10
"""Windows of silence inside a segment: 320 ms, about what an utterance holds between words."""


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """What a variant hears, compared with the original."""

    windows: int
    max_difference: float
    """Of the speech probability, in [0, 1]."""
    mean_difference: float
    decisions_alike: float
    """Share in [0, 1] of windows on the same side of 0.5."""
    segments: int
    """Stretches of speech the original finds."""
    segments_alike: float
    """Share in [0, 1] of recordings with the same number of stretches; the shifts are of those only."""
    boundary_shift_ms_max: float
    boundary_shift_ms_mean: float


def compare(reference: OnnxSession, variant: OnnxSession, sounds: Sequence[Floats]) -> Agreement:
    """Let both hear all ``sounds`` (16 kHz, in [-1, 1], at least one) as one batch, quiet beside loud; blocks. Raises StageError."""
    wanted, got = probabilities(reference, sounds), probabilities(variant, sounds)
    apart = np.abs(wanted - got)
    pairs = [(segments(one), segments(other)) for one, other in zip(wanted, got, strict=True)]
    alike = [(one, other) for one, other in pairs if len(one) == len(other)]
    shifts = [abs(a - b) * WINDOW_MS for one, other in alike for a, b in zip(sum(one, ()), sum(other, ()), strict=True)]
    return Agreement(
        windows=apart.size,
        max_difference=round(float(apart.max(initial=0.0)), 4),
        mean_difference=round(float(apart.mean()), 5),
        decisions_alike=round(float(np.mean((wanted >= _SPEECH_ON) == (got >= _SPEECH_ON))), 5),
        segments=sum(len(one) for one, _ in pairs),
        segments_alike=round(len(alike) / len(pairs), 4),
        boundary_shift_ms_max=float(max(shifts, default=0)),
        boundary_shift_ms_mean=round(float(np.mean(shifts)) if shifts else 0.0, 2),
    )


def probabilities(session: OnnxSession, sounds: Sequence[Floats]) -> Floats:
    """Return the speech probability of each whole window of each sound, shape [sounds, windows]; shorter sounds end in silence."""
    count = max(len(sound) for sound in sounds) // _WINDOW
    heard = np.zeros((len(sounds), _CONTEXT + count * _WINDOW), np.float32)
    for row, sound in zip(heard, sounds, strict=True):
        row[_CONTEXT : _CONTEXT + len(sound)] = sound[: count * _WINDOW]
    state = np.zeros((2, len(sounds), _STATE), np.float32)
    found = np.zeros((len(sounds), count), np.float32)
    for index in range(count):
        window = np.ascontiguousarray(heard[:, index * _WINDOW : (index + 1) * _WINDOW + _CONTEXT])
        output, state = session.run({"input": window, "state": state, "sr": np.array(SAMPLE_RATE_HZ, np.int64)})
        found[:, index] = output[:, 0]
    return found


def segments(speech: Floats) -> list[tuple[int, int]]:
    """Return first and past-last window of each stretch of speech, pauses below 320 ms bridged."""
    found: list[tuple[int, int]] = []
    is_speech = False
    for index, probability in enumerate(speech):
        is_speech = probability >= (_SPEECH_OFF if is_speech else _SPEECH_ON)
        if not is_speech:
            continue
        if found and index - found[-1][1] < _BRIDGED:
            found[-1] = (found[-1][0], index + 1)
        else:
            found.append((index, index + 1))
    return found


def read_sounds(folder: Path) -> list[Floats]:
    """Return the recordings in ``folder`` and below it (.wav at 16 kHz, 16 bit; .ogg of any kind), mono; raise ConfigError."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in {".wav", ".ogg"})
    if not paths:
        raise ConfigError(f"{folder}: no .wav or .ogg files in it")
    return [_read_wav(path) if path.suffix.lower() == ".wav" else _read_ogg(path) for path in paths]


def _read_wav(path: Path) -> Floats:
    try:
        with wave.open(str(path), "rb") as sound:
            if (sound.getframerate(), sound.getsampwidth()) != (SAMPLE_RATE_HZ, 2):
                raise ConfigError(f"{path}: must be 16 bit at {SAMPLE_RATE_HZ} Hz")
            channels, pcm = sound.getnchannels(), sound.readframes(sound.getnframes())
    except (wave.Error, OSError, EOFError) as error:
        raise ConfigError(f"{path}: not a readable WAV file ({error})") from error
    return _mono(np.frombuffer(pcm, "<i2").reshape(-1, channels).T)


def _read_ogg(path: Path) -> Floats:
    if find_spec("av") is None:
        raise ConfigError("av is missing, which reads .ogg; install xiaozhi-fleet[engines]")
    import av

    try:
        with av.open(str(path)) as sound:
            resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE_HZ)
            frames = [part for frame in sound.decode(audio=0) for part in resampler.resample(frame)]
    except (av.error.FFmpegError, OSError, IndexError) as error:
        raise ConfigError(f"{path}: not a readable recording ({type(error).__name__})") from error
    return _mono(
        np.concatenate([frame.to_ndarray() for frame in frames], axis=1) if frames else np.zeros((1, 0), "<i2")
    )


def _mono(channels: npt.NDArray[np.int16]) -> Floats:
    sound: Floats = channels.mean(axis=0, dtype=np.float32) / np.float32(32768)
    return sound
