"""A device's packets to sound and how much of it is speech."""

from __future__ import annotations

import time
from collections.abc import Callable

from edge.brain.observer import BrainObserver
from edge.brain.opus import OpusDecoder
from edge.seam import UPLINK_RATE_HZ
from models.engines import VoiceDetector
from models.errors import StageError
from models.speech import AudioFrame

_MAX_DEAF_FRAMES = 50
"""Frames in a row the voice detector may fail on, 3 s at 60 ms: an overload passes, a broken model does not."""


class Ears:
    """One session's decoder and voice detector; counts its audio time."""

    def __init__(
        self, detector: VoiceDetector, observer: BrainObserver, *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._voice = detector.listen()
        self._observer = observer
        self._now = now
        self._decoder = OpusDecoder()
        self._audio_ms = 0.0
        self._deaf_frames = 0

    async def hear(self, packet: bytes) -> tuple[AudioFrame, float]:
        """Return the packet's sound and its speech probability, 0.0 when the detector failed; raise when it fails for seconds."""
        pcm = self._decoder.decode(packet)
        frame = AudioFrame(pcm=pcm, sample_rate_hz=UPLINK_RATE_HZ, start_ms=round(self._audio_ms))
        self._audio_ms += frame.duration_ms
        began_s = self._now()
        try:
            speech = await self._voice.detect(frame)
        except StageError as error:
            self._observer.error("vad", error.code)
            self._deaf_frames += 1
            if self._deaf_frames >= _MAX_DEAF_FRAMES:
                raise
            return frame, 0.0
        self._deaf_frames = 0
        self._observer.stage_seconds("vad", self._now() - began_s)
        return frame, speech

    def forget(self) -> None:
        """Begin a new utterance."""
        self._voice.reset()
