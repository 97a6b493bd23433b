"""Questions a session asks in passing while somebody speaks: never waited for, and no harm when they fail."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

from edge.brain.inbox import Errand
from edge.brain.stage import stage
from models.errors import StageError, VoiceError
from models.stopping import stopped

T = TypeVar("T")


class Aside:
    """One question at a time; its task belongs to the session's ``group``, its answer goes to ``note``, its failure to ``failed``."""

    def __init__(
        self,
        name: str,
        group: asyncio.TaskGroup,
        note: Callable[[Errand], None],
        failed: Callable[[str, str], None] = lambda _name, _code: None,
    ) -> None:
        self._name = name
        self._group = group
        self._note = note
        self._failed = failed
        self._task: asyncio.Task[None] | None = None

    @property
    def is_asking(self) -> bool:
        """Whether a question is out, or one that was dropped still winds up."""
        return self._task is not None and not self._task.done()

    def ask(self, question: Callable[[], Awaitable[T]], answered: Callable[[T], Awaitable[None]]) -> None:
        """Ask; ``answered`` is noted with the answer, and has to see for itself whether anybody still wants to know."""
        self.cancel()
        self._task = self._group.create_task(self._attempt(question, answered), name=f"aside-{self._name}")

    def cancel(self) -> None:
        """Drop the question without waiting for its end, because what follows is in a hurry."""
        if self._task is not None:
            self._task.cancel()

    async def drop(self) -> None:
        """Drop the question; nothing of it runs any more when this returns."""
        task, self._task = self._task, None
        if task is not None:
            await stopped(task)

    async def _attempt(self, question: Callable[[], Awaitable[T]], answered: Callable[[T], Awaitable[None]]) -> None:
        try:
            with stage(self._name, StageError):
                answer = await question()
        except VoiceError as error:
            self._failed(self._name, error.code)
        else:
            self._note(partial(answered, answer))
