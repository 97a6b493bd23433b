from __future__ import annotations

import math
from pathlib import Path

import msgspec
import numpy as np
import pytest

from coordinator.routing.promise import (
    CONFIDENCE,
    LEVELS,
    Floats,
    Promise,
    Promises,
    binomial_cdf,
    hypergeometric_cdf,
    losses_of,
    promises_of,
    read_promises,
    threshold_for,
    tolerated_losses,
    upper_bound,
    write_promises,
)
from models.errors import ConfigError

DRAWS = 500
KNOWN = 400


def drawn(rng: np.random.Generator, count: int) -> tuple[Floats, Floats]:
    """Return scores and losses of exchangeable turns: what scores high loses more often."""
    scores = rng.random(count)
    return scores, (rng.random(count) < 0.6 * scores**2).astype(np.float64)


def true_loss(threshold: float) -> float:
    """Return the share of all turns ``drawn`` would give that lose below the threshold."""
    return 0.2 * min(max(threshold, 0.0), 1.0) ** 3


def naive(scores: Floats, losses: Floats, allowed: float) -> float:
    """Choose where the known turns just keep the promise, as one would without a bound."""
    order = np.argsort(scores)
    over = np.flatnonzero(np.cumsum(losses[order]) > allowed * len(scores))
    return float(scores[order][over[0]]) if len(over) else math.inf


def share_kept(choose: object, allowed: float) -> float:
    rng = np.random.default_rng(5)
    return float(np.mean([true_loss(choose(*drawn(rng, KNOWN), allowed)) <= allowed for _ in range(DRAWS)]))


@pytest.mark.parametrize("allowed", [0.02, 0.05, 0.1])
def test_the_promise_holds_in_at_least_95_percent_of_draws(allowed: float) -> None:
    assert share_kept(threshold_for, allowed) >= 0.95


@pytest.mark.parametrize("allowed", [0.02, 0.05, 0.1])
def test_without_the_bound_it_does_not_hold(allowed: float) -> None:
    assert share_kept(naive, allowed) < 0.8


@pytest.mark.parametrize(("allowed", "turns"), [(0.05, 300), (0.1, 50)])
def test_a_promise_for_the_turns_to_come_holds_on_them(allowed: float, turns: int) -> None:
    rng, held = np.random.default_rng(6), []
    for _ in range(DRAWS):
        threshold = threshold_for(*drawn(rng, KNOWN), allowed, turns=turns)
        scores, losses = drawn(rng, turns)
        held.append(float(np.mean(losses * (scores < threshold))) <= allowed)
    assert np.mean(held) >= 0.95


def test_the_bound_is_not_wasteful() -> None:
    rng = np.random.default_rng(7)
    lost = [true_loss(threshold_for(*drawn(rng, 4000), 0.05)) for _ in range(50)]
    assert 0.04 < float(np.mean(lost)) < 0.05


@pytest.mark.parametrize(
    ("scores", "losses", "allowed", "threshold"),
    [
        ([0.1, 0.2, 0.3], [0, 0, 0], 0.1, -math.inf),
        ([0.5] * 100, [0] * 100, 0.05, math.inf),
        ([0.5] * 99 + [0.4], [1] * 99 + [0], 0.05, 0.5),
        ([0.2] * 50 + [0.5] * 50, [0] * 50 + [1] * 50, 0.05, 0.5),
        ([0.2] * 50 + [0.5] * 50, [1] * 50 + [0] * 50, 0.05, 0.2),
    ],
)
def test_small_cases_by_hand(scores: list[float], losses: list[float], allowed: float, threshold: float) -> None:
    assert threshold_for(scores, losses, allowed) == threshold


@pytest.mark.parametrize(
    ("known", "allowed", "tolerated"), [(58, 0.05, -1), (59, 0.05, 0), (93, 0.05, 1), (92, 0.05, 0)]
)
def test_tolerated_losses_are_those_of_the_tables(known: int, allowed: float, tolerated: int) -> None:
    assert tolerated_losses(known, allowed) == tolerated


