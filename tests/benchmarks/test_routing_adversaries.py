from __future__ import annotations

from collections import Counter

import pytest

from benchmarks.routing_adversaries import FAMILIES, adversaries
from coordinator.routing.rules import rule
from coordinator.routing.signals import read
from models.prompts import Message, Prompt

REQUESTS = (
    ("zh", "小明有三个苹果，又买了五个，为什么他一共有八个？"),
    ("zh", "帮我把灯打开"),
    ("zh", "法国的首都是哪里"),
    ("zh", "写一首关于春天的诗，不超过四句"),
    ("en", "Tom has 3 apples, buys 5 more, and eats one. What is left?"),
    ("en", "turn off the lights"),
    ("en", "What is the capital of France?"),
)
REWORDED = {"reordered", "synonyms"}


def prompt(text: str) -> Prompt:
    return Prompt(turn_id="t", messages=(Message(role="user", text=text),))


def test_every_family_changes_some_request_in_both_languages() -> None:
    seen = {(language, name) for language, text in REQUESTS for name, _ in adversaries(text, language)}
    assert {name for language, name in seen if language == "zh"} == FAMILIES.keys() - {"case", "full-width"}
    assert {name for language, name in seen if language == "en"} == set(FAMILIES)


def test_a_changed_text_is_never_the_text_itself() -> None:
    assert all(changed != text for language, text in REQUESTS for _, changed in adversaries(text, language))


def test_the_same_request_gives_the_same_changes() -> None:
    assert list(adversaries(REQUESTS[0][1], "zh")) == list(adversaries(REQUESTS[0][1], "zh"))


@pytest.mark.parametrize(("language", "text"), REQUESTS)
def test_no_change_moves_a_rule_or_the_kind(language: str, text: str) -> None:
    before = read(prompt(text))
    for name, changed in adversaries(text, language):
        after = read(prompt(changed))
        assert (after.kind, rule(prompt(changed), after.text)) == (before.kind, rule(prompt(text), before.text)), name


def test_padding_leaves_nearly_every_scored_text_as_it_was() -> None:
    moved: Counter[bool] = Counter()
    for language, text in REQUESTS:
        for name, changed in adversaries(text, language):
            if name not in REWORDED:
                moved[read(prompt(changed)).text != read(prompt(text)).text] += 1
    assert moved[True] <= 0.05 * moved.total()
