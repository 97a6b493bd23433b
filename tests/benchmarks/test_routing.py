from __future__ import annotations

import random

import pytest
import typer
from typer.testing import CliRunner

from benchmarks import routing
from benchmarks.routing import OWN, ROUTERS, load, results_of, tables_of
from coordinator.routing.outcomes import Outcome, read_outcomes, write_outcomes

pytest.importorskip("sklearn")


def outcomes(count=250):
    rng = random.Random(5)
    found = []
    for number in range(count):
        hard = number % 2 == 0
        text = f"prove theorem {number} of topology in every step" if hard else f"turn lamp {number} on"
        edge, cloud = float(rng.random() < (0.2 if hard else 0.9)), float(rng.random() < 0.9)
        found.append(Outcome(id=str(number), text=text, group=f"g{number % 25}", edge=edge, cloud=cloud))
    return found


def test_every_router_is_judged_on_both_splits():
    results = results_of({OWN: outcomes()}, seed=0)
    own = results[OWN]
    for found in (own, own["random_split"]):
        assert all(low <= found[name]["apgr"] <= high for name in ROUTERS for low, high in [found[name]["interval"]])
        assert found["oracle"]["apgr"] > found["gain"]["apgr"] > found["random"]["apgr"]
        assert 0 < found["gain"]["at_threshold"]["cloud_share"] < 1
        assert set(found["gain"]) >= {"cpt50", "cpt80", "over_length", "over_seeds", "over_difficulty"}
    assert set(results["decision_us"]) == {"p50", "p95", "max", "n"}
    assert [level["promised"] for level in results["promise"]] == [0.01, 0.02, 0.05, 0.1, 0.2]
    assert results["budget"]["days"]
    assert results["adversaries"]["changes"] > 0
    assert len(tables_of(results, [OWN])) == 7


def application():
    app = typer.Typer()
    app.command()(routing.command)
    return app


def test_sets_are_exported_as_outcomes(tmp_path):
    write_outcomes(outcomes(), tmp_path / "own.jsonl")
    done = CliRunner().invoke(
        application(), ["--outcomes", str(tmp_path / "own.jsonl"), "--export", str(tmp_path / "out")]
    )
    assert done.exit_code == 0, done.output
    assert read_outcomes(tmp_path / "out" / "own.jsonl") == outcomes()


def test_our_own_outcomes_are_always_there():
    (items,) = load(None, []).values()
    assert len(items) == 2043
