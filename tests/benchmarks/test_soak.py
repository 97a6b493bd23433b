from __future__ import annotations

import io
from typing import Any

import pytest
import typer
from rich.console import Console

from benchmarks import soak
from benchmarks.soak import QUICK, TARGETS, Options, tables_of, targets_of
from benchmarks.soak_barge import Barged
from benchmarks.soak_grind import Grinding
from benchmarks.soak_memory import Point
from benchmarks.targets import judged
from tests.benchmarks.test_soak_turns import counts, held

GROUND = Grinding("frames", 10, 1, sent=100, seconds=1.0, series=[[Point(10 * n, 50.0) for n in range(1, 11)]])
FULL = {"frames": 10_000_000, "messages": 1_000_000, "turns": 20_000, "barge_ins": 1_000}
FLAT = [counts(done, 60.0) for done in range(0, 4000, 100)]


def results(**changes: dict[str, Any]) -> dict[str, Any]:
    found = {
        "frames": GROUND.results(),
        "messages": GROUND.results(),
        "turns": held(FLAT, counts(4000, 60.0)).results(),
        "barge_ins": Barged(tried=9, stops_ms=[1.0]).results(),
    }
    return {name: {**figures, **changes.get(name, {})} for name, figures in found.items()}


def test_every_promise_is_about_a_figure_that_is_measured() -> None:
    assert {entry["verdict"] for entry in judged(TARGETS, results()).values()} == {"met"}


@pytest.mark.parametrize(
    "changes",
    [
        {"frames": {"crashes": 1}},
        {"messages": {"unexpected_errors": 1}},
        {"turns": {"failed": 1}},
        {"turns": {"rss_slope_mib_per_1000_turns": 0.5}},
        {"turns": {"fds_left": 1}},
        {"barge_ins": {"stuck": 1}},
        {"barge_ins": {"stale_packets": 1}},
    ],
    ids=str,
)
def test_one_thing_gone_wrong_misses_a_promise(changes: dict[str, dict[str, Any]]) -> None:
    verdicts = [entry["verdict"] for entry in judged(TARGETS, results(**changes)).values()]
    assert verdicts.count("missed") == 1


def test_slopes_of_short_runs_and_parts_left_out_are_not_judged() -> None:
    def keys(**amounts: int) -> set[str]:
        return {target.key for target in targets_of(Options(**{"seed": 1, **FULL, **amounts}))}

    assert keys() == {target.key for target in TARGETS}
    assert keys() - keys(turns=500) == {"turns.rss_slope_mib_per_1000_turns"}
    assert keys() - keys(barge_ins=0) == {key for key in keys() if key.startswith("barge_ins.")}


def test_tables_show_what_was_measured_and_none_of_what_was_not() -> None:
    def text(found: dict[str, Any]) -> str:
        console = Console(width=160, record=True, file=io.StringIO())
        for table in tables_of(found):
            console.print(table)
        return console.export_text()

    assert all(title in text(results()) for title in ("Garbage", "Turns", "Barge-ins"))
    assert text({}) == ""
    assert "Garbage" not in text({"turns": results()["turns"]})


def test_quick_asks_for_less_and_never_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Options] = []
    monkeypatch.setattr(soak, "soaked", lambda options, _console: (asked.append(options), ({}, []))[1])
    soak.command(quick=True, turns=7)
    assert asked == [Options(frames=QUICK["frames"], messages=QUICK["messages"], turns=7, barge_ins=50, seed=1)]


def test_a_parts_errors_end_in_a_status_and_ctrl_c_in_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak, "soaked", lambda _options, _console: ({}, ["it broke"]))
    with pytest.raises(typer.Exit) as failed:
        soak.command()
    assert failed.value.exit_code == 1

    def interrupted(_options: Options, _console: Console) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(soak, "soaked", interrupted)
    with pytest.raises(typer.Exit) as stopped:
        soak.command()
    assert stopped.value.exit_code == 130
