from __future__ import annotations

import pytest

from coordinator.routing.lexicon import CATEGORIES, SUBJECTS, count, words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", {}),
        ("高血压的症状", {"medicine": 2}),
        ("症状症状", {"medicine": 1}),
        ("explain why", {"explain": 1, "why": 1}),
        ("step by step", {"steps": 1}),
        ("step by", {}),
        ("whyever", {}),
        ("solve the equation", {"maths": 1}),
    ],
)
def test_distinct_words_are_counted_by_category(text: str, expected: dict[str, int]) -> None:
    assert {name: number for name, number in count(text, words(text)).items() if number} == expected


def test_every_subject_is_a_category() -> None:
    assert set(SUBJECTS) <= set(CATEGORIES)
