from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from edge.brain.asides import Aside
from models.errors import OverloadedError
from tests.virtual_time import run


class Session:
    """Does what is noted at once, and keeps what came of it."""

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self.noted: list[Callable[[], Awaitable[None]]] = []
        self.failures: list[tuple[str, str]] = []
        self.answers: list[str] = []
        self.ended = 0
        self.aside = Aside("asr", group, self.noted.append, lambda name, code: self.failures.append((name, code)))

    async def question(self) -> str:
        try:
            await asyncio.sleep(1)
            return "yes"
        finally:
            self.ended += 1

    async def answered(self, answer: str) -> None:
        self.answers.append(answer)


def test_answer_is_noted_and_not_acted_on() -> None:
    async def scene() -> None:
        async with asyncio.TaskGroup() as group:
            session = Session(group)
            session.aside.ask(session.question, session.answered)
            assert session.aside.is_asking
            await asyncio.sleep(2)
            assert (session.answers, len(session.noted), session.aside.is_asking) == ([], 1, False)
            await session.noted[0]()
            assert session.answers == ["yes"]

    run(scene())


@pytest.mark.parametrize("error", [OverloadedError("full"), ValueError("bug"), asyncio.CancelledError()])
def test_failure_is_told_and_harmless(error: BaseException) -> None:
    async def scene() -> None:
        async def fail() -> str:
            raise error

        async with asyncio.TaskGroup() as group:
            session = Session(group)
            session.aside.ask(fail, session.answered)
            await asyncio.sleep(1)
            code = "llm-overloaded" if isinstance(error, OverloadedError) else "stage"
            assert (session.noted, session.failures) == ([], [("asr", code)])

    run(scene())


def test_cancel_does_not_wait_and_drop_does() -> None:
    async def scene() -> None:
        async with asyncio.TaskGroup() as group:
            session = Session(group)
            session.aside.cancel()
            await session.aside.drop()
            session.aside.ask(session.question, session.answered)
            await asyncio.sleep(0.5)
            session.aside.cancel()
            assert (session.ended, session.aside.is_asking) == (0, True)
            session.aside.ask(session.question, session.answered)
            await asyncio.sleep(0.5)
            assert session.ended == 1
            await session.aside.drop()
            assert (session.ended, session.aside.is_asking, session.noted) == (2, False, [])

    run(scene())
