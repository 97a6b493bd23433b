"""What was said in one session, to the prompt of the next turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from models.prompts import Message, Prompt

SYSTEM_PROMPTS: Mapping[str, str] = {
    "zh": "你是小智，一个友好的语音助手。用口语简短回答，最多两句话，不要使用列表、符号或表情。",
    "en": (
        "You are Xiaozhi, a friendly voice assistant. Answer briefly in spoken language, in at most two sentences, "
        "without lists, symbols or emoji."
    ),
}
"""Who the model is, by language; constant, so that engines can keep its tokens."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """How much of a dialogue a prompt holds."""

    max_messages: int = 16
    """Messages before the question; eight exchanges."""
    max_characters: int = 4_000
    """Characters before the question; with ours about 2,700 tokens of Chinese, a guess that fits a context of 4,096."""
    max_question_characters: int = 1_000
    """Longest question; 30 s of fast speech hold about 250 Chinese characters."""
    max_tokens: int = 256


class SpokenSentence(msgspec.Struct, frozen=True, kw_only=True):
    """A sentence on its way to the loudspeaker."""

    text: str
    duration_ms: int


class Conversation:
    """The dialogue of one session, bounded; a turn is added when it is over."""

    def __init__(
        self,
        device_id: str,
        *,
        language: str = "zh",
        is_private: bool = False,
        system_prompts: Mapping[str, str] = SYSTEM_PROMPTS,
        limits: Limits | None = None,
    ) -> None:
        self._device_id = device_id
        self._language = language
        self._is_private = is_private
        self._system_prompts = system_prompts
        self._limits = limits or Limits()
        self._past: deque[Message] = deque()

    def prompt(self, turn_id: str, question: str, *, language: str = "", budget_ms: int = 30_000) -> Prompt:
        """Return what to ask now; changes nothing."""
        language = language or self._language
        messages = [*self._past]
        question = question[: self._limits.max_question_characters]
        if messages and messages[-1].role == "user":
            question = f"{messages.pop().text}\n{question}"
        system = self._system_prompts.get(language) or self._system_prompts.get(self._language, "")
        opening = [Message(role="system", text=system)] if system else []
        return Prompt(
            turn_id=turn_id,
            messages=(*opening, *messages, Message(role="user", text=question)),
            device_id=self._device_id,
            language=language,
            is_private=self._is_private,
            max_tokens=self._limits.max_tokens,
            budget_ms=budget_ms,
        )

    def remember(self, question: str, answer: str) -> None:
        """Add a turn that is over with as much of the answer as was heard; a question without one joins the next."""
        self._add("user", question[: self._limits.max_question_characters])
        self._add("assistant", answer)
        while len(self._past) > self._limits.max_messages or self._characters() > self._limits.max_characters:
            self._past.popleft()
        while self._past and self._past[0].role == "assistant":
            self._past.popleft()

    def _add(self, role: Literal["user", "assistant"], text: str) -> None:
        if not text:
            return
        if self._past and self._past[-1].role == role:
            text = f"{self._past.pop().text}\n{text}"
        self._past.append(Message(role=role, text=text))

    def _characters(self) -> int:
        return sum(len(message.text) for message in self._past)


def heard(spoken: Sequence[SpokenSentence], played_ms: float) -> str:
    """Return the words played within ``played_ms``; of a sentence cut short, the share of its characters that was."""
    words: list[str] = []
    for sentence in spoken:
        if played_ms <= 0:
            break
        share = min(1.0, played_ms / sentence.duration_ms) if sentence.duration_ms > 0 else 1.0
        words.append(sentence.text[: int(len(sentence.text) * share)])
        played_ms -= sentence.duration_ms
    return joined(words)


def joined(sentences: Sequence[str]) -> str:
    """Return the sentences as one text, with spaces only where letters without one would touch."""
    text = ""
    for sentence in sentences:
        is_tight = not text or not sentence or not (text[-1].isascii() and sentence[0].isascii())
        text += sentence if is_tight else f" {sentence}"
    return text
