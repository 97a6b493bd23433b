from __future__ import annotations

import msgspec
import pytest

from models.prompts import CompletionDelta, Message, Prompt, Usage

ASKED = Prompt(
    turn_id="t",
    messages=(Message(role="system", text="答得短。"), Message(role="user", text="几点了？")),
    device_id="d",
    language="zh",
)
NOUNS = [
    Message(role="user", text="你好"),
    ASKED,
    Usage(prompt_tokens=3, completion_tokens=4),
    CompletionDelta(text="好", model="m", usage=Usage(prompt_tokens=1)),
]


@pytest.mark.parametrize("noun", NOUNS, ids=lambda noun: type(noun).__name__)
def test_a_noun_round_trips(noun: msgspec.Struct):
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(noun), type=type(noun)) == noun


@pytest.mark.parametrize("noun", NOUNS, ids=lambda noun: type(noun).__name__)
def test_a_noun_tolerates_an_unknown_field(noun: msgspec.Struct):
    wire = msgspec.msgpack.encode({**msgspec.to_builtins(noun), "from_the_future": 1})
    assert msgspec.msgpack.decode(wire, type=type(noun)) == noun


def test_a_role_nobody_plays_is_refused():
    with pytest.raises(msgspec.ValidationError, match="role"):
        msgspec.msgpack.decode(msgspec.msgpack.encode({"role": "tool", "text": ""}), type=Message)


@pytest.mark.parametrize(
    ("messages", "question"),
    [
        ((), ""),
        ((Message(role="system", text="s"),), ""),
        ((Message(role="user", text="first"), Message(role="user", text="last")), "last"),
        ((Message(role="user", text="asked"), Message(role="assistant", text="told")), "asked"),
    ],
)
def test_the_question_is_the_last_thing_the_user_said(messages: tuple[Message, ...], question: str):
    assert Prompt(turn_id="t", messages=messages).question == question
