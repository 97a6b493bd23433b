"""Run a coroutine on a loop whose clock jumps to the next timer: half-minute dialogues in microseconds, in one order.

After the idea of trio's MockClock. Only for tests without real sockets or threads in flight: the loop never waits for the outside
world, so a coroutine that does ends as a deadlock here.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class DeadlockError(AssertionError):
    """Nothing is scheduled and nothing can happen any more."""


class _JumpingSelector(selectors.DefaultSelector):
    """Polls real descriptors without waiting and turns the wait into a jump of the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0)
        if ready:
            return ready
        if timeout is None:
            raise DeadlockError("deadlock: every task waits and no timer is set")
        self.now_s += max(timeout, 0.0)
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop on virtual time; ``time()`` starts at 0."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now_s


async def _without_leaks(work: Coroutine[Any, Any, T]) -> T:
    result = await work
    leaked = asyncio.all_tasks() - {asyncio.current_task()}
    assert not leaked, f"tasks left running: {sorted(task.get_name() for task in leaked)}"
    return result


def run(work: Coroutine[Any, Any, T]) -> T:
    """Return what ``work`` returns, on virtual time; fail on a leaked task or a deadlock."""
    with asyncio.Runner(debug=True, loop_factory=VirtualLoop) as runner:
        return runner.run(_without_leaks(work))
