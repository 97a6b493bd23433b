from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from benchmarks.requests_zh.request import Request
from benchmarks.routing_journal import About, Graded, Journal, Side, lines_of, write_lines
from coordinator.routing.signals import Kind
from models.errors import ConfigError

ABOUT = About(
    command="python -m benchmarks.routing_outcomes",
    commit="abc",
    date="2026-01-01T00:00:00+00:00",
    edge="small",
    edge_sha256="1",
    cloud="large",
    cloud_sha256="2",
    edge_tokens=96,
    cloud_tokens=256,
    requests_sha256="3",
)


def request(name: str) -> Request:
    return Request(id=name, kind=Kind.FACT, group="g", text=f"{name}是什么", gold=("甲",), grader="text")


def graded(name: str, side: Side = "edge", *, right: int = 1, logprob: float | None = None) -> Graded:
    return Graded(id=name, side=side, right=right, tokens=5, logprob=logprob)


def test_an_interrupted_run_is_taken_up_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "o.part"
    with Journal(path, ABOUT, resume=False) as journal:
        journal.add(graded("a", logprob=-0.5))
        journal.add(graded("a", "cloud", right=0))
    with Journal(path, ABOUT, resume=True) as journal:
        assert journal.graded == {
            ("edge", "a"): graded("a", logprob=-0.5),
            ("cloud", "a"): graded("a", "cloud", right=0),
        }


def test_a_line_cut_short_is_asked_again(tmp_path: Path) -> None:
    path = tmp_path / "o.part"
    with Journal(path, ABOUT, resume=False) as journal:
        journal.add(graded("a"))
        journal.add(graded("b"))
    path.write_bytes(path.read_bytes()[:-9])
    with Journal(path, ABOUT, resume=True) as journal:
        assert set(journal.graded) == {("edge", "a")}
        journal.add(graded("b"))
    with Journal(path, ABOUT, resume=True) as journal:
        assert set(journal.graded) == {("edge", "a"), ("edge", "b")}


def test_an_interrupted_run_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "o.part"
    with Journal(path, ABOUT, resume=False) as journal:
        journal.add(graded("a"))
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="--resume"):
        Journal(path, ABOUT, resume=False)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "changed", [{"edge_sha256": "9"}, {"cloud_sha256": "9"}, {"edge_tokens": 9}, {"requests_sha256": "9"}]
)
def test_a_run_with_other_models_or_requests_is_refused(tmp_path: Path, changed: dict[str, object]) -> None:
    path = tmp_path / "o.part"
    with Journal(path, ABOUT, resume=False):
        pass
    with pytest.raises(ConfigError, match="other models"):
        Journal(path, msgspec.structs.replace(ABOUT, **changed), resume=True)


def test_a_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "o.part"
    path.write_text("hello\n")
    with pytest.raises(ConfigError, match="no interrupted run"):
        Journal(path, ABOUT, resume=True)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        Journal(tmp_path / "missing" / "o.part", ABOUT, resume=False)
    with pytest.raises(ConfigError, match="cannot be written"):
        write_lines(tmp_path / "missing" / "o", ABOUT, [])


def test_outcomes_are_of_requests_both_sides_answered(tmp_path: Path) -> None:
    with Journal(tmp_path / "o.part", ABOUT, resume=False) as journal:
        journal.add(graded("a", logprob=-0.5))
        journal.add(graded("a", "cloud", right=0))
        journal.add(graded("b"))
        lines = list(lines_of([request("a"), request("b"), request("c")], journal, ABOUT))
    assert [(line.id, line.edge, line.cloud, line.edge_logprob) for line in lines] == [("a", 1, 0, -0.5)]
    assert (lines[0].kind, lines[0].text, lines[0].edge_model, lines[0].cloud_model) == (
        "fact",
        "a是什么",
        "small",
        "large",
    )


def test_the_first_line_says_how_the_outcomes_were_made(tmp_path: Path) -> None:
    out = tmp_path / "o.jsonl"
    write_lines(out, ABOUT, [])
    assert msgspec.json.decode(out.read_bytes())["about"]["command"] == ABOUT.command
