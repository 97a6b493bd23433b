from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import numpy as np
import pytest

from edge.simulator.uplink import voiced_ms
from edge.simulator.voice import speaker, spoken
from models.errors import CatalogError, SynthesisError
from models.speech import SpeechChunk
from tests.real_time import run as run_for_real
from tests.virtual_time import run


class Voice:
    def __init__(self, *chunks: SpeechChunk) -> None:
        self.chunks = chunks

    async def speak(self, text: str, language: str = "") -> AsyncGenerator[SpeechChunk, None]:
        for chunk in self.chunks:
            yield chunk


def test_chunks_of_any_rate_become_one_piece_at_16_khz() -> None:
    loud = np.full(2400, 1000, dtype="<i2").tobytes()
    voice = Voice(SpeechChunk(pcm=loud, sample_rate_hz=24_000), SpeechChunk(pcm=loud[:3200], sample_rate_hz=16_000))
    assert len(run(spoken("x", voice, "en"))) == 2 * (1600 + 1600)


def test_nothing_to_say_is_an_error_that_does_not_repeat_the_words() -> None:
    with pytest.raises(SynthesisError, match="6 characters") as raised:
        run(spoken("secret", Voice(), "en"))
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("language", ["zh", "en"])
def test_a_voice_that_was_never_pulled_is_named(tmp_path: Path, language: str) -> None:
    async def work() -> None:
        async with speaker(language, tmp_path):
            pass

    with pytest.raises(CatalogError, match="models pull"):
        run_for_real(work())


@pytest.mark.engine
@pytest.mark.parametrize(("language", "text"), [("zh", "今天天气怎么样？"), ("en", "How are you today?")])
def test_the_starter_voices_speak(language: str, text: str) -> None:
    async def work() -> bytes:
        async with speaker(language) as voice:
            return await spoken(text, voice, language)

    assert 600 < voiced_ms(run_for_real(work(), timeout_s=60)) < 5000
