from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.routing.complexity import THRESHOLD, complexity, keywords, units
from models.prompts import Message, Prompt


def prompt(question: str, *, earlier: int = 0) -> Prompt:
    history = tuple(Message(role=role, text="x") for _ in range(earlier) for role in ("user", "assistant"))
    return Prompt(turn_id="t", messages=(*history, Message(role="user", text=question)))


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("", 0),
        ("你好", 2),
        ("hello there", 2),
        ("它的价格是3.14元", 7),
        ("don't stop", 2),
        ("。，！", 0),
        ("GPT-4 怎么样", 4),
    ],
)
def test_units_count_characters_and_words(text: str, count: int) -> None:
    assert units(text) == count


def test_keywords_are_distinct_and_in_both_languages() -> None:
    assert keywords("为什么？为什么！请分析 and explain why, Why?") == {"为什么", "分析", "explain", "why"}


@pytest.mark.parametrize(
    "question", ["你好", "法国的首都是哪里？", "What is the capital of France?", "打开灯", "一加一等于几？"]
)
def test_easy_questions_stay_below_the_threshold(question: str) -> None:
    assert complexity(prompt(question)) < THRESHOLD


@pytest.mark.parametrize(
    "question",
    [
        "请详细分析电动汽车和燃油汽车的优缺点，比较它们的区别，并解释为什么",
        "Please compare solar and wind power in detail, explain the advantages and disadvantages, and summarize step by step",
    ],
)
def test_hard_questions_reach_the_threshold(question: str) -> None:
    assert complexity(prompt(question)) >= THRESHOLD


def test_a_reference_into_the_dialogue_raises_the_score() -> None:
    assert (
        complexity(prompt("它多高", earlier=2)) > complexity(prompt("塔多高", earlier=2)) > complexity(prompt("塔多高"))
    )


def test_a_prompt_without_a_user_message_scores_zero() -> None:
    assert complexity(Prompt(turn_id="t", messages=())) == 0.0


@given(st.text(max_size=2000), st.integers(0, 50))
def test_the_score_stays_in_its_range(question: str, earlier: int) -> None:
    assert 0.0 <= complexity(prompt(question, earlier=earlier)) <= 1.0
