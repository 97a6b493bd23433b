"""Engines that keep nothing and take next to no time; whose words somebody hears is told by pitch, from the microphone to the loudspeaker.

A question is a tone of 300 ms or more; its pitch is a number. The recognizer reads the number, the answer names it, and the voice sings
it. So a packet of one turn that is heard in another can be told. Number PLAIN is the quick one: short delays and a short answer.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from itertools import count

import numpy as np

from edge.engines import Engines
from models.prompts import CompletionDelta, Prompt, Usage
from models.scripted import ScriptedDetector
from models.speech import SpeechChunk, Transcript, Utterance

PLAIN = 0
NUMBERS = range(1, 9)
"""Questions with an answer long enough to be interrupted."""
BASE_HZ, STEP_HZ = 440.0, 60.0
"""Pitch of number n is n steps above the base, that of ``models.scripted.tone``; Opus keeps tones so far apart."""
PEAK = 8000
QUICK_S, SLOW_S = 0.005, 0.06
"""What recognition, the first token and the voice each take, for PLAIN and for the others."""
QUICK_MS, SLOW_MS = 180, 600
"""How long a sentence sounds."""
VOICE_HZ = 24_000
_LOUD = 1000.0
"""Amplitude from which a stretch of sound is a tone: an eighth of what is sung."""
_NUMBER = re.compile(r"(\d)号")


def sung(number: int, length_ms: int, rate_hz: int) -> bytes:
    """Return the tone of a number as s16le mono."""
    seconds = np.arange(length_ms * rate_hz // 1000) / rate_hz
    return (PEAK * np.sin(2 * np.pi * (BASE_HZ + STEP_HZ * number) * seconds)).astype("<i2").tobytes()


def number_of(pcm: bytes, rate_hz: int) -> int | None:
    """Return whose tone is the loudest in s16le mono, None for silence and other sounds."""
    samples = np.frombuffer(pcm, "<i2").astype(np.float64)
    if not len(samples) or np.max(np.abs(samples)) < _LOUD:
        return None
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), n=max(len(samples), rate_hz // 10)))
    peak_hz = float(np.argmax(spectrum)) * rate_hz / max(len(samples), rate_hz // 10)
    number = round((peak_hz - BASE_HZ) / STEP_HZ)
    return number if PLAIN <= number <= NUMBERS[-1] else None


def number_in(text: str) -> int | None:
    """Return the number that a question or answer names."""
    found = _NUMBER.search(text)
    return int(found.group(1)) if found else None


def _delay_s(number: int | None) -> float:
    return SLOW_S if number else QUICK_S


class PitchRecognizer:
    """Hears the number of the tone; every question is another text, so that no answer is remembered."""

    async def transcribe(self, utterance: Utterance) -> Transcript:
        """Return the question."""
        number = number_of(utterance.pcm, 16_000)
        await asyncio.sleep(_delay_s(number))
        text = "" if number is None else f"{number}号的问题，编号{utterance.turn_id[:8]}"
        return Transcript(turn_id=utterance.turn_id, text=text, language=utterance.language or "zh")


class NumberCompleter:
    """Answers a question with its number, and so that no two answers are the same."""

    def __init__(self) -> None:
        self._counter = count()

    async def complete(self, prompt: Prompt) -> AsyncGenerator[CompletionDelta, None]:
        """Yield one sentence for PLAIN, two for the others."""
        # A question whose answer nobody heard stands before the one that followed it.
        number = number_in(prompt.question.rpartition("\n")[2])
        await asyncio.sleep(_delay_s(number))
        answer = f"给{number or PLAIN}号的回答，第{next(self._counter):06d}个。"
        yield CompletionDelta(text=answer, model="soak")
        if number:
            await asyncio.sleep(_delay_s(number))
            yield CompletionDelta(text=f"{number}号的第二句话，也是第{next(self._counter):06d}句。", model="soak")
        yield CompletionDelta(text="", model="soak", usage=Usage(prompt_tokens=1, completion_tokens=len(answer)))


class PitchSynthesizer:
    """Sings a sentence's number."""

    def __init__(self) -> None:
        self._tones = {PLAIN: sung(PLAIN, QUICK_MS, VOICE_HZ)} | {
            number: sung(number, SLOW_MS, VOICE_HZ) for number in NUMBERS
        }

    async def speak(self, text: str, language: str = "") -> AsyncGenerator[SpeechChunk, None]:  # noqa: ARG002 - a tone has no language
        """Yield the tone of the number that the sentence names."""
        number = number_in(text) or PLAIN
        await asyncio.sleep(_delay_s(number))
        yield SpeechChunk(pcm=self._tones[number], sample_rate_hz=VOICE_HZ)


def engines() -> Engines:
    """Return what the node of a soak hears, thinks and speaks with."""
    return Engines(ScriptedDetector(), PitchRecognizer(), NumberCompleter(), PitchSynthesizer())
