"""The end of a task, waited for."""

from __future__ import annotations

import asyncio
from typing import Any


async def stopped(task: asyncio.Task[Any]) -> None:
    """Cancel ``task`` and return once it is done, whatever it raised; being cancelled meanwhile is raised only then."""
    task.cancel()
    interrupted: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as again:
            interrupted = again
    if not task.cancelled():
        task.exception()
    if interrupted is not None:
        raise interrupted
