"""What is said near a device into 60 ms frames in real time: the microphone streams silence whenever nobody speaks."""

from __future__ import annotations

import numpy as np

RATE_HZ = 16_000
FRAME_MS = 60
WARM_UP_MS = 120.0
"""From ``listen/start`` to the first packet (protocol §6.1)."""
MAX_BEHIND_FRAMES = 40
"""Packets a stalled network may hold back before the oldest are lost (protocol §6.1)."""
_WINDOW_MS = 10
_QUIET_RATIO = 0.01
"""A window 40 dB below the loudest one is silence. A guess that suits clean recordings and the starter voices."""
_QUIET_FLOOR = 32.0
"""RMS of 16-bit samples below which nothing is a voice: -60 dBFS."""


def voiced_ms(pcm: bytes, rate_hz: int = RATE_HZ) -> float:
    """Return where the last audible 10 ms of s16le mono ``pcm`` end; 0 for silence."""
    samples = np.frombuffer(pcm, dtype="<i2").astype(np.float64)
    size = rate_hz * _WINDOW_MS // 1000
    windows = np.pad(samples, (0, -len(samples) % size)).reshape(-1, size)
    if not len(windows):
        return 0.0
    loudness = np.sqrt(np.mean(windows**2, axis=1))
    audible = np.flatnonzero(loudness > max(_QUIET_FLOOR, float(loudness.max()) * _QUIET_RATIO))
    if not len(audible):
        return 0.0
    return min(float(audible[-1] + 1) * _WINDOW_MS, len(samples) * 1000 / rate_hz)


class Microphone:
    """The device's microphone; times are the device's milliseconds."""

    def __init__(self) -> None:
        self.spoke_until_ms: float | None = None
        """When the last audible sample of what was said passed the microphone; None before."""
        self.unheard_ms = 0.0
        """Speech that fell on a microphone already switched off."""
        self.lost_frames = 0
        """Frames given up because the network had stalled."""
        self._due_ms: float | None = None
        self._speech = b""
        self._voiced_left_ms = 0.0

    @property
    def is_on(self) -> bool:
        """Whether the microphone streams."""
        return self._due_ms is not None

    @property
    def has_more_to_say(self) -> bool:
        """Whether speech is still to be sent."""
        return bool(self._speech)

    @property
    def next_due_ms(self) -> float | None:
        """When the next frame is complete; None when switched off."""
        return self._due_ms

    def switch_on(self, now_ms: float) -> None:
        """Begin to stream; the first frame is complete after the warm-up."""
        self._due_ms = now_ms + WARM_UP_MS

    def switch_off(self) -> None:
        """Stop; whatever is still being said is lost and counted."""
        if self._due_ms is not None and self._voiced_left_ms > 0:
            self.spoke_until_ms = self._due_ms - FRAME_MS + self._voiced_left_ms
            self.unheard_ms += self._voiced_left_ms
        self._speech, self._voiced_left_ms, self._due_ms = b"", 0.0, None

    def say(self, pcm: bytes) -> None:
        """Speak s16le mono at 16 kHz from the next frame on; padded with silence to whole frames."""
        self.spoke_until_ms, self.unheard_ms, self.lost_frames = None, 0.0, 0
        self._speech = pcm
        self._voiced_left_ms = voiced_ms(pcm)

    def due(self, now_ms: float) -> list[bytes]:
        """Return the frames complete by ``now_ms``, 960 samples each, the oldest lost when more than 40."""
        frames: list[bytes] = []
        while self._due_ms is not None and self._due_ms <= now_ms:
            frames.append(self._frame(self._due_ms))
            self._due_ms += FRAME_MS
        lost = max(0, len(frames) - MAX_BEHIND_FRAMES)
        self.lost_frames += lost
        return frames[lost:]

    def _frame(self, end_ms: float) -> bytes:
        if self._voiced_left_ms > 0:
            if self._voiced_left_ms <= FRAME_MS:
                self.spoke_until_ms = end_ms - FRAME_MS + self._voiced_left_ms
            self._voiced_left_ms = max(0.0, self._voiced_left_ms - FRAME_MS)
        frame_bytes = RATE_HZ * FRAME_MS // 1000 * 2
        frame, self._speech = self._speech[:frame_bytes], self._speech[frame_bytes:]
        return frame.ljust(frame_bytes, b"\0")
