from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.routing.features import (
    BUCKETS,
    RISING,
    SURFACE,
    pieces,
    surface,
)


def column(text: str, name: str) -> float:
    return surface(text.lower())[SURFACE.index(name)]


@given(st.text(max_size=2000))
def test_any_text_gives_bounded_pieces_and_finite_columns(text):
    columns, counts = pieces(text)
    assert len(columns) == len(counts)
    assert ((columns >= 0) & (columns < BUCKETS)).all()
    assert (np.diff(columns) > 0).all()
    assert (counts >= 1).all()
    dense = surface(text)
    assert len(dense) == len(SURFACE)
    assert np.isfinite(dense).all()


def test_lone_surrogates_are_read_like_any_character():
    assert len(pieces("\ud800 what")[0]) > 0


def test_numbers_differ_and_pieces_do_not():
    assert np.array_equal(pieces("12 apples")[0], pieces("34 apples")[0])
    assert not np.array_equal(pieces("12 apples")[0], pieces("12 oranges")[0])


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("pick one: a. red b. green c. blue", "options", 3),
        ("pick one:\nA. red\nB. green\nC. blue", "options", 3),
        ("vitamin a. is good", "options", 0),
        ("choose a. 1 b. 2", "numeric_options", 2),
        ("如果有3个苹果呢", "condition", 1),
        ("一共多少钱", "amount", 1),
        ("why is it so", "reason", 1),
        ("3 and 4.5", "numbers", np.log1p(2)),
        ("", "length", 0),
    ],
)
def test_columns_say_what_their_names_promise(text, name, value):
    assert column(text, name) == pytest.approx(value)


def test_rising_columns_exist():
    assert set(SURFACE) >= RISING
