from __future__ import annotations

import pytest

from coordinator.doubt import DOUBT_TOKENS, Doubt
from models.prompts import CompletionDelta


def delta(text: str, *logprobs: float) -> CompletionDelta:
    return CompletionDelta(text=text, logprobs=logprobs)


def test_the_beginning_is_held_until_eight_tokens_can_be_judged() -> None:
    gate = Doubt()
    assert [gate.feed(delta("字", -1.0)) for _ in range(DOUBT_TOKENS)] == [""] * 7 + ["字" * 8]
    assert gate.feed(delta("后", -9.0)) == "后"
    assert gate.doubts(-0.9)
    assert not gate.doubts(-1.0), "later tokens do not count, nor does a mean at the threshold"


def test_a_short_first_clause_is_judged_by_what_there_is() -> None:
    gate = Doubt()
    assert [gate.feed(delta(letter, -2.0)) for letter in "我不太清楚。"] == ["", "", "", "", "", "我不太清楚。"]
    assert gate.doubts(-1.5)


def test_an_answer_that_ends_early_is_judged_by_what_there_is() -> None:
    gate = Doubt()
    assert gate.feed(delta("嗯", -3.0)) == ""
    assert gate.flush() == "嗯"
    assert gate.doubts(-2.5)


@pytest.mark.parametrize("threshold", [-1.0, 0.0])
def test_an_engine_that_tells_no_probabilities_never_doubts(threshold: float) -> None:
    gate = Doubt()
    gate.feed(delta("水的沸点是一百度。"))
    assert not gate.doubts(threshold)


def test_a_piece_of_many_tokens_is_judged_by_its_first_eight() -> None:
    gate = Doubt()
    assert gate.feed(delta("一大段", *([-0.5] * 8), -50.0)) == "一大段"
    assert not gate.doubts(-0.6)
