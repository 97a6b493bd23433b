"""The nouns of sound: what a device says and what it hears."""

from __future__ import annotations

import msgspec


class AudioFrame(msgspec.Struct, frozen=True, kw_only=True):
    """One decoded packet from a device."""

    pcm: bytes
    """s16le mono; 60 ms at 16 kHz = 960 samples = 1,920 bytes."""
    sample_rate_hz: int = 16_000
    start_ms: int
    """Audio time: milliseconds of audio received in this session before this frame, not wall time."""

    @property
    def duration_ms(self) -> float:
        """Length of the frame in milliseconds of audio."""
        return len(self.pcm) / 2 * 1000 / self.sample_rate_hz


class Utterance(msgspec.Struct, frozen=True, kw_only=True):
    """What one person said between two silences."""

    turn_id: str
    device_id: str
    pcm: bytes
    """s16le mono."""
    sample_rate_hz: int = 16_000
    start_ms: int
    """Audio time of the first sample."""
    end_ms: int
    """Audio time of the last sample."""
    language: str = ""
    """BCP-47 primary tag the device is set to ("zh", "en"), or "" to let the recogniser decide."""
    is_final: bool = True
    """False for the beginning of an utterance that goes on: transcribed only when nothing final waits."""


class Transcript(msgspec.Struct, frozen=True, kw_only=True):
    """An utterance as text."""

    turn_id: str
    text: str
    """Empty when nothing intelligible was said."""
    language: str = ""
    """BCP-47 primary tag, e.g. "zh", "en"."""
    confidence: float = 1.0
    """In [0, 1]; 1.0 when the engine gives none."""


class SpeechChunk(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of a spoken sentence."""

    pcm: bytes
    """s16le mono."""
    sample_rate_hz: int
