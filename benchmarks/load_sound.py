"""What the devices of a load run hear, encoded once: a tone for scripted engines, a spoken sentence for real ones."""

from __future__ import annotations

import math

from benchmarks.load_device import Sound
from edge.simulator.uplink import FRAME_MS, RATE_HZ, voiced_ms
from edge.simulator.voice import speaker, spoken
from models.scripted import tone

SPEECH_MS = 1_800
"""As in the published comparison of servers under load."""
LEAD_FRAMES = 5
"""300 ms of silence before anybody speaks: nobody speaks into the first frame."""
SENTENCE = "请问今天下午会不会下雨？"
"""About 1.8 s in the starter voice."""
_SILENT_FRAMES = 10
"""Encoded after the speech; the last of them, when the encoder has come to rest, is what is repeated."""
_FRAME_BYTES = RATE_HZ * FRAME_MS // 1000 * 2


def scripted_sound() -> Sound:
    """Return 1.8 s of a tone that ``ScriptedDetector`` takes for speech."""
    return sound_of(tone(SPEECH_MS, RATE_HZ))


async def spoken_sound() -> Sound:
    """Return a sentence in a starter voice; raise CatalogError or ConfigError when that cannot be had."""
    async with speaker("zh") as voice:
        return sound_of(await spoken(SENTENCE, voice, "zh"))


def sound_of(pcm: bytes) -> Sound:
    """Return s16le mono at 16 kHz as a device's microphone sends it, silence around it; raise ConfigError without libopus."""
    from edge.brain.opus import OpusEncoder

    encoder = OpusEncoder(RATE_HZ, FRAME_MS, complexity=0)
    silence = bytes(_FRAME_BYTES)
    lead = tuple(encoder.encode(silence) for _ in range(LEAD_FRAMES))
    frames = [
        pcm[start : start + _FRAME_BYTES].ljust(_FRAME_BYTES, b"\0") for start in range(0, len(pcm), _FRAME_BYTES)
    ]
    speech = [encoder.encode(frame) for frame in frames]
    rest = [encoder.encode(silence) for _ in range(_SILENT_FRAMES)]
    voiced = math.ceil(voiced_ms(pcm) / FRAME_MS)
    return Sound(lead=lead, speech=(*speech, *rest[:-1]), voiced_packets=voiced, silence=rest[-1])
