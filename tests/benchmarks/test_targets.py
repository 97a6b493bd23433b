from __future__ import annotations

from typing import Literal

import pytest

from benchmarks.targets import Target, Verdict, judged, table_of_targets, value_at, verdict


def target(at: Literal["most", "least"], limit: float = 10.0, key: str = "a.b") -> Target:
    return Target(key=key, at=at, limit=limit, what="something, ms")


@pytest.mark.parametrize(
    ("at", "value", "expected"),
    [
        ("most", 10.0, "met"),
        ("most", 10.1, "missed"),
        ("least", 10.0, "met"),
        ("least", 9.9, "missed"),
        ("most", None, "not measured"),
    ],
)
def test_the_limit_itself_keeps_the_promise(
    at: Literal["most", "least"], value: float | None, expected: Verdict
) -> None:
    assert verdict(target(at), value) == expected


@pytest.mark.parametrize(("key", "value"), [("a.b", 3.0), ("a", None), ("a.c", None), ("a.b.c", None), ("t", None)])
def test_a_key_leads_to_a_number_or_to_nothing(key: str, value: float | None) -> None:
    assert value_at({"a": {"b": 3}, "t": "text"}, key) == value


def test_every_target_stands_in_report_and_table() -> None:
    found = judged([target("most"), target("least", key="gone")], {"a": {"b": 4}})
    assert found["a.b"] == {"what": "something, ms", "at": "most", "limit": 10.0, "measured": 4.0, "verdict": "met"}
    assert found["gone"]["verdict"] == "not measured"
    assert table_of_targets(found).row_count == 2
