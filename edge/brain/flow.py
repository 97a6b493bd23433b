"""Overlap: a generator runs ahead of its reader in a task of its own, by at most so many items."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from typing import Generic, TypeVar

from edge.brain.stage import is_cancelled
from models.stopping import stopped

T = TypeVar("T")


class _Ended(Generic[T]):
    """What follows the last item: the error that ended the source, or None."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error


@asynccontextmanager
async def prefetch(source: AsyncGenerator[T, None], depth: int) -> AsyncGenerator[AsyncGenerator[T, None], None]:
    """Read ``source`` up to ``depth`` items ahead; its error is raised where its item would have been.

    A full line makes the source wait. Leaving the block stops the task and closes the source before it returns.
    """
    line: asyncio.Queue[T | _Ended[T]] = asyncio.Queue(depth)
    pump = asyncio.create_task(_pump(source, line), name="prefetch")
    try:
        async with aclosing(_items(line)) as items:
            yield items
    finally:
        await stopped(pump)
        await source.aclose()


async def _pump(source: AsyncGenerator[T, None], line: asyncio.Queue[T | _Ended[T]]) -> None:
    ended: _Ended[T] = _Ended(None)
    try:
        async with aclosing(source):
            async for item in source:
                await line.put(item)
    except asyncio.CancelledError:
        if is_cancelled():
            raise
        ended = _Ended(RuntimeError("cancelled by itself"))
    except Exception as error:  # noqa: BLE001 - handed on to the reader
        ended = _Ended(error)
    await line.put(ended)


async def _items(line: asyncio.Queue[T | _Ended[T]]) -> AsyncGenerator[T, None]:
    while True:
        item = await line.get()
        if not isinstance(item, _Ended):
            yield item
        elif item.error is not None:
            raise item.error
        else:
            return
