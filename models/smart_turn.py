"""Smart Turn: the end of an utterance to the probability that its speaker has said all, by how it sounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from models.errors import StageError
from models.log_mel import SAMPLE_RATE_HZ, Floats, log_mel, normalized
from models.onnx import OnnxSession, open_session
from models.slots import Slots
from models.speech import Utterance

WINDOW_S = 8
"""What the model hears at once: the last 8 s; fixed by the model."""

_SAMPLES = WINDOW_S * SAMPLE_RATE_HZ
_FULL_SCALE = np.float32(1 / 32768)


class SmartTurnDetector:
    """A TurnDetector over the model of pipecat-ai/smart-turn v3; one call at a time.

    More than ``max_waiting`` utterances in line are refused with StageError. ``observe_wait`` gets each wait for the thread in seconds.
    """

    def __init__(
        self,
        model_path: Path,
        *,
        threads: int = 1,
        max_waiting: int = 16,
        providers: Sequence[str] = ("CPUExecutionProvider",),
        observe_wait: Callable[[float], None] = lambda _seconds: None,
        session: OnnxSession | None = None,
    ) -> None:
        """Load the model; ``session`` stands in for the real one. Raises CatalogError, ConfigError. Blocks."""
        self._session = session or open_session(model_path, threads=threads, providers=providers)
        self._slots = Slots("smart-turn", 1, max_waiting=max_waiting, refusal=StageError, observe_wait=observe_wait)

    async def finished(self, utterance: Utterance) -> float:
        """Return the probability in [0, 1] that the speaker has said all, from the last 8 s; 0.5 and above is upstream's yes.

        Wants the silence after the last word to be part of the utterance. Raises StageError for another rate than 16 kHz, a model that
        fails, or a full line. Cancelled while the model runs, this waits for it (tens of ms).
        """
        if utterance.sample_rate_hz != SAMPLE_RATE_HZ:
            raise StageError(
                f"smart-turn hears {SAMPLE_RATE_HZ} Hz; an utterance of {utterance.sample_rate_hz} Hz must be resampled"
            )
        async with self._slots.hold(owner=utterance.device_id):
            return await self._slots.run(self._judge, utterance.pcm)

    async def warm(self) -> None:
        """Judge silence once, so that no device pays for the first call; raises StageError."""
        async with self._slots.hold():
            await self._slots.run(self._judge, b"")

    def close(self) -> None:
        """Refuse further utterances; does not block."""
        self._slots.close()

    def _judge(self, pcm: bytes) -> float:
        (found,) = self._session.run({"input_features": features(pcm)[None]})
        return float(found[0, 0])


def features(pcm: bytes) -> Floats:
    """Return what the model wants for s16le mono ``pcm`` at 16 kHz, shape [80, 800]: the last 8 s, silence in front of shorter sound."""
    heard = np.frombuffer(pcm, dtype="<i2", count=len(pcm) // 2)[-_SAMPLES:]
    window = np.zeros(_SAMPLES, np.float32)
    window[_SAMPLES - len(heard) :] = heard * _FULL_SCALE
    return log_mel(normalized(window))
