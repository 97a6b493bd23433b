"""Silero VAD: frames to speech probabilities, the windows of many devices in one call."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from models.batching import Batcher
from models.errors import StageError
from models.onnx import OnnxSession, open_session
from models.slots import Slots
from models.speech import AudioFrame

Floats = npt.NDArray[np.float32]

SAMPLE_RATE_HZ = 16_000

_WINDOW = 512
"""Samples the model judges at once at 16 kHz (32 ms); fixed by the model."""

_CONTEXT = 64
"""Samples of the window before that the model wants in front of each; silero-vad's own wrapper, OnnxWrapper.__call__."""

_STATE = (2, 1, 128)
"""Shape of one device's recurrent state; axis 1 is the batch."""

_RATE = np.array(SAMPLE_RATE_HZ, dtype=np.int64)


@dataclass(frozen=True, eq=False, slots=True)
class _Memory:
    """What the model remembers of one device between windows."""

    state: Floats
    context: Floats


@dataclass(frozen=True, eq=False, slots=True)
class _Heard:
    """One device's next windows, in order, and what came before them."""

    memory: _Memory
    windows: Floats
    """Shape [n, 512], in [-1, 1]."""


@dataclass(frozen=True, eq=False, slots=True)
class _Judged:
    """The memory after the last window and the highest probability of them all."""

    memory: _Memory
    speech: float


class SileroDetector:
    """A VoiceDetector for any number of devices over one model.

    One call takes what up to ``batch`` devices heard; an idle model starts at once unless ``wait_ms`` holds it back for more. More than
    ``max_waiting`` frames in line are refused with StageError. ``observe_wait`` gets each batch's wait for the thread in seconds.
    """

    def __init__(
        self,
        model_path: Path,
        *,
        threads: int = 1,
        batch: int = 32,
        wait_ms: float = 0.0,
        max_waiting: int = 1024,
        providers: Sequence[str] = ("CPUExecutionProvider",),
        observe_wait: Callable[[float], None] = lambda _seconds: None,
        session: OnnxSession | None = None,
    ) -> None:
        """Load the model; ``session`` stands in for the real one. Raises CatalogError, ConfigError. Blocks."""
        model = session or open_session(model_path, threads=threads, providers=providers)
        self._slots = Slots("silero", 1, refusal=StageError, observe_wait=observe_wait)
        self._batcher = Batcher[_Heard, _Judged](
            lambda heard: _judge(model, heard),
            self._slots,
            max_items=batch,
            wait_ms=wait_ms,
            max_waiting=max_waiting,
            refusal=StageError,
        )

    def listen(self) -> SileroStream:
        """Return a fresh stream for one device; it needs no closing."""
        return SileroStream(self._batcher)

    async def close(self) -> None:
        """Refuse further frames and wait for the running call."""
        await self._batcher.close()
        self._slots.close()


class SileroStream:
    """The memory of one device; frames one after another, never two at once."""

    def __init__(self, batcher: Batcher[_Heard, _Judged]) -> None:
        self._batcher = batcher
        self.reset()

    def reset(self) -> None:
        """Forget what was heard, at the start of a new utterance."""
        self._memory = _Memory(np.zeros(_STATE, np.float32), np.zeros(_CONTEXT, np.float32))
        self._rest: Floats = np.zeros(0, np.float32)
        self._last = 0.0

    async def detect(self, frame: AudioFrame) -> float:
        """Return the highest speech probability of the windows this frame completes; the last one if it completes none.

        Frames of any length at 16 kHz; raises StageError for another rate, a model that fails, or a full line. A cancelled frame is
        lost to the stream.
        """
        if frame.sample_rate_hz != SAMPLE_RATE_HZ:
            raise StageError(
                f"silero hears {SAMPLE_RATE_HZ} Hz; a frame of {frame.sample_rate_hz} Hz must be resampled"
            )
        windows, self._rest = cut(np.concatenate([self._rest, samples(frame.pcm)]))
        if len(windows):
            judged = await self._batcher.submit(_Heard(self._memory, windows))
            self._memory, self._last = judged.memory, judged.speech
        return self._last


def samples(pcm: bytes) -> Floats:
    """Return s16le ``pcm`` as floats in [-1, 1); an odd last byte is dropped."""
    return np.frombuffer(pcm, dtype="<i2", count=len(pcm) // 2).astype(np.float32) / np.float32(32768)


def cut(heard: Floats) -> tuple[Floats, Floats]:
    """Return the whole windows in ``heard``, shape [n, 512], and the samples left over."""
    count = len(heard) // _WINDOW
    return heard[: count * _WINDOW].reshape(count, _WINDOW), heard[count * _WINDOW :]


def _judge(session: OnnxSession, heard: list[_Heard]) -> list[_Judged]:
    """Judge all devices' first windows in one call, then all second ones, and so on; blocks."""
    state = np.concatenate([one.memory.state for one in heard], axis=1)
    context = np.stack([one.memory.context for one in heard])
    speech = np.zeros(len(heard), np.float32)
    for turn in range(max(len(one.windows) for one in heard)):
        active = [index for index, one in enumerate(heard) if len(one.windows) > turn]
        inputs = np.concatenate([context[active], np.stack([heard[index].windows[turn] for index in active])], axis=1)
        output, after = session.run({"input": inputs, "state": state[:, active], "sr": _RATE})
        state[:, active] = after
        context[active] = inputs[:, -_CONTEXT:]
        speech[active] = np.maximum(speech[active], output[:, 0])
    return [
        _Judged(_Memory(state[:, index : index + 1].copy(), context[index].copy()), float(speech[index]))
        for index in range(len(heard))
    ]
