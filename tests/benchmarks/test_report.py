from __future__ import annotations

import io
import json
import subprocess
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from benchmarks.report import commit_of, cpu_name, percentile, report_of, show, summary, table_of, write_json
from models.errors import ConfigError


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [
        ([], 50, None),
        ([7], 50, 7),
        ([7], 95, 7),
        ([15, 20, 35, 40, 50], 5, 15),
        ([15, 20, 35, 40, 50], 30, 20),
        ([15, 20, 35, 40, 50], 40, 20),
        ([15, 20, 35, 40, 50], 50, 35),
        ([50, 40, 35, 20, 15], 100, 50),
        (list(range(1, 101)), 95, 95),
        (list(range(1, 21)), 95, 19),
    ],
)
def test_percentiles_are_nearest_rank(values: list[float], percent: float, expected: float | None) -> None:
    assert percentile(values, percent) == expected


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1), st.integers(1, 100))
def test_a_percentile_is_a_value_that_was_measured(values: list[float], percent: int) -> None:
    found = percentile(values, percent)
    assert found in values
    assert sum(value <= found for value in values) >= percent / 100 * len(values) - 1e-9


def test_a_summary_of_nothing_has_no_numbers() -> None:
    assert summary([]) == {"p50": None, "p95": None, "max": None, "n": 0}
    assert summary([1.04, 3.0]) == {"p50": 1.0, "p95": 3.0, "max": 3.0, "n": 2}


def test_the_report_holds_machine_commit_and_results(tmp_path: Path) -> None:
    started_at = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    report = report_of("x", "python -m benchmarks x", engines="scripted", results={"a": 1}, started_at=started_at)
    write_json(report, tmp_path / "x.json")
    said = json.loads((tmp_path / "x.json").read_text())
    assert said["machine"].keys() == {"cpu", "cores", "memory_gib", "python", "os"}
    assert said["machine"]["cores"] >= 1
    assert (said["name"], said["engines"], said["results"], said["errors"]) == ("x", "scripted", {"a": 1}, [])
    assert said["started_at"] == "2026-01-02T03:04:05+00:00"
    assert "commit" in said


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    report = report_of("x", "x", engines="real", results={}, started_at=datetime.now(UTC))
    with pytest.raises(ConfigError, match=r"x\.json cannot be written"):
        write_json(report, tmp_path / "no" / "x.json")


def test_a_table_shows_text_numbers_and_what_is_missing() -> None:
    out = io.StringIO()
    console = Console(file=out, width=200)
    report = report_of("x", "x", engines="real", results={}, started_at=datetime.now(UTC), errors=["one failed"])
    show(console, report, [table_of("Times", ("who", "p50", "n"), [("edge", 1234.56, 7), ("cloud", None, 0)])])
    text = out.getvalue()
    assert "1235" in text
    assert " - " in text
    assert "real engines" in text
    assert "error: one failed" in text


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\n", "Some CPU @ 2 GHz"),
        ("Model\t\t: Raspberry Pi 4\n", "Raspberry Pi 4"),
    ],
)
def test_the_processor_is_named(cpuinfo: str, expected: str) -> None:
    assert cpu_name(cpuinfo) == expected
    assert cpu_name("")


def test_the_commit_says_whether_files_differ(tmp_path: Path) -> None:
    assert commit_of(tmp_path) == ""

    def git(*arguments: str) -> None:
        who = ("-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false")
        subprocess.run(["git", "-C", str(tmp_path), *who, *arguments], check=True, capture_output=True)

    git("init")
    (tmp_path / "a").write_text("1")
    git("add", "a")
    git("commit", "-m", "first", "--no-verify")
    clean = commit_of(tmp_path)
    assert len(clean) == 12
    (tmp_path / "a").write_text("2")
    assert commit_of(tmp_path) == f"{clean}+dirty"
