from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import pytest

from benchmarks.requests_zh.numerals import numbers_in
from benchmarks.requests_zh.stories import STORIES

RULES: dict[str, Callable[[Sequence[float]], float]] = {
    "left-over": lambda n: n[0] - n[1] + n[2],
    "discount": lambda n: n[-2] * n[-1] / 10,
    "saved-by-discount": lambda n: n[-2] * (10 - n[-1]) / 10,
    "money-off": lambda n: n[2] - n[1],
    "age-later": lambda n: n[0] + n[1] + n[2],
    "age-times": lambda n: (n[0] - n[2]) / (n[1] - n[2]),
    "travel-time": lambda n: n[0] / n[1],
    "share-equally": lambda n: n[0] / n[1],
    "share-remainder": lambda n: n[0] % n[1],
    "pages": lambda n: n[-3] / n[-2] - n[-1],
    "savings": lambda n: n[0] + n[1] * n[2],
    "trees": lambda n: n[1] / n[2] + 1,
    "stairs": lambda n: n[2] / (n[1] - 1) * (n[4] - 1),
    "area": lambda n: n[-2] * n[-1],
    "ratio": lambda n: n[1] / n[0] * n[2],
    "more-and-fewer": lambda n: n[0] + (n[0] + n[1]) + (n[0] + n[1] - n[2]),
    "backwards": lambda n: (n[3] - n[2]) / n[1],
}
"""How the numbers of a story make its answer, told apart from how they were drawn."""


@pytest.mark.parametrize("group", RULES)
def test_the_gold_follows_from_the_numbers_told(group: str) -> None:
    maker, _ = STORIES[group]
    for seed in range(40):
        draft = maker(random.Random(seed))
        values = [found.value for found in numbers_in(draft.text) if not found.is_weak or group == "backwards"]
        assert draft.gold == pytest.approx(RULES[group](values)), (draft.text, values)


@pytest.mark.parametrize("group", STORIES)
def test_every_story_has_a_sensible_number_to_find(group: str) -> None:
    maker, _ = STORIES[group]
    for seed in range(60):
        draft = maker(random.Random(seed))
        assert draft.grader == "number"
        assert isinstance(draft.gold, float | int)
        assert draft.text.endswith("？")
        assert group == "temperature" or draft.gold > 0
        assert (draft.gold * 2) % 1 == 0 or group == "bill"


def test_chickens_and_rabbits_have_the_heads_and_legs_told() -> None:
    maker, _ = STORIES["rabbits"]
    for seed in range(40):
        draft = maker(random.Random(seed))
        heads, legs = [found.value for found in numbers_in(draft.text)][-2:]
        assert isinstance(draft.gold, float | int)
        assert 2 * (heads - draft.gold) + 4 * draft.gold == legs
