"""Blame: whatever leaves the block is an error of ours, named after the stage it happened in."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from contextlib import contextmanager

from models.errors import StageError, VoiceError


@contextmanager
def stage(name: str, error: type[StageError]) -> Generator[None, None, None]:
    """Let our own errors pass and raise ``error`` from anything else; an inner stage keeps its own blame."""
    try:
        yield
    except VoiceError:
        raise
    except asyncio.CancelledError as cause:
        if is_cancelled():
            raise
        raise error(f"{name}: cancelled by itself") from cause
    except Exception as cause:
        raise error(f"{name}: {type(cause).__name__}") from cause


def is_cancelled() -> bool:
    """Return whether somebody cancelled the current task; an engine that is shut down raises CancelledError all by itself."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
