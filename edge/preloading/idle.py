"""Time in which nobody waits for an engine: work that may be left and taken up again uses it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from models.stopping import stopped

LOOK_S = 0.1
"""How often it is looked whether somebody came: what the one who came may lose to work that has no hurry. A guess."""

CALM_LOOK_S = 0.5
"""How often it is looked whether it is calm. A guess."""

T = TypeVar("T")


class IdleTime:
    """Says when an edge has nothing to do."""

    def __init__(
        self, *, is_busy: Callable[[], bool], is_wanted: Callable[[], bool] | None = None, calm_s: float = 5.0
    ) -> None:
        """``is_busy`` tells whether anything is under way for anybody, ``is_wanted`` whether somebody asks while the work is done.

        They differ by what the work itself keeps busy. ``calm_s`` is how long nothing must have been under way.
        """
        self._is_busy = is_busy
        self._is_wanted = is_wanted or is_busy
        self._calm_s = calm_s

    async def come(self) -> None:
        """Return once nobody was busy for ``calm_s``."""
        loop = asyncio.get_running_loop()
        calm_since_s = loop.time()
        while loop.time() - calm_since_s < self._calm_s:
            await asyncio.sleep(min(CALM_LOOK_S, self._calm_s))
            if self._is_busy():
                calm_since_s = loop.time()

    async def use(self, work: Coroutine[Any, Any, T]) -> T | None:
        """Do the work and return what it returns; or stop it when somebody comes, and return None. Raises what the work raises."""
        task = asyncio.create_task(work, name="idle-work")
        try:
            while not task.done():
                if self._is_wanted():
                    return None
                await asyncio.wait([task], timeout=LOOK_S)
            return task.result()
        finally:
            if not task.done():
                await stopped(task)
