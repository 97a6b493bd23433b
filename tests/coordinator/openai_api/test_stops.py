from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.openai_api.stops import StopWatch


def given_out(stops: list[str], pieces: list[str]) -> tuple[str, bool]:
    watch = StopWatch(stops)
    text = "".join(watch.feed(piece) for piece in pieces)
    return text + watch.flush(), watch.has_stopped


@pytest.mark.parametrize(
    ("stops", "pieces", "text", "has_stopped"),
    [
        ([], ["ab", "c"], "abc", False),
        (["b"], ["abc"], "a", True),
        (["bc"], ["ab", "cd", "e"], "a", True),
        (["bc"], ["ab", "d"], "abd", False),
        (["bc"], ["ab"], "ab", False),
        (["abab", "x"], ["aab", "ab", "x"], "a", True),
        (["cd", "b"], ["abcd"], "a", True),
    ],
)
def test_answer_ends_before_the_first_stop_text(
    stops: list[str], pieces: list[str], text: str, has_stopped: bool
) -> None:
    assert given_out(stops, pieces) == (text, has_stopped)


@given(
    stops=st.lists(st.text("ab", min_size=1, max_size=3), max_size=3),
    pieces=st.lists(st.text("abc", max_size=4), max_size=8),
)
def test_cuts_between_pieces_change_nothing(stops: list[str], pieces: list[str]) -> None:
    whole = "".join(pieces)
    ends = [end for stop in stops if (end := whole.find(stop)) >= 0]
    text, has_stopped = given_out(stops, pieces)
    assert has_stopped is bool(ends)
    assert whole.startswith(text)
    assert not any(stop in text for stop in stops)
    if not ends:
        assert text == whole


def test_nothing_that_cannot_begin_a_stop_text_is_kept_back() -> None:
    watch = StopWatch(["###"])
    assert watch.feed("ab#") == "ab"
    assert watch.feed("c") == "#c"
