from __future__ import annotations

import json
import random
from itertools import pairwise
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from benchmarks import scaling as module
from benchmarks.scaling import RULES, Moment, Pool, rate_at, results_of, simulate
from cloud.scaling import Rules

OPEN = 6.5
"""Hour at which the closed hours end."""


@pytest.fixture(scope="module")
def day() -> tuple[Pool, list[Moment]]:
    return simulate(RULES, seed=2)


def between(moments: list[Moment], begin: float, end: float) -> list[Moment]:
    return [moment for moment in moments if begin <= moment.hour < end]


def test_the_pool_sleeps_at_night_and_is_back_in_the_morning(day: tuple[Pool, list[Moment]]) -> None:
    _, moments = day
    assert {moment.spec for moment in between(moments, 0, OPEN - 0.26)} == {0}
    assert {moment.ready > 0 for moment in between(moments, OPEN, 23.5)} == {True}
    assert {moment.spec for moment in between(moments, 23.6, 24)} == {0}


def test_limits_hold_all_day(day: tuple[Pool, list[Moment]]) -> None:
    _, moments = day
    assert all(0 <= moment.spec <= RULES.max_replicas for moment in moments)
    assert max(moment.spec for moment in moments) == RULES.max_replicas, "the evening needs them all"


def test_nothing_that_runs_is_ever_cut_off(day: tuple[Pool, list[Moment]]) -> None:
    pool, moments = day
    assert sum(before.spec > after.spec for before, after in pairwise(moments)) > 10, "pods were removed"
    assert pool.cut_off == 0


def test_it_does_not_flap(day: tuple[Pool, list[Moment]]) -> None:
    _, moments = day
    turns = [
        (before.hour, after.spec - before.spec) for before, after in pairwise(moments) if after.spec != before.spec
    ]
    back = [(later[0] - earlier[0]) * 3600 for earlier, later in pairwise(turns) if earlier[1] > 0 > later[1]]
    assert min(back) >= RULES.down_cool_s - 2 * module.TICK_S
    assert sum(earlier[1] * later[1] < 0 for earlier, later in pairwise(turns)) <= 8, (
        "four busy times, up and down each"
    )


def test_slow_changes_are_followed_without_sending_work_away(day: tuple[Pool, list[Moment]]) -> None:
    _, moments = day
    for begin, end in ((9.0, 15.0), (17.0, 23.0)):
        ticks = between(moments, begin, end)
        assert sum(tick.elsewhere for tick in ticks) / sum(tick.offered for tick in ticks) < 0.005


def test_without_scaling_the_same_day_costs_the_most(day: tuple[Pool, list[Moment]]) -> None:
    result = results_of(simulate(Rules(min_replicas=8, max_replicas=8)))
    assert result["saved_share"] < 0.001
    assert results_of(day)["saved_share"] > 0.5


def test_kubernetes_without_marks_would_cut_off_work() -> None:
    """The made-up Kubernetes is a hard one: without draining it takes the busiest pod."""
    pool = Pool(random.Random(1))
    pool.write_scale(pool.read_scale("pool"), 2)
    pool.pass_time(module.START_S, 0.0)
    pool.pass_time(5.0, 4.0)
    pool.write_scale(pool.read_scale("pool"), 1)
    assert pool.cut_off > 0


def test_a_stale_scale_is_refused() -> None:
    pool = Pool(random.Random(1))
    scale = pool.read_scale("pool")
    assert pool.write_scale(scale, 3)
    assert not pool.write_scale(scale, 1)
    assert pool.spec == 3


def test_the_curve_has_its_busy_times() -> None:
    assert rate_at(3) < 1 < rate_at(10.2) < rate_at(12.5) < rate_at(19.8)
    assert rate_at(15.1) - rate_at(14.9) > 20
    assert rate_at(27) == rate_at(3)


def test_the_command_writes_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TICK_S", 30.0)
    app = typer.Typer()
    app.command()(module.command)
    file = tmp_path / "report.json"
    done = CliRunner().invoke(app, ["--json", str(file)])
    assert done.exit_code == 0, done.output
    report = json.loads(file.read_text())
    assert (report["name"], report["engines"], len(report["results"]["hours"])) == ("scaling", "scripted", 24)
    assert report["results"]["cut_off"] == 0
