from __future__ import annotations

from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.cache.purges import MAX_MARKS, Purges, decode_purges
from models.errors import ConfigError


@pytest.mark.parametrize(
    ("prefix", "key", "made_at_s", "forgets"),
    [
        ("", "answer:1", 9.9, True),
        ("", "answer:1", 10.0, False),
        ("answer:", "answer:1", 9.0, True),
        ("answer:", "speech:1", 9.0, False),
        ("answer:1f", "answer:1f", 9.0, True),
        ("answer:1f", "answer:2f", 9.0, False),
    ],
)
def test_what_was_made_before_its_mark_is_forgotten(prefix: str, key: str, made_at_s: float, forgets: bool) -> None:
    assert Purges().marked(prefix, 10.0).forget(key, made_at_s) is forgets


@pytest.mark.parametrize("prefix", ["Answer:", "answer:xyz", "answer:1:2", "*", "answer:" + "0" * 65, "\n"])
def test_what_cannot_begin_a_key_is_refused(prefix: str) -> None:
    with pytest.raises(ConfigError, match="begin a key"):
        Purges().marked(prefix, 1.0)


def test_marks_are_bounded_and_the_oldest_goes() -> None:
    purges = Purges()
    for number in range(MAX_MARKS + 10):
        purges = purges.marked(f"answer:{number:064x}", float(number))
    assert len(purges.marks) == MAX_MARKS
    assert min(purges.marks.values()) == 10.0


def test_newer_marks_are_those_not_seen_yet() -> None:
    old = Purges().marked("answer:", 1.0).marked("speech:", 5.0)
    new = old.marked("answer:", 2.0).marked("", 3.0)
    assert set(new.newer_than(old)) == {"answer:", ""}
    assert not list(old.newer_than(old))


def test_marks_travel() -> None:
    purges = Purges().marked("answer:", 1.5)
    assert decode_purges(msgspec.json.encode(purges)) == purges


@given(st.binary(max_size=60))
def test_anything_else_is_refused_or_marks(junk: bytes) -> None:
    with suppress(ConfigError):
        assert isinstance(decode_purges(junk), Purges)


@pytest.mark.parametrize("marks", [{"a b": 1.0}, {f"answer:{number:064x}": 1.0 for number in range(MAX_MARKS + 1)}])
def test_marks_that_nobody_makes_are_refused(marks: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        decode_purges(msgspec.json.encode({"marks": marks}))
