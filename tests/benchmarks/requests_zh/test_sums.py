from __future__ import annotations

import random
import re

import pytest

from benchmarks.requests_zh.grading import is_right
from benchmarks.requests_zh.numerals import numbers_in, value_of
from benchmarks.requests_zh.request import Request
from benchmarks.requests_zh.speech import said
from benchmarks.requests_zh.sums import SUMS
from coordinator.routing.signals import Kind

PLAIN = (
    "add-small",
    "add-tens",
    "add-hundreds",
    "add-three",
    "subtract-small",
    "subtract-tens",
    "subtract-hundreds",
    "round-sum",
    "times-ten",
    "multiplication-table",
    "multiply-tens",
    "multiply-both",
    "divide",
    "plus-minus",
    "times-plus",
    "decimals",
)
"""Groups whose words are a formula read from left to right with products first."""
SIGNS = {"再加": "+", "加": "+", "减去": "-", "减": "-", "乘以": "*", "乘": "*", "除以": "/"}
NUMERAL = "[零一二两三四五六七八九十百千万点]+"


def formula(text: str) -> float:
    """Compute the sum in the words of a question, by another road than the generator's."""
    match = re.search(rf"{NUMERAL}(?:(?:{'|'.join(SIGNS)}){NUMERAL})+", text)
    assert match, text
    pieces = re.split(f"({'|'.join(SIGNS)})", match[0])
    return float(eval("".join(SIGNS.get(piece) or str(value_of(piece)) for piece in pieces)))


@pytest.mark.parametrize("group", PLAIN)
def test_the_gold_is_what_the_words_say(group: str) -> None:
    maker, _ = SUMS[group]
    for seed in range(60):
        draft = maker(random.Random(seed))
        assert draft.gold == pytest.approx(formula(draft.text)), draft.text


@pytest.mark.parametrize("group", SUMS)
def test_the_gold_said_aloud_is_right_and_another_number_wrong(group: str) -> None:
    maker, _ = SUMS[group]
    for seed in range(30):
        draft = maker(random.Random(seed))
        if draft.grader != "number":
            continue
        assert isinstance(draft.gold, float | int)
        request = Request(
            id="r", kind=Kind.ARITHMETIC, group=group, text=draft.text, gold=float(draft.gold), grader="number"
        )
        assert is_right(request, f"答案是{said(draft.gold)}。"), draft
        assert is_right(request, f"等于{draft.gold:g}"), draft
        assert not is_right(request, f"等于{draft.gold + 7:g}"), draft


@pytest.mark.parametrize(
    ("group", "rule"),
    [
        ("remainder", lambda n: n[0] % n[1]),
        ("bracket", lambda n: (n[0] + n[1]) * n[2]),
        ("product-first", lambda n: n[0] + n[1] * n[2]),
        ("square", lambda n: n[0] ** 2),
        ("root", lambda n: n[0] ** 0.5),
        ("percent", lambda n: n[0] * n[1] / 100),
        ("fraction", lambda n: n[0] * n[1]),
        ("average", lambda n: sum(n[-3:]) / 3),
    ],
)
def test_the_gold_follows_from_the_numbers_said(group: str, rule: object) -> None:
    maker, _ = SUMS[group]
    for seed in range(40):
        draft = maker(random.Random(seed))
        values = [found.value for found in numbers_in(draft.text.replace("三次考试", ""))]
        assert callable(rule)
        assert draft.gold == pytest.approx(rule(values)), draft.text
