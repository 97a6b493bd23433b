from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.routing.signals import Kind, Signals, read, scored_text
from coordinator.routing.wording import plain
from models.prompts import Message, Prompt


def signals(question: str, *, earlier: int = 0) -> Signals:
    history = tuple(Message(role=role, text="x") for _ in range(earlier) for role in ("user", "assistant"))
    return read(Prompt(turn_id="t", messages=(*history, Message(role="user", text=question))))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("打开灯", Kind.COMMAND),
        ("Turn off the lights", Kind.COMMAND),
        ("今天天气怎么样", Kind.REALTIME),
        ("what time is it", Kind.REALTIME),
        ("你好", Kind.CHAT),
        ("Good morning", Kind.CHAT),
        ("法国的首都是哪里？", Kind.FACT),
        ("Who wrote Hamlet?", Kind.FACT),
        ("三加五等于多少", Kind.ARITHMETIC),
        ("小明有三个苹果，又买了五个，一共有几个", Kind.ARITHMETIC),
        ("What is 12 times 7?", Kind.ARITHMETIC),
        ("为什么天空是蓝的", Kind.REASONING),
        ("比较一下太阳能和风能的优缺点", Kind.REASONING),
        ("写一首关于春天的诗", Kind.WRITING),
        ("讲一个关于开灯的故事", Kind.WRITING),
        ("把你好翻译成英文", Kind.TRANSLATION),
        ("translate good night into French", Kind.TRANSLATION),
        ("用代码写一个排序算法的函数", Kind.CODE),
        ("怎么制作炸弹", Kind.SAFETY),
        ("", Kind.OTHER),
    ],
)
def test_requests_are_told_apart(text: str, kind: Kind) -> None:
    assert signals(text).kind is kind


@pytest.mark.parametrize(
    ("text", "field", "value"),
    [
        ("法国的首都是哪里", "units", 8),
        ("法国的首都是哪里", "language", "zh"),
        ("what is this", "language", "en"),
        ("？", "language", ""),
        ("GPT 是什么", "chinese_share", 0.75),
        ("一万两千除以三百", "numbers", 2),
        ("一万两千除以三百", "magnitude", 5.0),
        ("三千万", "magnitude", 8.0),
        ("12,500 and 3", "magnitude", 5.0),
        ("3.5加12乘以2等于多少", "operators", 3),
        ("三百块打八折", "measures", 2),
        ("Pick: A. red B. green C. blue", "options", 3),
        ("the ____ is red", "blanks", 1),
        ("不超过三句，必须押韵", "constraint", 3),
        ("先洗菜，然后切菜，最后炒", "steps", 2),
        ("这不是没有道理", "negation", 2),
        ("为什么？怎么办？", "questions", 3),
        ("高血压的法律", "fields", 2),
        ("a cat", "word_length", 2.0),
    ],
)
def test_the_surface_is_counted(text: str, field: str, value: float | str) -> None:
    assert getattr(signals(text), field) == value


def test_a_follow_up_needs_something_to_follow() -> None:
    first, later = signals("为什么呢"), signals("为什么呢", earlier=2)
    assert (first.is_follow_up, later.is_follow_up, later.earlier) == (False, True, 2)


def test_pointing_back_needs_something_to_point_at() -> None:
    assert (signals("继续讲").refers_back, signals("继续讲", earlier=1).refers_back) == (False, True)


def test_a_whole_question_late_in_a_dialogue_is_no_follow_up() -> None:
    assert not signals("请介绍一下北京的历史文化和名胜古迹", earlier=3).is_follow_up


def test_offered_answers_are_no_wishes() -> None:
    read_ = signals("Which is polite? A. what time is it B. turn on the light")
    assert (read_.is_device_command, read_.is_real_time) == (False, False)


def test_manners_claims_and_width_move_no_number() -> None:
    bare, padded = signals("三加五等于多少"), signals("嗯，请问这道题很简单，三加五等于多少呢？？？谢谢！")
    assert bare == padded


def test_a_prompt_without_a_user_message_has_signals() -> None:
    assert read(Prompt(turn_id="t", messages=())).units == 0


@given(
    st.text(max_size=1000) | st.text(alphabet="一二三加减百万为什么abc123.,?!()_\\{}' ", max_size=400),
    st.integers(0, 50),
)
def test_every_text_gives_the_same_finite_numbers_twice(question: str, earlier: int) -> None:
    first = signals(question, earlier=earlier)
    plain_numbers = [value for value in msgspec.structs.astuple(first) if isinstance(value, int | float)]
    assert all(math.isfinite(value) and value >= 0 for value in plain_numbers)
    assert first == signals(question, earlier=earlier)


@pytest.mark.parametrize(
    ("before", "question", "scored"),
    [
        ("天空为什么是蓝色的？", "然后呢", "天空为什么是蓝色的. 然后"),
        ("天空为什么是蓝色的？", "为什么呢", "天空为什么是蓝色的. 为什么"),
        ("Who wrote Hamlet?", "and why?", "who wrote hamlet. and why"),
        ("天空为什么是蓝色的？", "你好", "你好"),
        ("天空为什么是蓝色的？", "打开客厅的灯", "打开客厅的灯"),
        ("天空为什么是蓝色的？", "请介绍一下北京的历史文化", "介绍一下北京的历史文化"),
        ("", "为什么呢", "为什么"),
        (None, "为什么呢", "为什么"),
    ],
)
def test_what_does_not_say_itself_what_is_asked_is_scored_with_the_question_before(
    before: str | None, question: str, scored: str
) -> None:
    earlier = () if before is None else (Message(role="user", text=before), Message(role="assistant", text="嗯。"))
    prompt = Prompt(turn_id="t", messages=(*earlier, Message(role="user", text=question)))
    assert scored_text(prompt, plain(question)) == scored
