from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from benchmarks.routing_promise import Scored, promise_results, promise_table
from coordinator.routing.promise import LEVELS


def items(count: int = 1500, *, groups: int = 0, seed: int = 1) -> list[Scored]:
    """Return questions whose high scores mean more to lose; with groups, what is lost depends on the group and not on the score."""
    rng = np.random.default_rng(seed)
    found = []
    for index in range(count):
        group = index % groups if groups else 0
        chance = group / groups if groups else 0.7 * (score := rng.random())
        score = rng.random() if groups else score
        loses = rng.random() < chance
        found.append(Scored(score=score, edge=0.0 if loses else 1.0, cloud=1.0, group=str(group) if groups else ""))
    return found


def test_promises_hold_on_unseen_questions() -> None:
    results = promise_results(items(), repeats=200)
    assert [level["promised"] for level in results] == list(LEVELS)
    assert all(level["realised"] <= level["promised"] for level in results)
    assert all(level["realised_mean"] <= level["upper"] <= level["promised"] + 0.01 for level in results)
    assert all(level["held"] >= max(level["held_alone"], 0.95) for level in results)
    assert all(level["held_alone"] >= 0.9 for level in results)
    assert results[0]["held_all"] >= 0.95
    shares = [level["cloud_share"] for level in results]
    assert shares == sorted(shares, reverse=True)
    assert shares[-1] < 0.7


def test_the_same_seed_gives_the_same_results_and_another_does_not() -> None:
    assert promise_results(items(), 3, repeats=2) == promise_results(items(), 3, repeats=2)
    assert promise_results(items(), 3, repeats=2) != promise_results(items(), 4, repeats=2)


def test_unlike_groups_break_the_promise_and_the_results_say_so() -> None:
    mixed = promise_results(items(groups=6), repeats=60)[4]
    apart = promise_results(items(groups=6), repeats=60, by_group=True)[4]
    assert mixed["held"] >= 0.95
    assert apart["held"] < 0.9


def test_nothing_to_lose_needs_no_cloud() -> None:
    same = [Scored(score=index / 500, edge=1.0, cloud=1.0) for index in range(1000)]
    level = promise_results(same, repeats=3)[2]
    assert (level["threshold"], level["cloud_share"], level["realised"]) == (None, 0.0, 0.0)


@pytest.mark.parametrize("count", [30, 800])
def test_the_table_has_a_row_for_each_level(count: int) -> None:
    table = promise_table("made up", promise_results(items(count), repeats=5))
    assert table.row_count == len(LEVELS)
    Console(file=(shown := io.StringIO()), width=200).print(table)
    assert "made up" in shown.getvalue()
