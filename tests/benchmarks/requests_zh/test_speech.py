from __future__ import annotations

import random

import pytest

from benchmarks.requests_zh.speech import counted, said, spoken


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "零"),
        (2, "二"),
        (12, "十二"),
        (200, "两百"),
        (220, "两百二十"),
        (2050, "两千零五十"),
        (12000, "一万两千"),
        (3.5, "三点五"),
        (7.12, "七点一二"),
        (-3, "负三"),
        (100000, "十万"),
    ],
)
def test_a_number_is_said_as_people_do(number: float, words: str) -> None:
    assert said(number) == words


def test_two_of_a_thing_are_liang() -> None:
    assert (counted(2, "个"), counted(12, "个"), counted(3, "只")) == ("两个", "十二个", "三只")


def test_words_keep_their_order_whatever_is_added_or_lost() -> None:
    for seed in range(200):
        text = spoken("三加五等于几？", random.Random(seed), is_question=True)
        assert "三加五等于几" in text


def test_all_habits_occur() -> None:
    texts = {spoken("小明高，小红矮，谁高？", random.Random(seed), is_question=True) for seed in range(300)}
    assert any("，" not in text and "？" not in text for text in texts)
    assert any(text.endswith("。") for text in texts)
    assert any(text.startswith("嗯，") for text in texts)
    assert any(text.startswith("请问，") for text in texts)


def test_only_questions_are_opened_like_questions() -> None:
    texts = {spoken("你好呀", random.Random(seed)) for seed in range(300)}
    assert not any(text.startswith("请问") for text in texts)


def test_verbatim_words_stay() -> None:
    assert {spoken("说：好的。", random.Random(seed), is_verbatim=True) for seed in range(50)} == {"说：好的。"}
