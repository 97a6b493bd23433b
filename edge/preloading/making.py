"""Answers made before anybody asks: the spine of a turn, with nobody at its end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from coordinator.cache.answers import AnswerCache
from edge.brain.conversation import Conversation, Limits
from edge.brain.pipeline import Pipeline
from edge.brain.spoken_answers import SpokenAnswers
from models.engines import Completer
from models.prompts import Prompt
from models.speech import Transcript

BUDGET_MS = 60_000
"""What one answer may take."""


class Maker:
    """Answers and speaks a prompt for nobody, so that it is remembered. One at a time."""

    def __init__(
        self,
        turns: Pipeline,
        completer: Completer,
        answers: AnswerCache,
        spoken: Callable[..., SpokenAnswers],
        *,
        language: str,
        limits: Limits,
    ) -> None:
        """``turns`` is the way of people's turns; ``completer`` answers in its place, so that what nobody waits for stands back.

        ``spoken`` makes another memory of the same spoken answers, for its own ``kept``.
        """
        self._answers = answers
        self._spoken = spoken(kept=self._note)
        self._pipeline = replace(turns, completer=completer, spoken=self._spoken)
        self._language = language
        self._limits = limits
        self._kept = ""

    def key(self, prompt: Prompt) -> str | None:
        """Return the key of the prompt's answer, None when it is not memorable."""
        return self._answers.key(prompt)

    def spoken_key(self, answer_key: str) -> str:
        """Return the key of the same answer as sound."""
        return self._spoken.key(answer_key)

    def prompt(self, language: str, question: str) -> Prompt:
        """Return the question as a device would ask it first."""
        dialogue = Conversation("", language=self._language, limits=self._limits)
        return dialogue.prompt("preload", question, language=language, budget_ms=BUDGET_MS)

    async def make(self, prompt: Prompt) -> bool:
        """Answer and speak it, and return whether it is remembered now; raise VoiceError."""
        self._kept = ""
        words = Transcript(turn_id=prompt.turn_id, text=prompt.question, language=prompt.language)
        await self._pipeline.reply(words, lambda _transcript: prompt, _to_nobody, lambda _event: None)
        return self._kept == self.key(prompt)

    def _note(self, key: str) -> None:
        self._kept = key


async def _to_nobody(_event: object) -> None:
    """Play nothing."""
