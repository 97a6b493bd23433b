"""Run a coroutine that talks to real sockets or threads; fail on a leaked task."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def _checked(work: Coroutine[Any, Any, T], timeout_s: float) -> T:
    async with asyncio.timeout(timeout_s):
        result = await work
    leaked = asyncio.all_tasks() - {asyncio.current_task()}
    assert not leaked, f"tasks left running: {sorted(task.get_name() for task in leaked)}"
    return result


def run(work: Coroutine[Any, Any, T], timeout_s: float = 30.0) -> T:
    """Return what ``work`` returns; fail when it takes longer than ``timeout_s`` or leaves a task behind."""
    with asyncio.Runner(debug=True) as runner:
        return runner.run(_checked(work, timeout_s))
