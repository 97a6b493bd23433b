"""One making for all who want the same at once: a stream that belongs to everybody who listens to it.

It outlives any one listener and stops when the last one leaves. Who comes later hears it from the beginning.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Hashable
from contextlib import aclosing
from typing import Generic, TypeVar

from models.errors import VoiceError
from models.stopping import stopped

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class _Flight(Generic[T]):
    """What came so far, for one or more listeners."""

    def __init__(self) -> None:
        self.listeners = 0
        self.task: asyncio.Task[None] | None = None
        self._came: list[T] = []
        self._error: Exception | None = None
        self._is_over = False
        self._news = asyncio.Event()

    async def fly(self, stream: AsyncGenerator[T, None]) -> None:
        """Take everything from ``stream`` until it ends, fails, or this is cancelled."""
        error: Exception | None = RuntimeError("its making was cut off")
        try:
            async with aclosing(stream):
                async for piece in stream:
                    self._came.append(piece)
                    self._tell()
            error = None
        except Exception as failure:  # noqa: BLE001 - handed on to everybody who listens
            error = failure
        finally:
            self.end(error)

    def end(self, error: Exception | None) -> None:
        """Say that nothing more comes, and why; said once."""
        if not self._is_over:
            self._is_over, self._error = True, error
            self._tell()

    async def listen(self) -> AsyncGenerator[T, None]:
        """Yield everything from the beginning; raise what ended it."""
        taken = 0
        while True:
            news = self._news
            while taken < len(self._came):
                taken += 1
                yield self._came[taken - 1]
            if self._is_over:
                break
            if news is self._news:
                await news.wait()
        if isinstance(self._error, VoiceError):
            # One of its own for each listener: a raised exception carries the traceback of whoever caught it.
            raise type(self._error)(str(self._error)) from self._error
        if self._error is not None:
            raise RuntimeError("what was made for several failed") from self._error

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


class Flights(Generic[K, T]):
    """The makings under way, by key."""

    def __init__(self) -> None:
        self._flights: dict[K, _Flight[T]] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def __contains__(self, key: K) -> bool:
        return key in self._flights

    async def join(self, key: K, begin: Callable[[], AsyncGenerator[T, None]]) -> AsyncGenerator[T, None]:
        """Yield what is being made under the key, from its beginning; ``begin`` starts it when nobody has.

        Raises the VoiceError that ended it. Closing ends the making before it returns, unless somebody else listens.
        """
        flight = self._flights.get(key)
        if flight is None:
            flight = self._flights[key] = _Flight()
            flight.task = asyncio.create_task(self._fly(key, flight, begin()), name="flight")
        flight.listeners += 1
        try:
            async with aclosing(flight.listen()) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            flight.listeners -= 1
            if not flight.listeners:
                await self._land(key, flight)

    async def _fly(self, key: K, flight: _Flight[T], stream: AsyncGenerator[T, None]) -> None:
        try:
            await flight.fly(stream)
        finally:
            if self._flights.get(key) is flight:
                del self._flights[key]

    async def close(self, error: VoiceError) -> None:
        """End every making; who listens gets the error."""
        for key, flight in list(self._flights.items()):
            flight.end(error)
            await self._land(key, flight)

    async def _land(self, key: K, flight: _Flight[T]) -> None:
        """End a making that nobody wants any more; returns once it has ended."""
        if self._flights.get(key) is flight:
            del self._flights[key]
        if flight.task is not None:
            await stopped(flight.task)
