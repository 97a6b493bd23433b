from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.cache.agreement import agree, likeness


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("水的沸点是100度。", "在标准大气压下，水的沸点是100摄氏度。", True),
        ("水的沸点是100度。", "水的沸点是90度。", False),
        ("法国的首都是巴黎。", "巴黎是法国的首都。", True),
        ("法国的首都是巴黎。", "我不知道你在说什么呀。", False),
        ("它有8条腿，分成4对。", "它有8条腿。", True),
        ("Paris is the capital of France.", "The capital of France is Paris.", True),
        ("", "", True),
        ("", "巴黎", False),
    ],
)
def test_two_answers_agree_when_numbers_and_words_do(one: str, other: str, expected: bool) -> None:
    assert agree(one, other) is expected


@given(st.text(max_size=40), st.text(max_size=40))
def test_likeness_is_the_same_both_ways_and_whole_for_the_same(one: str, other: str) -> None:
    assert likeness(one, other) == pytest.approx(likeness(other, one))
    assert 0.0 <= likeness(one, other) <= 1.0
    assert likeness(one, one) == pytest.approx(1.0)
    assert agree(one, one)
