from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.meaning_zh import NEAR_MISSES, PARAPHRASES, load_pairs
from coordinator.cache.meaning import Reason, meaning_of, same_meaning

QUESTIONS = st.text(
    alphabet="猫狗怕水吃为什么怎么如何是谁的了吗呢不没有多少几哪里最大小高第一二三十百半点和比请问帮我介绍一下意思 12.5%+-ab'",
    max_size=40,
)


@pytest.mark.parametrize(
    ("one", "other", "reason"),
    [
        ("三加五等于几", "三加六等于几", "number"),
        ("一斤是多少克", "一公斤是多少克", "unit"),
        ("100元能换多少", "100块能换多少", "unit"),
        ("哪些鸟会飞", "哪些鸟不会飞", "negation"),
        ("can birds swim", "can birds not swim", "negation"),
        ("红烧肉怎么做", "红烧肉是什么", "asked"),
        ("跑步有什么好处", "跑步有什么坏处", "opposite"),
        ("猫怕老鼠吗", "老鼠怕猫吗", "order"),
        ("一吨铁比一吨棉花大吗", "一吨棉花比一吨铁大吗", "order"),
        ("猫为什么怕水", "狗为什么怕水", "words"),
        ("什么是黑洞", "what is black hole", "language"),
        ("什么是黑洞", "", "empty"),
        ("", "", "empty"),
    ],
)
def test_a_difference_that_matters_refuses_with_its_reason(one: str, other: str, reason: Reason) -> None:
    verdict = same_meaning(one, other)
    assert (verdict.is_same, verdict.reason) == (False, reason)


def test_a_question_longer_than_is_remembered_means_nothing_to_us() -> None:
    assert meaning_of("猫" * 201) == ""
    assert not same_meaning("猫" * 201, "猫" * 201).is_same


def test_numbers_of_a_list_do_not_run_together() -> None:
    assert not same_meaning("四十一、十一哪个大", "四十、一十一哪个大").is_same


@given(QUESTIONS | st.text(max_size=60))
def test_any_question_means_what_itself_means(text: str) -> None:
    assert same_meaning(text, text).is_same == bool(meaning_of(text))


@given(QUESTIONS | st.text(max_size=60), QUESTIONS | st.text(max_size=60))
def test_what_one_means_to_the_other_it_means_back(one: str, other: str) -> None:
    assert same_meaning(one, other).is_same == same_meaning(other, one).is_same


@pytest.mark.parametrize("pair", load_pairs(NEAR_MISSES), ids=lambda pair: f"{pair.a}|{pair.b}")
def test_a_near_miss_is_never_found(pair) -> None:
    assert not same_meaning(pair.a, pair.b).is_same


@pytest.mark.parametrize(("split", "least"), [("held-out", 0.55), ("tuning", 0.75)])
def test_most_paraphrases_are_found(split: str, least: float) -> None:
    pairs = [pair for pair in load_pairs(PARAPHRASES) if pair.split == split]
    assert sum(same_meaning(pair.a, pair.b).is_same for pair in pairs) / len(pairs) >= least
