"""Answers by question: keys above, a ladder below."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from coordinator.cache.keys import answer_key
from coordinator.cache.ladder import Ladder
from models.prompts import Prompt


class Remembered(msgspec.Struct, frozen=True, kw_only=True):
    """An answer given before."""

    text: str
    model: str = ""
    """Model that wrote it."""


_decoder = msgspec.msgpack.Decoder(Remembered)


@dataclass(frozen=True, slots=True)
class AnswerCache:
    """Remembers whole answers to memorable questions."""

    ladder: Ladder
    version: str = ""
    """Names the models in force; another version is another memory."""

    async def get(self, prompt: Prompt) -> Remembered | None:
        """Return the answer to the same question, None when unknown, not memorable, or not readable."""
        key = answer_key(prompt, self.version)
        value = None if key is None else await self.ladder.get(key)
        if value is None:
            return None
        try:
            return _decoder.decode(value)
        except msgspec.MsgspecError:
            return None

    async def put(self, prompt: Prompt, answer: str, model: str) -> None:
        """Remember a whole answer, if its question is memorable and it says anything."""
        key = answer_key(prompt, self.version)
        if key is not None and answer.strip():
            await self.ladder.put(key, msgspec.msgpack.encode(Remembered(text=answer, model=model)))
