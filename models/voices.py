"""Sends each stretch of a sentence to the voice that speaks it, and trims what voices render."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Collection, Mapping
from contextlib import aclosing

import numpy as np
import numpy.typing as npt

from models.engines import Synthesizer
from models.errors import ConfigError
from models.normalize import normalize
from models.speech import SpeechChunk

_AUDIBLE = 0.01
"""Amplitude in [0, 1], -40 dB, above which the voices here speak rather than breathe (measured on Kokoro and Piper)."""

_CHINESE = re.compile(r"[〇㐀-䶿一-鿿]")
_WORD = re.compile(r"(?<![\d°A-Za-z])[A-Za-z]+(?:['’-][A-Za-z]+)*")
_STRETCHES = re.compile(
    r"(?P<zh>[〇㐀-䶿一-鿿]+)"
    r"|(?P<en>(?<![\d°A-Za-z])[A-Za-z]+(?:['’-][A-Za-z]+)*(?:[ ,]+[A-Za-z]+(?:['’-][A-Za-z]+)*)*)"
    r"|(?P<neutral>[^〇㐀-䶿一-鿿])"
)
_SHORTEST_WORD = 3
"""Latin letters below which a lone word in a Chinese sentence is an abbreviation the Chinese voice can spell."""


def main_language(text: str, hint: str = "") -> str:
    """Return "zh" or "en", the script most of ``text`` is in (a Chinese character weighs what a Latin word does), else ``hint``'s."""
    chinese, words = len(_CHINESE.findall(text)), len(_WORD.findall(text))
    if chinese == words:
        return hint.lower().partition("-")[0]
    return "zh" if chinese > words else "en"


def stretches(text: str, spoken: Collection[str], *, hint: str = "", default: str = "zh") -> list[tuple[str, str]]:
    """Cut ``text`` into (language, part), languages out of ``spoken``; marks and digits stay with the sentence's main language.

    Joined, the parts are ``text``. Abbreviations in a Chinese sentence stay with the Chinese voice, which spells them.
    """
    main = main_language(text, hint)
    main = main if main in spoken else default
    parts: list[tuple[str, str]] = []
    for match in _STRETCHES.finditer(text):
        language = _language_of(match, main)
        language = language if language in spoken else main
        if parts and parts[-1][0] == language:
            parts[-1] = (language, parts[-1][1] + match[0])
        else:
            parts.append((language, match[0]))
    return parts


def _language_of(match: re.Match[str], main: str) -> str:
    script, part = str(match.lastgroup), match[0]
    if script == "neutral":
        return main
    if script == "en" and " " not in part and (len(part) < _SHORTEST_WORD or part.isupper()):
        return main
    return script


class Voices:
    """A Synthesizer made of one voice per language; chunks of one sentence may differ in sample rate."""

    def __init__(self, voices: Mapping[str, Synthesizer], *, default: str) -> None:
        if default not in voices:
            raise ConfigError(f"no voice for the default language {default!r}; voices: {sorted(voices)}")
        self._voices = dict(voices)
        self._default = default

    def words(self, text: str, language: str = "") -> str:
        """Return what ``speak`` says, by voice: texts that are the same here sound the same."""
        parts = stretches(text, self._voices, hint=language, default=self._default)
        return "|".join(f"{tongue}:{normalize(part, tongue)}" for tongue, part in parts)

    async def speak(self, text: str, language: str = "") -> AsyncGenerator[SpeechChunk, None]:
        """Yield ``text`` spoken, each stretch by its language's voice; ``language`` breaks ties. Raises SynthesisError."""
        for tongue, part in stretches(text, self._voices, hint=language, default=self._default):
            async with aclosing(self._voices[tongue].speak(part, tongue)) as chunks:
                async for chunk in chunks:
                    yield chunk


def trimmed_pcm(
    samples: npt.NDArray[np.float32], sample_rate_hz: int, *, lead_ms: int = 50, trail_ms: int = 80
) -> bytes:
    """Return ``samples`` in [-1, 1] as s16le without the silence around them but that much; b"" when nothing is audible."""
    audible = np.flatnonzero(np.abs(samples) > _AUDIBLE)
    if not audible.size:
        return b""
    first = max(int(audible[0]) - lead_ms * sample_rate_hz // 1000, 0)
    last = int(audible[-1]) + 1 + trail_ms * sample_rate_hz // 1000
    return (np.clip(samples[first:last], -1.0, 1.0) * 32767).astype("<i2").tobytes()
