"""Silero VAD: frames to speech probabilities, the windows of many devices in one call."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
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

_WINDOW_BYTES = 2 * _WINDOW

_CONTEXT = 64
"""Samples of the window before that the model wants in front of each; silero-vad's own wrapper, OnnxWrapper.__call__."""

_STATE = 128
"""Width of each of the two halves of one device's recurrent state, shape [2, batch, 128]."""

_FULL_SCALE = np.float32(1 / 32768)
_RATE = np.array(SAMPLE_RATE_HZ, dtype=np.int64)


class SileroDetector:
    """A VoiceDetector for any number of devices over one model.

    One call takes what up to ``batch`` devices heard; ``wait_ms`` holds a call that is not full back for more. More than
    ``max_waiting`` frames in line are refused with StageError. ``observe_wait`` gets each batch's wait for the thread in seconds.
    """

    def __init__(
        self,
        model_path: Path,
        *,
        threads: int = 1,
        batch: int = 32,
        wait_ms: float = 5.0,
        max_waiting: int = 1024,
        providers: Sequence[str] = ("CPUExecutionProvider",),
        observe_wait: Callable[[float], None] = lambda _seconds: None,
        session: OnnxSession | None = None,
    ) -> None:
        """Load any variant of the model; ``session`` stands in for the real one. Raises CatalogError, ConfigError. Blocks."""
        self._judge = _Judge(session or open_session(model_path, threads=threads, providers=providers))
        self._slots = Slots("silero", 1, refusal=StageError, observe_wait=observe_wait)
        self._batch = batch
        self._places = _Places()
        self._batcher = Batcher[SileroStream, float](
            self._judge,
            self._slots,
            max_items=batch,
            wait_ms=wait_ms if batch > 1 else 0.0,
            max_waiting=max_waiting,
            refusal=StageError,
        )

    def listen(self) -> SileroStream:
        """Return a fresh stream for one device; it needs no closing."""
        return SileroStream(self._batcher, self._places)

    async def warm(self) -> None:
        """Judge silence once alone and once in a full batch, so that no device pays for the first call; raises StageError."""
        for count in sorted({1, self._batch}):
            async with self._slots.hold():
                await self._slots.run(self._judge.judge_silence, count)

    async def close(self) -> None:
        """Refuse further frames and wait for the running call."""
        await self._batcher.close()
        self._slots.close()


class SileroStream:
    """One device's place in the detector's memory; frames one after another, never two at once."""

    def __init__(self, batcher: Batcher[SileroStream, float], places: _Places) -> None:
        self._batcher = batcher
        self.place = places.take()
        """Row of the detector's memory that is this device's while the stream lives."""
        self.windows = b""
        """What the model is to judge next: whole windows, s16le."""
        weakref.finalize(self, places.give_back, self.place)
        self.reset()

    def reset(self) -> None:
        """Forget what was heard, at the start of a new utterance."""
        self.is_fresh = True
        """Whether the row holds what somebody else heard, or this device before."""
        self._rest = b""
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
        self.windows, self._rest = cut(self._rest, frame.pcm)
        if self.windows:
            self._last = await self._batcher.submit(self)
        return self._last


def cut(rest: bytes, pcm: bytes) -> tuple[bytes, bytes]:
    """Return the whole windows in ``rest`` and ``pcm`` after it, s16le, and what is left over; an odd last byte is dropped."""
    heard = rest + (pcm if len(pcm) % 2 == 0 else pcm[:-1])
    whole = len(heard) // _WINDOW_BYTES * _WINDOW_BYTES
    return heard[:whole], heard[whole:]


class _Places:
    """Rows of the memory: the lowest free one first, so that it stays as small as the devices there are at once."""

    def __init__(self) -> None:
        self._free: list[int] = []
        self._count = 0

    def take(self) -> int:
        """Return a row that nobody has."""
        if self._free:
            return self._free.pop()
        self._count += 1
        return self._count - 1

    def give_back(self, place: int) -> None:
        """Free a row."""
        self._free.append(place)


class _Judge:
    """The model and what it remembers of every device; only the detector's one thread touches either."""

    def __init__(self, session: OnnxSession) -> None:
        self._session = session
        self._state = np.zeros((2, 0, _STATE), np.float32)
        self._context = np.zeros((0, _CONTEXT), np.float32)

    def __call__(self, heard: list[SileroStream]) -> list[float]:
        """Judge all devices' first windows in one call, then all second ones, and so on; blocks. Raises StageError."""
        order = sorted(range(len(heard)), key=lambda index: -len(heard[index].windows))
        streams = [heard[index] for index in order]
        places = self._places_of(streams)
        state, context = self._state[:, places], self._context[places]
        speech = np.zeros(len(heard), np.float32)
        for start in range(0, len(streams[0].windows), _WINDOW_BYTES):
            pcm = b"".join(stream.windows[start : start + _WINDOW_BYTES] for stream in streams)
            count = len(pcm) // _WINDOW_BYTES
            inputs = np.empty((count, _CONTEXT + _WINDOW), np.float32)
            inputs[:, :_CONTEXT] = context[:count]
            np.multiply(np.frombuffer(pcm, "<i2").reshape(count, _WINDOW), _FULL_SCALE, out=inputs[:, _CONTEXT:])
            before = state if count == len(streams) else np.ascontiguousarray(state[:, :count])
            output, state[:, :count] = self._session.run({"input": inputs, "state": before, "sr": _RATE})
            context[:count] = inputs[:, -_CONTEXT:]
            np.maximum(speech[:count], output[:, 0], out=speech[:count])
        self._state[:, places], self._context[places] = state, context
        judged = np.empty_like(speech)
        judged[order] = speech
        found: list[float] = judged.tolist()
        return found

    def judge_silence(self, count: int) -> None:
        """Run the model on silence from ``count`` devices that do not exist; blocks. Raises StageError."""
        silence, state = np.zeros((count, _CONTEXT + _WINDOW), np.float32), np.zeros((2, count, _STATE), np.float32)
        self._session.run({"input": silence, "state": state, "sr": _RATE})

    def _places_of(self, streams: list[SileroStream]) -> list[int]:
        """Return the rows of the memory, after making room for new ones and emptying those that begin anew."""
        places = [stream.place for stream in streams]
        missing = max(places) + 1 - len(self._context)
        if missing > 0:
            more = max(missing, len(self._context))
            self._state = np.pad(self._state, ((0, 0), (0, more), (0, 0)))
            self._context = np.pad(self._context, ((0, more), (0, 0)))
        for stream in streams:
            if stream.is_fresh:
                stream.is_fresh = False
                self._state[:, stream.place] = 0.0
                self._context[stream.place] = 0.0
        return places
