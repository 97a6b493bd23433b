from __future__ import annotations

import io

import pytest
from rich.console import Console

from benchmarks.cache_day import QUICK, bounds, measure, tables, wasted_of_all
from benchmarks.cache_day_traffic import traffic_of


@pytest.fixture(scope="module")
def results():
    return measure(seed=3, fleet=QUICK, is_sensitive=False)


def test_nothing_beats_the_bound_and_preloading_does_no_harm(results) -> None:
    day = results["day"]
    assert day["bound_clairvoyant"] >= day["bound"] >= day["hit_rate"] >= day["no_preload"] - 0.005
    assert day["bound"] >= day["bound_ttl"]
    assert day["hit_rate"] > day["l1_lru_alone"] > 0
    assert sum(day["tiers"].values()) == pytest.approx(day["hit_rate"], abs=0.001)


def test_report_names_what_was_assumed(results) -> None:
    given = results["assumed"]
    assert (given["intents"], given["alpha"], given["seed"], given["not_cacheable"]) == (500, 1.0, 3, 0.55)
    assert given["asks_on_the_last_day"] == pytest.approx(4 * 20 * 40 * 0.45, rel=0.15)


def test_near_tiers_hit_more_often_the_larger_they_are(results) -> None:
    rates = [row["no_preload"] for row in results["preload"]["near_sizes"]]
    assert rates == sorted(rates)
    assert rates[0] < rates[-1]


def test_tables_show_every_setup(results) -> None:
    console = Console(record=True, width=250, file=io.StringIO())
    for table in tables(results):
        console.print(table)
    shown = console.export_text()
    assert "bound_clairvoyant" in shown
    assert all(name in shown for name in results["day"]["others"])


def test_bounds_are_the_same_for_a_seed_and_others_for_another() -> None:
    one, same, other = (bounds(traffic_of(QUICK, seed), 86_400.0) for seed in (1, 1, 2))
    assert one == same
    assert one != other


def test_waste_of_nothing_made_is_not_a_figure() -> None:
    row = {"made": 0, "made_not_in_hour": 0, "made_never_asked": 0}
    assert wasted_of_all([row])["wasted"] is None
    assert wasted_of_all([{**row, "made": 4, "made_not_in_hour": 1}, row])["wasted"] == 0.25
