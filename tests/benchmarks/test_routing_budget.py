from __future__ import annotations

import numpy as np
import pytest

from benchmarks import routing_budget
from benchmarks.routing_budget import (
    DAYS,
    POOLS,
    SURPRISE_DAY,
    SURPRISE_FROM_S,
    Day,
    bought_at,
    budget_results,
    budget_table,
    fixed_run,
    hindsight_price,
    loop_run,
    simulated_days,
    stopped_run,
)
from coordinator.routing.budget import DAY_S

BUDGET = 300.0


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routing_budget, "TURNS_PER_DAY", 1000)


def test_days_are_in_order_and_the_surprise_comes_in_the_evening() -> None:
    days = simulated_days(1)
    assert len(days) == DAYS
    assert all(np.all(np.diff(day.seconds) >= 0) and 0 <= day.seconds[0] <= day.seconds[-1] < DAY_S for day in days)
    evenings = [int((day.seconds >= SURPRISE_FROM_S).sum()) for day in days]
    assert evenings.index(max(evenings)) == SURPRISE_DAY
    assert all(np.abs(day.gains).max() <= 1 for day in days)


def test_the_price_in_hindsight_just_spends_the_budget_on_the_most_gain() -> None:
    gains = np.array([0.9, 0.5, 0.2, 0.1, -0.3])
    price = hindsight_price(gains, 2.0)
    spent, gained = bought_at(gains, price)
    assert spent.tolist() == [1.0, 1.0, 0.0, 0.0, 0.0]
    assert gained.tolist() == pytest.approx([0.72, 0.4, 0.0, 0.0, 0.0])
    assert hindsight_price(gains, 1000.0) == pytest.approx(0.0, abs=1e-6)


def test_a_cheap_cloud_asks_the_larger_pool() -> None:
    spent, gained = bought_at(np.array([0.9, 0.01]), 0.01)
    assert spent.tolist() == [POOLS[1].price, 0.0]
    assert gained.tolist() == [0.9, 0.0]


def test_each_run_tells_of_every_turn() -> None:
    days = simulated_days(2)[:2]
    for run in (loop_run, fixed_run, stopped_run):
        for day, (spent, gained, prices) in zip(days, run(days, BUDGET), strict=True):
            assert len(day.gains) == len(spent) == len(gained) == len(prices)
            assert np.all((spent > 0) == (gained > 0))


def test_a_hard_stop_never_spends_more_than_there_is() -> None:
    rich = Day(np.linspace(0, DAY_S - 1, 2000), np.full(2000, 0.5))
    poor = Day(rich.seconds, np.linspace(-0.5, 0.5, 2000))
    (first, _, _), (second, _, _) = stopped_run([poor, rich], BUDGET)
    assert first.sum() == pytest.approx(BUDGET, abs=4)
    assert second.sum() <= BUDGET


def test_results_hold_every_day_and_the_baselines() -> None:
    results = budget_results(seed=1, seeds=1)
    assert [day["day"] for day in results["days"]] == list(range(1, DAYS + 1))
    assert results["within_2_percent"] == all(abs(day["spend_error"]) <= 2 for day in results["days"])
    for day in results["days"]:
        assert day["spend_error"] == pytest.approx(100 * (day["spent"] / results["budget_per_day"] - 1), abs=0.01)
        assert day["regret"] == pytest.approx(100 * (1 - day["gained"] / day["best"]), abs=0.01)
        assert day["price_low"] <= day["price_high"]
    assert set(results["total"]) == {"loop", "fixed threshold", "fixed threshold with a hard stop"}
    assert results["further_seeds"]["days"] == DAYS
    assert results["surprise_bound"] <= results["days"][SURPRISE_DAY]["regret"]
    assert budget_table(results).row_count == DAYS + 3


def test_without_further_seeds_there_is_nothing_worst() -> None:
    assert budget_results(seeds=0)["further_seeds"]["worst_day_regret"] == 0.0