def test_a_promise_for_turns_to_come_is_safe_whatever_the_number_of_losses_among_all() -> None:
    known, turns, allowed = 60, 50, 0.1
    tolerated, within = tolerated_losses(known, allowed, turns=turns), 5

    def broken(losses: int, total: int) -> float:
        return hypergeometric_cdf(min(losses, total - within - 1), known + turns, total, known)

    totals = range(within + 1, known + turns + 1)
    assert max(broken(tolerated, total) for total in totals) <= 0.05
    assert max(broken(tolerated + 1, total) for total in totals) > 0.05


@pytest.mark.parametrize(
    ("count", "trials", "chance"),
    [(0, 5, 0.3), (2, 5, 0.3), (4, 5, 0.99), (5, 5, 0.5), (-1, 5, 0.5), (3, 9, 0.0), (3, 9, 1.0)],
)
def test_binomial_sums(count: int, trials: int, chance: float) -> None:
    expected = sum(math.comb(trials, k) * chance**k * (1 - chance) ** (trials - k) for k in range(count + 1))
    assert binomial_cdf(count, trials, chance) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("count", "total", "marked", "drawn_"), [(0, 10, 3, 4), (1, 10, 3, 4), (3, 10, 3, 4), (1, 6, 5, 3), (2, 6, 5, 3)]
)
def test_hypergeometric_sums(count: int, total: int, marked: int, drawn_: int) -> None:
    ways = sum(math.comb(marked, k) * math.comb(total - marked, drawn_ - k) for k in range(count + 1))
    assert hypergeometric_cdf(count, total, marked, drawn_) == pytest.approx(ways / math.comb(total, drawn_))


def test_nothing_is_lost_where_the_edge_is_right_or_the_cloud_is_wrong() -> None:
    assert losses_of([0, 1, 0, 1, 0.4, 0.6], [1, 1, 0, 0, 0.5, 1]).tolist() == [1, 0, 0, 0, 1, 0]


def test_upper_bounds_are_clopper_pearsons() -> None:
    assert upper_bound(0, 59) == pytest.approx(1 - 0.05 ** (1 / 59))
    assert upper_bound(5, 5) == 1.0
    assert binomial_cdf(7, 100, upper_bound(7, 100)) == pytest.approx(1 - CONFIDENCE)


def test_promises_are_kept_for_each_level_and_the_nearest_stricter_one_is_taken() -> None:
    scores, losses = drawn(np.random.default_rng(8), 3000)
    promises = promises_of(scores, losses, model="m")
    assert [level.allowed for level in promises.levels] == list(LEVELS)
    thresholds = [level.threshold for level in promises.levels]
    assert thresholds == sorted(thresholds)
    assert all(level.upper <= level.allowed for level in promises.levels)
    assert promises.threshold(0.9) == thresholds[3]
    assert promises.threshold(0.93) == thresholds[2]
    assert promises.threshold(0.995) is None
    assert promises.levels[0].cloud_share == pytest.approx(1 - thresholds[0], abs=0.05)


def test_too_few_turns_promise_nothing_but_the_cloud() -> None:
    (level,) = promises_of([0.5] * 20, [0.0] * 20, model="m", levels=(0.05,)).levels
    assert level == Promise(allowed=0.05, threshold=0.0, upper=0.0, cloud_share=1.0)


def test_promises_are_read_from_a_file_or_the_file_is_named(tmp_path: Path) -> None:
    promises = Promises(model="m", turns=3, levels=())
    file = tmp_path / "promises.json"
    file.write_bytes(msgspec.json.encode(promises))
    assert read_promises(file) == promises
    file.write_bytes(b"{}")
    with pytest.raises(ConfigError, match=r"promises\.json holds no promises"):
        read_promises(file)
    with pytest.raises(ConfigError, match=r"gone\.json cannot be read"):
        read_promises(tmp_path / "gone.json")


def test_promises_are_written_as_they_are_read(tmp_path: Path) -> None:
    made = promises_of([0.1, 0.5, 0.9] * 200, [0, 0, 1] * 200, model="m", data="d")
    write_promises(made, tmp_path / "p.json")
    assert read_promises(tmp_path / "p.json") == made
    with pytest.raises(ConfigError, match="cannot be written"):
        write_promises(made, tmp_path / "missing" / "p.json")
