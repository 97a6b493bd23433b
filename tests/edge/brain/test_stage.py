from __future__ import annotations

import asyncio

import pytest

from edge.brain.stage import stage
from models.errors import CompletionError, DeadlineError, DeviceTooSlowError, SynthesisError, VoiceError
from tests.virtual_time import run


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (ValueError("text"), CompletionError),
        (TimeoutError(), CompletionError),
        (DeadlineError("late"), DeadlineError),
        (SynthesisError("inner"), SynthesisError),
        (DeviceTooSlowError("slow"), DeviceTooSlowError),
    ],
)
def test_error_leaves_as_one_of_ours_and_keeps_its_blame(raised: Exception, expected: type[VoiceError]) -> None:
    with pytest.raises(VoiceError) as caught, stage("llm", CompletionError):
        raise raised
    assert type(caught.value) is expected
    assert caught.value is raised or caught.value.__cause__ is raised


def test_foreign_text_stays_out_of_the_message() -> None:
    with pytest.raises(CompletionError, match=r"^llm: ValueError$"), stage("llm", CompletionError):
        raise ValueError("what the user said")


def test_cancelling_passes() -> None:
    async def scene() -> None:
        async def work() -> None:
            with stage("llm", CompletionError):
                await asyncio.sleep(10)

        task = asyncio.create_task(work())
        await asyncio.sleep(1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(scene())


def test_engine_that_cancels_itself_is_a_failure() -> None:
    async def scene() -> None:
        with pytest.raises(CompletionError, match="by itself"), stage("llm", CompletionError):
            raise asyncio.CancelledError

    run(scene())
