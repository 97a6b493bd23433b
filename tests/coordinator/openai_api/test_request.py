from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator import wire
from coordinator.openai_api.refusals import Refusal
from coordinator.openai_api.request import NEUTRAL, Ask, RequestLimits, read_ask

JPEG = b"\xff\xd8\xff\xe0"
LIMITS = RequestLimits(messages=4, text_chars=100, pictures=2, max_tokens=50, default_max_tokens=20)


def url(data: bytes = JPEG, media_type: str = "image/jpeg") -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def shown(data: bytes = JPEG) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url(data), "detail": "low"}}


def user(content: Any = "你好") -> dict[str, Any]:
    return {"role": "user", "content": content}


def read(limits: RequestLimits = LIMITS, **changes: Any) -> Ask | Refusal:
    return read_ask(msgspec.json.encode({"model": "auto", "messages": [user()]} | changes), "api-1", limits)


def asked(**changes: Any) -> Ask:
    ask = read(**changes)
    assert isinstance(ask, Ask), ask
    return ask


def refused(**changes: Any) -> Refusal:
    refusal = read(**changes)
    assert isinstance(refusal, Refusal)
    assert refusal.status == 400
    return refusal


def test_plain_question_is_read() -> None:
    ask = asked()
    assert (ask.model, ask.is_streamed, ask.wants_usage, ask.stops) == ("auto", False, False, ())
    assert [(message.role, message.text) for message in ask.prompt.messages] == [("user", "你好")]
    assert (ask.prompt.turn_id, ask.prompt.max_tokens, ask.prompt.device_id) == ("api-1", 20, "")


def test_dialogue_with_every_role_is_read() -> None:
    messages = [
        {"role": "system", "content": "一"},
        {"role": "developer", "content": "二"},
        {"role": "assistant", "content": [{"type": "text", "text": "三"}], "refusal": None, "tool_calls": None},
        user([{"type": "text", "text": "四"}, {"type": "text", "text": "五"}]) | {"name": "小明"},
    ]
    read_messages = asked(messages=messages).prompt.messages
    assert [(m.role, m.text) for m in read_messages] == [
        ("system", "一"),
        ("system", "二"),
        ("assistant", "三"),
        ("user", "四\n五"),
    ]


def test_pictures_of_the_last_message_are_read() -> None:
    png = b"\x89PNG\r\n\x1a\n"
    parts = [shown(), {"type": "image_url", "image_url": {"url": url(png, "image/png")}}]
    images = asked(messages=[user(parts)]).prompt.images
    assert [(image.media_type, image.data) for image in images] == [("image/jpeg", JPEG), ("image/png", png)]


@pytest.mark.parametrize(
    ("changes", "read"),
    [
        ({"max_tokens": 7}, 7),
        ({"max_completion_tokens": 9}, 9),
        ({"max_tokens": 7, "max_completion_tokens": 9}, 9),
        ({"max_tokens": None}, 20),
    ],
)
def test_longest_answer_is_the_clients(changes: dict[str, Any], read: int) -> None:
    assert asked(**changes).prompt.max_tokens == read


def test_same_name_asks_as_the_same_device_without_telling_the_name() -> None:
    names = [asked(**one).prompt.device_id for one in ({"user": "anna"}, {"prompt_cache_key": "anna"}, {"user": "ben"})]
    assert names[0] == names[1] != names[2]
    assert names[0].startswith("api-")
    assert "anna" not in names[0]


@pytest.mark.parametrize(
    ("changes", "param"),
    [
        ({"model": 1}, "model"),
        ({"messages": "hi"}, "messages"),
        ({"messages": []}, "messages"),
        ({"messages": [user()] * 5}, "messages"),
        ({"messages": [user("长" * 101)]}, "messages"),
        ({"messages": [user(), {"role": "assistant", "content": "好"}]}, "messages"),
        ({"messages": [user("  ")]}, "messages[0].content"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"content": "x"}]}, "messages[0].role"),
        ({"messages": [user() | {"tool_calls": [1]}]}, "messages[0].tool_calls"),
        ({"messages": [user() | {"colour": 1}]}, "messages[0].colour"),
        ({"messages": [user([{"type": "input_audio"}])]}, "messages[0].content[0]"),
        ({"messages": [user([{"type": "text"}])]}, "messages[0].content[0]"),
        ({"messages": [user([shown()]), user()]}, "messages[0].content"),
        ({"messages": [user([shown()] * 3)]}, "messages[0].content"),
        ({"messages": [{"role": "system", "content": [shown()]}, user()]}, "messages[0].content[0]"),
        (
            {"messages": [user([{"type": "image_url", "image_url": {"url": 1}}])]},
            "messages[0].content[0].image_url.url",
        ),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"colour": 1}}, "stream_options.colour"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 51}, "max_tokens"),
        ({"max_completion_tokens": -1}, "max_completion_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": ""}, "stop"),
        ({"stop": "x" * 129}, "stop"),
        ({"top_k": 5}, "top_k"),
        ({"user": 1}, "user"),
    ],
)
def test_wrong_request_is_refused_naming_the_parameter(changes: dict[str, Any], param: str) -> None:
    assert refused(**changes).param == param


def test_picture_elsewhere_is_refused_and_never_fetched() -> None:
    part = {"type": "image_url", "image_url": {"url": "https://example.com/cat.jpg"}}
    refusal = refused(messages=[user([part])])
    assert refusal.param == "messages[0].content[0].image_url.url"
    assert "not fetched" in refusal.message
    assert "example" not in refusal.message


def test_missing_fields_are_named() -> None:
    refusal = read_ask(b'{"model": "auto"}', "api-1", LIMITS)
    assert isinstance(refusal, Refusal)
    assert (refusal.param, refusal.code) == ("messages", "missing_required_parameter")


def test_what_the_bus_cannot_carry_is_refused_here() -> None:
    parts = [shown(JPEG + bytes(wire.MAX_PAYLOAD_BYTES // 2))] * 2
    refusal = refused(messages=[user(parts)])
    assert (refusal.param, refusal.code) == ("messages", "context_length_exceeded")


@pytest.mark.parametrize("name", NEUTRAL)
def test_parameter_that_is_not_honoured_is_taken_only_when_it_asks_for_nothing(name: str) -> None:
    for neutral in (None, *NEUTRAL[name]):
        asked(**{name: neutral})
    for other in (0.7, "high", {"type": "json_object"}, [1], True):
        if other not in NEUTRAL[name]:
            assert (refused(**{name: other}).param, refused(**{name: other}).code) == (name, "unsupported_parameter")


@given(name=st.sampled_from(sorted(NEUTRAL)), value=st.booleans() | st.integers() | st.text() | st.lists(st.booleans()))
def test_refusal_never_repeats_a_value(name: str, value: Any) -> None:
    answer = read(**{name: value})
    if isinstance(answer, Refusal):
        assert answer.param == name
        assert answer.message == refused(**{name: object.__name__}).message
