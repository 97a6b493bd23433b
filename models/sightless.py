"""A language model without eyes: refuses a question about a picture instead of making up what it shows."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass

from models.engines import Completer
from models.errors import CompletionError
from models.prompts import CompletionDelta, Prompt


@dataclass(frozen=True, slots=True)
class Sightless:
    """A Completer over one whose model reads text only."""

    completer: Completer

    async def complete(self, prompt: Prompt) -> AsyncGenerator[CompletionDelta, None]:
        """Yield the answer; raise CompletionError for a prompt with pictures, and what the completer raises."""
        if prompt.images:
            raise CompletionError("this model cannot see pictures")
        async with aclosing(self.completer.complete(prompt)) as deltas:
            async for delta in deltas:
                yield delta
