"""Sentences into what somebody says to a device, with the starter voices."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Protocol

from edge.simulator.sound import resampled
from models.engines import Synthesizer
from models.errors import SynthesisError

MANDARIN_MODEL, MANDARIN_VOICE = "kokoro-82m-int8", "kokoro-voice-zm_yunxia"
"""Not the voice an edge answers with, so that a recording tells the two apart."""
ENGLISH_VOICE = "piper-en-us-joe-medium"


class Speaker(Synthesizer, Protocol):
    """A voice that holds something to give back."""

    def close(self) -> None:
        """Refuse new sentences; does not block."""
        ...


@asynccontextmanager
async def speaker(language: str, root: Path | None = None) -> AsyncGenerator[Synthesizer, None]:
    """Yield the starter voice for "zh" or "en" from the models below ``root``; raise CatalogError or ConfigError."""
    voice = await asyncio.to_thread(_open_mandarin if language == "zh" else _open_english, root)
    try:
        yield voice
    finally:
        voice.close()


async def spoken(text: str, voice: Synthesizer, language: str) -> bytes:
    """Return ``text`` spoken, s16le mono at 16 kHz; raise SynthesisError when there is nothing to hear."""
    said = b""
    async with aclosing(voice.speak(text, language)) as chunks:
        async for chunk in chunks:
            said += resampled(chunk.pcm, chunk.sample_rate_hz)
    if not said:
        raise SynthesisError(f"the {language} voice found nothing to say in {len(text)} characters")
    return said


def _open_mandarin(root: Path | None) -> Speaker:
    from models.kokoro import KokoroSynthesizer
    from models.store import locate

    return KokoroSynthesizer(locate(MANDARIN_MODEL, root)["model"], locate(MANDARIN_VOICE, root)["voice"])


def _open_english(root: Path | None) -> Speaker:
    from models.piper import PiperSynthesizer
    from models.store import locate

    files = locate(ENGLISH_VOICE, root)
    return PiperSynthesizer(files["model"], files["config"])
