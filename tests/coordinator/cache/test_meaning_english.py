from __future__ import annotations

import pytest

from coordinator.cache.meaning import same_meaning


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("What's photosynthesis?", "please explain photosynthesis"),
        ("What is France's capital?", "What is the capital of France"),
        ("Hey, why is the sky blue?", "why is the sky blue"),
        ("What does inertia mean?", "What is inertia"),
        ("How many planets does the solar system have?", "how many planets are there in the solar system"),
        ("Why don't dogs fly?", "why do not dogs fly"),
    ],
)
def test_other_words_for_the_same_are_the_same(one: str, other: str) -> None:
    assert same_meaning(one, other).is_same


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("why do dogs bark", "why don't dogs bark"),
        ("can birds swim", "can't birds swim"),
        ("who is the president", "who was the president"),
        ("did france invade russia", "did russia invade france"),
        ("what is 5 minus 3", "what is 3 minus 5"),
        ("how many grams in a pound", "how many grams in an ounce"),
    ],
)
def test_alike_in_words_only_is_not_the_same(one: str, other: str) -> None:
    assert not same_meaning(one, other).is_same
