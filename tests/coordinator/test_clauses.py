from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.clauses import MOST_CHARS, Clauses, Passing, says_something, speech_s
from models.errors import CompletionError
from models.prompts import CompletionDelta

ANSWER = "水的沸点是一百度，在海平面上。高原上气压低，所以沸点也低！你家在哪里？我可以算一下。"


def fed(gate: Clauses | Passing, text: str) -> list[str]:
    return [given for letter in text if (given := gate.feed(CompletionDelta(text=letter)))]


def test_the_first_piece_may_be_a_clause_and_later_ones_are_sentences() -> None:
    gate = Clauses()
    assert fed(gate, ANSWER) == [
        "水的沸点是一百度，",
        "在海平面上。",
        "高原上气压低，所以沸点也低！",
        "你家在哪里？",
        "我可以算一下。",
    ]
    assert gate.flush() == ""


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("好的，我来说。", ["好的，我来说。"]),
        ("……你好。", ["……你好。"]),
        ("Well, water boils at 3.14 degrees. Yes", ["Well, water boils at 3.14 degrees. "]),
        ("It costs 1,000 yuan, as of now. ", ["It costs 1,000 yuan, ", "as of now. "]),
        ("一、苹果\n二、香蕉\n", ["一、苹果\n", "二、香蕉\n"]),
        ("没有标点的话就一直等", []),
        ("甲" * MOST_CHARS, ["甲" * MOST_CHARS]),
        ("你好。" + "乙" * 24 + "，后面", ["你好。", "乙" * 24 + "，"]),
        ("你好。" + "乙" * 23 + "，后面", ["你好。"]),
    ],
)
def test_pieces_end_where_a_voice_may_pause(text: str, pieces: list[str]) -> None:
    assert fed(Clauses(), text) == pieces


@given(st.lists(st.text("水的，。！? .\n,a1“”", max_size=9), max_size=40))
def test_nothing_is_lost_or_changed(texts: list[str]) -> None:
    gate = Clauses()
    given_out = "".join(gate.feed(CompletionDelta(text=text)) for text in texts)
    assert given_out + gate.flush() == "".join(texts)


@pytest.mark.parametrize("text", ["好\ufffd", "\x00", "a\x1b[0m"])
def test_what_is_no_text_is_refused(text: str) -> None:
    with pytest.raises(CompletionError, match="garbled"):
        Clauses().feed(CompletionDelta(text=text))


def test_passing_holds_nothing() -> None:
    gate = Passing()
    assert fed(gate, "水的") == ["水", "的"]
    assert gate.flush() == ""


def test_speech_takes_as_long_as_a_voice_needs() -> None:
    assert speech_s("") == 0
    assert speech_s("水的沸点是") == pytest.approx(1.0)
    assert 1 < speech_s("the boiling point of water") < 2


@pytest.mark.parametrize(("text", "says"), [("", False), ("……\n😊", False), ("嗯", True), ("3", True)])
def test_something_is_said_by_a_letter_or_digit(text: str, says: bool) -> None:
    assert says_something(text) is says
