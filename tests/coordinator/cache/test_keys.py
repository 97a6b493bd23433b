from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.cache.keys import answer_key, is_memorable, normalise
from models.prompts import Image, Message, Prompt


def prompt(question: str, *, system: str = "be brief", language: str = "zh") -> Prompt:
    messages = (Message(role="system", text=system), Message(role="user", text=question))
    return Prompt(turn_id="t", messages=messages, language=language)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("法国的首都是什么？", "法国的首都是什么"),
        ("What is water?", "what is  water"),
        ("ＡＢＣ 是 什么", "abc是什么"),
    ],
)
def test_the_same_words_have_the_same_key(one: str, other: str) -> None:
    assert answer_key(prompt(one), "v") == answer_key(prompt(other), "v") is not None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("圆周率是3.14吗", "圆周率是314吗"),
        ("五加-3等于几", "五加3等于几"),
        ("百分之20%是多少", "百分之20是多少"),
        ("水会结冰吗", "水不会结冰吗"),
        ("a b 是什么", "ab 是什么"),
        ("1:2是多少", "1,2是多少"),
    ],
)
def test_other_numbers_signs_or_words_have_another_key(one: str, other: str) -> None:
    assert answer_key(prompt(one), "v") != answer_key(prompt(other), "v")


@pytest.mark.parametrize(
    "question",
    [
        "现在几点了", "今天天气怎么样", "附近有什么吃的", "我叫什么名字", "把灯打开", "它有多高", "再讲一个", "音量调大一点", "讲个笑话", "嗯", "", "x" * 201,
        "What time is it?", "What's the weather like tomorrow?", "What is my name?", "Turn on the lights", "How tall is it?", "Tell me another",
        "現在幾點鐘 now",
    ],
)  # fmt: skip
def test_what_depends_on_more_than_words_is_never_remembered(question: str) -> None:
    assert not is_memorable(prompt(question))
    assert answer_key(prompt(question), "v") is None


@pytest.mark.parametrize(
    "question", ["法国的首都是什么？", "水的沸点是多少度？", "What is the capital of France?", "为什么天空是蓝色的？"]
)
def test_plain_facts_are_memorable(question: str) -> None:
    assert is_memorable(prompt(question))


@pytest.mark.parametrize(
    "changes", [{"is_private": True}, {"images": (Image(media_type="image/png", data=b"png"),)}], ids=str
)
def test_what_is_private_or_about_a_picture_is_never_remembered(changes: dict[str, Any]) -> None:
    question = Prompt(turn_id="t", messages=(Message(role="user", text="法国的首都是哪个城市？"),))
    assert answer_key(question, "v") is not None
    assert answer_key(msgspec.structs.replace(question, **changes), "v") is None


def test_version_persona_and_language_are_part_of_the_key() -> None:
    question = "水的沸点是多少度"
    keys = {
        answer_key(prompt(question), "v1"),
        answer_key(prompt(question), "v2"),
        answer_key(prompt(question, system="be long"), "v1"),
        answer_key(prompt(question, language="en"), "v1"),
    }
    assert len(keys) == 4


@given(st.text(max_size=300))
def test_normalising_twice_changes_nothing_more(text: str) -> None:
    assert isinstance(normalise(text), str)
    assert answer_key(prompt(text), "v") == answer_key(prompt(text), "v")


SAID_BEFORE = (Message(role="user", text="我叫王芳，猫怕水吗"), Message(role="assistant", text="王芳，猫大多怕水。"))


@pytest.mark.parametrize("question", ["上海呢", "为什么呢", "换成英文怎么说", "法国的首都是哪个城市"])
@pytest.mark.parametrize("before", [SAID_BEFORE, SAID_BEFORE[:1], SAID_BEFORE[1:]])
def test_what_was_asked_in_the_course_of_a_dialogue_is_nobody_elses(question: str, before: tuple[Message, ...]) -> None:
    system = Message(role="system", text="你是小智")
    asked = Message(role="user", text=question)
    assert is_memorable(Prompt(turn_id="t", messages=(system, asked)))
    assert not is_memorable(Prompt(turn_id="t", messages=(system, *before, asked)))
