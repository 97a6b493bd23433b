from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.bus import matches, without_password

TOKENS = st.text("ab1-_", min_size=1, max_size=3)
SUBJECTS = st.lists(TOKENS, min_size=1, max_size=4).map(".".join)
PATTERNS = st.tuples(
    st.lists(st.one_of(TOKENS, st.just("*")), min_size=1, max_size=4), st.sampled_from([[], [">"]])
).map(lambda parts: ".".join(parts[0] + parts[1]))


@pytest.mark.parametrize(
    ("pattern", "subject", "expected"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.c", False),
        ("a.b", "a", False),
        ("a.b", "a.b.c", False),
        ("a.*", "a.b", True),
        ("a.*", "a", False),
        ("a.*", "a.b.c", False),
        ("*.b", "a.b", True),
        ("a.*.c", "a.b.c", True),
        ("a.*.c", "a.b.d", False),
        (">", "a", True),
        (">", "a.b.c", True),
        ("a.>", "a.b", True),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        ("a.>", "b.c", False),
        ("a.*.>", "a.b", False),
        ("a.*.>", "a.b.c", True),
        ("a.>.c", "a.b.c", False),
        ("voice.beat.edge.*", "voice.beat.edge.edge-1", True),
        ("voice.beat.edge.*", "voice.beat.pool.p.w", False),
        ("a", "A", False),
    ],
)
def test_wildcards_match_as_on_nats(pattern: str, subject: str, expected: bool) -> None:
    assert matches(pattern, subject) is expected


@given(PATTERNS, SUBJECTS)
def test_matching_agrees_with_a_regular_expression(pattern: str, subject: str) -> None:
    body, tail = (pattern[:-2], r"(\..+)") if pattern.endswith(".>") else (pattern, "")
    expression = r"\.".join(r"[^.]+" if part == "*" else re.escape(part) for part in body.split(".")) + tail
    assert matches(pattern, subject) is bool(re.fullmatch(expression, subject))


@given(SUBJECTS, st.data())
def test_a_subject_falls_under_every_pattern_made_of_it(subject: str, data: st.DataObject) -> None:
    tokens = subject.split(".")
    cut = data.draw(st.integers(0, len(tokens) - 1))
    starred = [part if data.draw(st.booleans()) else "*" for part in tokens]
    assert matches(subject, subject)
    assert matches(".".join(starred), subject)
    assert matches(".".join([*starred[:cut], ">"]), subject)
    assert not matches(".".join([*starred, ">"]), subject)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("nats://127.0.0.1:4222", "nats://127.0.0.1:4222"),
        ("nats://user:pa55@h:4222", "nats://***@h:4222"),
        ("nats://token@h", "nats://***@h"),
        ("user:pa55@h:4222", "***@h:4222"),
        ("redis://:p@55@h:1/0", "redis://***@h:1/0"),
        ("", ""),
    ],
)
def test_an_address_is_shown_without_its_password(url: str, shown: str) -> None:
    assert without_password(url) == shown
