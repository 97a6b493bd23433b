"""One protocol and one verb per stage; everything a turn passes through is one of these.

Shared engines are stateless: what belongs to one device or one utterance lives in the object or generator they return.
Streams are async generators, always consumed under ``contextlib.aclosing``: closing one, or cancelling the task that reads it,
stops the work everywhere (threads, slots, upstream requests) before it returns.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from models.prompts import CompletionDelta, Prompt
from models.speech import AudioFrame, SpeechChunk, Transcript, Utterance


class VoiceStream(Protocol):
    """The voice detector's memory of one device."""

    async def detect(self, frame: AudioFrame) -> float:
        """Return the highest speech probability in [0, 1] of the windows this frame completes; the last one if it completes none."""
        ...

    def reset(self) -> None:
        """Forget what was heard, at the start of a new utterance."""
        ...


class VoiceDetector(Protocol):
    """Tells speech from silence for many devices at once."""

    def listen(self) -> VoiceStream:
        """Return a fresh stream for one device; it needs no closing."""
        ...


class Recognizer(Protocol):
    """Turns an utterance into text."""

    async def transcribe(self, utterance: Utterance) -> Transcript:
        """Return what was said, ``text=""`` for nothing intelligible; raise RecognitionError. Cancelling frees the slot."""
        ...


class TurnDetector(Protocol):
    """Tells a pause in a sentence from its end by how it sounds."""

    async def finished(self, utterance: Utterance) -> float:
        """Return the probability in [0, 1] that the speaker has said all; raise StageError. Cancelling frees the slot."""
        ...


class Completer(Protocol):
    """Whatever answers a prompt: a local model, a cache, the hierarchy, the link to the cloud, a vLLM client."""

    def complete(self, prompt: Prompt) -> AsyncGenerator[CompletionDelta, None]:
        """Yield the answer piece by piece; raise CompletionError or a subclass. Closing stops the work everywhere."""
        ...


class Synthesizer(Protocol):
    """Turns a sentence into sound."""

    def speak(self, text: str, language: str = "") -> AsyncGenerator[SpeechChunk, None]:
        """Yield the spoken sentence; nothing for text without anything speakable; raise SynthesisError. Closing frees the slot."""
        ...
