"""Engines behind a limit: the same protocols, with every call counted against an ``Intake`` before it can stand in a line."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from models.engines import Completer, Recognizer, Synthesizer
from models.limits import Intake
from models.prompts import CompletionDelta, Prompt
from models.speech import SpeechChunk, Transcript, Utterance


@dataclass(frozen=True, slots=True)
class LimitedRecognizer:
    """A Recognizer that refuses what is over its limit, partial transcripts first."""

    recognizer: Recognizer
    intake: Intake

    async def transcribe(self, utterance: Utterance) -> Transcript:
        """Return the transcript; raise the intake's refusal, or what the recognizer raises."""
        with self.intake.call(background=not utterance.is_final):
            return await self.recognizer.transcribe(utterance)


@dataclass(frozen=True, slots=True)
class LimitedCompleter:
    """A Completer that refuses what is over its limit, which learns from the first words."""

    completer: Completer
    intake: Intake

    async def complete(self, prompt: Prompt) -> AsyncGenerator[CompletionDelta, None]:
        """Yield the answer; raise the intake's refusal, or what the completer raises."""
        with self.intake.call() as first_word:
            async with aclosing(self.completer.complete(prompt)) as deltas:
                async for delta in deltas:
                    if delta.text:
                        first_word()
                    yield delta


@dataclass(frozen=True, slots=True)
class LimitedSynthesizer:
    """A Synthesizer that refuses what is over its limit, which learns from the first sounds."""

    synthesizer: Synthesizer
    intake: Intake

    async def speak(self, text: str, language: str = "") -> AsyncGenerator[SpeechChunk, None]:
        """Yield the speech; raise the intake's refusal, or what the synthesizer raises."""
        with self.intake.call() as first_sound:
            async with aclosing(self.synthesizer.speak(text, language)) as speech:
                async for chunk in speech:
                    first_sound()
                    yield chunk
