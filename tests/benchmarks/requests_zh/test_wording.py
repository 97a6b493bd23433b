from __future__ import annotations

import pytest

from benchmarks.requests_zh.wording import (
    asserted,
    conclusion,
    final,
    is_either_or,
    mentions,
    normal,
    parts,
    without_echo,
)


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Ｈ₂Ｏ", "h2o"),
        ("**巴黎**", "巴黎"),
        ("答案 是 8", "答案是8"),
        ("good  morning", "good  morning"),
        ("  是，的 ", "是,的"),
        ("\\(3\\)", "(3)"),
    ],
)
def test_an_answer_loses_what_does_not_matter(text: str, plain: str) -> None:
    assert normal(text) == plain


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ("是八。不对,是九。", "是九。"),
        ("是八。", "是八。"),
        ("不对,", "不对,"),
        ("这样说不对", "这样说不对"),
        ("一。说错了,二。更正:三", "三"),
    ],
)
def test_only_what_follows_a_correction_counts(text: str, last: str) -> None:
    assert final(text) == last


@pytest.mark.parametrize(
    ("text", "end"), [("三加五,所以是八", "是八"), ("答案是:八", "八"), ("八", ""), ("因此一,所以二", "二")]
)
def test_the_conclusion_follows_the_last_concluding_word(text: str, end: str) -> None:
    assert conclusion(text) == end


def test_a_claim_is_looked_for_before_the_reasons() -> None:
    assert list(parts("是白菜,因为别的是水果")) == ["", "是白菜,", "是白菜,因为别的是水果"]


def test_latin_words_are_found_whole_only() -> None:
    assert mentions("the cat and concat", ["cat"]) == [(4, 7)]


@pytest.mark.parametrize(
    ("text", "is_claimed"),
    [
        ("是巴黎", True),
        ("不是巴黎", False),
        ("并非“巴黎", False),
        ("不是里昂而是巴黎", True),
        ("不是里昂,是巴黎", True),
        ("不叫巴黎", False),
    ],
)
def test_a_denied_word_is_not_asserted(text: str, is_claimed: bool) -> None:
    assert bool(asserted(text, ["巴黎"])) is is_claimed


@pytest.mark.parametrize(
    ("text", "is_one_of_two"),
    [("巴黎或者里昂", True), ("里昂或巴黎", True), ("要么是巴黎", True), ("巴黎", False), ("巴黎,或者说花都", False)],
)
def test_either_or_is_noticed_on_both_sides(text: str, is_one_of_two: bool) -> None:
    start = text.index("巴黎")
    assert is_either_or(text, start, start + 2) is is_one_of_two


@pytest.mark.parametrize(
    ("text", "question", "kept"),
    [
        ("小明比小红高很多,所以是小明", "小明比小红高很多,谁高", "所以是小明"),
        ("星期三。", "今天星期三", "星期三。"),
        ("今天是晴天呢。", "今天是晴天呢吗", "今天是晴天呢。"),
        ("", "今天", ""),
    ],
)
def test_clauses_of_the_question_are_left_out(text: str, question: str, kept: str) -> None:
    assert without_echo(text, question) == kept
