from __future__ import annotations

from contextlib import aclosing

import pytest
from msgspec.structs import replace

from models.errors import CompletionError
from models.prompts import Image, Message, Prompt
from models.scripted import ScriptedCompleter
from models.sightless import Sightless
from tests.virtual_time import run

PROMPT = Prompt(turn_id="t", messages=(Message(role="user", text="问"),))
SHOWN = replace(PROMPT, images=(Image(media_type="image/jpeg", data=b"\xff\xd8\xff"),))


async def answer(completer: ScriptedCompleter, prompt: Prompt) -> str:
    async with aclosing(Sightless(completer).complete(prompt)) as deltas:
        return "".join([delta.text async for delta in deltas])


def test_text_is_answered() -> None:
    assert run(answer(ScriptedCompleter({"问": "答"}), PROMPT)) == "答"


def test_picture_is_refused_without_asking_the_model() -> None:
    completer = ScriptedCompleter()
    with pytest.raises(CompletionError, match="cannot see"):
        run(answer(completer, SHOWN))
    assert not completer.prompts


def test_closing_closes_the_model() -> None:
    async def work() -> int:
        completer = ScriptedCompleter({"问": "一二三"})
        async with aclosing(Sightless(completer).complete(PROMPT)) as deltas:
            await anext(deltas)
        return completer.calls.running

    assert run(work()) == 0
