from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.brain.conversation import SYSTEM_PROMPTS, Conversation, Limits, SpokenSentence, heard, joined
from models.prompts import Prompt


def roles(prompt: Prompt) -> list[str]:
    return [message.role for message in prompt.messages]


def test_first_prompt_holds_system_and_question() -> None:
    prompt = Conversation("d").prompt("t", "你好", language="zh", budget_ms=1234)
    assert roles(prompt) == ["system", "user"]
    assert (prompt.question, prompt.language, prompt.budget_ms, prompt.device_id) == ("你好", "zh", 1234, "d")
    assert prompt.messages[0].text == SYSTEM_PROMPTS["zh"]


@pytest.mark.parametrize(("language", "expected"), [("en", "en"), ("zh", "zh"), ("", "zh"), ("fr", "zh")])
def test_language_of_the_turn_chooses_the_system_prompt(language: str, expected: str) -> None:
    assert Conversation("d").prompt("t", "?", language=language).messages[0].text == SYSTEM_PROMPTS[expected]


def test_remembered_turn_stands_before_the_question() -> None:
    conversation = Conversation("d")
    conversation.remember("一", "二")
    assert [m.text for m in conversation.prompt("t", "三").messages[1:]] == ["一", "二", "三"]


def test_question_nobody_answered_joins_the_next() -> None:
    conversation = Conversation("d")
    conversation.remember("明天天气", "")
    prompt = conversation.prompt("t", "在北京")
    assert roles(prompt) == ["system", "user"]
    assert prompt.question == "明天天气\n在北京"
    assert conversation.prompt("t", "在北京") == prompt
    conversation.remember("在北京", "晴")
    assert roles(conversation.prompt("t", "?")) == ["system", "user", "assistant", "user"]


@given(st.lists(st.tuples(st.text(max_size=60), st.text(max_size=60)), max_size=30))
def test_history_stays_bounded_and_alternates(turns: list[tuple[str, str]]) -> None:
    limits = Limits(max_messages=6, max_characters=100, max_question_characters=50)
    conversation = Conversation("d", limits=limits)
    for question, answer in turns:
        conversation.remember(question, answer)
    messages = conversation.prompt("t", "q").messages[1:]
    assert len(messages) <= 7
    assert sum(len(m.text) for m in messages[:-1]) <= 100
    assert [m.role for m in messages] == ["user", "assistant"] * (len(messages) // 2) + ["user"]


def test_overlong_question_is_cut() -> None:
    assert len(Conversation("d").prompt("t", "啊" * 10_000).question) == 1_000


SPOKEN = [SpokenSentence(text="一二三四", duration_ms=1000), SpokenSentence(text="五六七八", duration_ms=2000)]


@pytest.mark.parametrize(
    ("played_ms", "expected"),
    [
        (0, ""),
        (500, "一二"),
        (1000, "一二三四"),
        (2000, "一二三四五六"),
        (3000, "一二三四五六七八"),
        (99_999, "一二三四五六七八"),
    ],
)
def test_heard_is_what_was_played(played_ms: int, expected: str) -> None:
    assert heard(SPOKEN, played_ms) == expected


def test_english_sentences_are_joined_with_spaces_and_chinese_without() -> None:
    assert joined(["Hi.", "It is 3.", "你好。", "再见。", "Bye."]) == "Hi. It is 3.你好。再见。Bye."
