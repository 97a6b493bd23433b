from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.preloading.forecast import (
    HABIT_TRUST,
    QUIET_ASKS,
    Calibration,
    forecast,
    probability_of,
    trusted,
)
from coordinator.preloading.reports import UsageReport
from coordinator.preloading.usage import HOURS, Usage


def content(number: int) -> str:
    return f"answer:{number:064x}"


def tell(usage: Usage, hour: int, counts: dict[int, int], group: str = "north") -> None:
    told = {content(number): count for number, count in counts.items() if count}
    usage.add(UsageReport(edge_id="edge-1", group=group, hour=hour, counts=told), hour)


def chance(usage: Usage, hour: int, number: int, group: str = "north") -> float:
    return float(forecast(usage, hour)[group].probability()[usage.contents.index(content(number))])


def test_nothing_reported_forecasts_nothing() -> None:
    assert forecast(Usage(), 5) == {}


def test_stationary_source_is_forecast_truly() -> None:
    dice = np.random.default_rng(1)
    rates = 30.0 * np.arange(1, 201) ** -1.0
    usage, given, came, expected = Usage(), [], [], []
    calibrations = {"north": Calibration()}
    for hour in range(9 * HOURS):
        counts = dice.poisson(rates)
        if hour >= 2 * HOURS:
            now = forecast(usage, hour, calibrations)["north"]
            rows = [int(name[7:], 16) for name in usage.contents]
            given.append(now.probability())
            came.append(counts[rows] > 0)
            expected.append(now.expected.sum() / rates.sum())
            calibrations["north"].learn(now.raw(), came[-1])
        tell(usage, hour, dict(enumerate(counts.tolist())))
    late = slice(4 * HOURS, None)
    probabilities, outcomes = np.concatenate(given[late]), np.concatenate(came[late])
    assert np.mean(expected[late]) == pytest.approx(1, abs=0.1)
    for low in (0.1, 0.3, 0.5, 0.7, 0.9):
        among = (probabilities >= low) & (probabilities < low + 0.2)
        assert among.sum() > 50
        assert outcomes[among].mean() == pytest.approx(probabilities[among].mean(), abs=0.08)


def test_hour_of_the_day_is_remembered() -> None:
    usage = Usage()
    for hour in range(6 * HOURS):
        tell(usage, hour, {1: 40 if hour % HOURS == 8 else 0, 2: 40})
    at_eight, at_night = 6 * HOURS + 8, 6 * HOURS
    at_night_chance = chance(usage, at_night, 1)
    for hour in range(6 * HOURS, at_eight):
        tell(usage, hour, {2: 40})
    assert chance(usage, at_eight, 1) > at_night_chance + 0.2
    assert at_night_chance < 0.6


def test_what_is_new_and_asked_lately_is_expected_again() -> None:
    usage = Usage()
    for hour in range(3 * HOURS):
        tell(usage, hour, {1: 20, 2: 1})
    before = chance(usage, 3 * HOURS, 2)
    tell(usage, 3 * HOURS, {1: 20, 3: 6})
    assert chance(usage, 3 * HOURS + 1, 3) > 0.6
    assert chance(usage, 3 * HOURS + 1, 2) < before + 0.05


def test_group_leans_on_the_others_until_it_has_asks_of_its_own() -> None:
    usage = Usage()
    for hour in range(48):
        tell(usage, hour, {1: 30, 2: 1})
        tell(usage, hour, {2: 30, 3: 1}, group="south")
        tell(usage, hour, {4: 2}, group="new")
    assert chance(usage, 48, 1, "new") > 0.1
    assert chance(usage, 48, 1) > chance(usage, 48, 2)
    assert chance(usage, 48, 2, "south") > chance(usage, 48, 1, "south")


def test_smaller_share_of_the_group_is_less_likely_to_ask() -> None:
    usage = Usage()
    tell(usage, 1, {1: 5})
    now = forecast(usage, 2)["north"]
    assert 0 < now.probability(0.1)[0] < now.probability(0.5)[0] < now.probability()[0] < 1
    assert now.probability(0.0)[0] == 0


@given(
    st.lists(st.dictionaries(st.integers(0, 20), st.integers(1, 1_000_000), max_size=10), min_size=1, max_size=30),
    st.integers(0, 30),
)
def test_probabilities_are_probabilities(hours, later: int) -> None:
    usage = Usage(max_contents=40)
    for hour, counts in enumerate(hours):
        tell(usage, hour, counts)
    for now in forecast(usage, len(hours) + later, {"north": Calibration()}).values():
        assert np.all((now.probability() >= 0) & (now.probability() <= 1))
        assert np.all(np.isfinite(now.expected) & (now.expected >= 0))


@given(st.floats(0, 1e9), st.floats(0, 1e9))
def test_probability_grows_with_what_is_expected(expected: float, evidence: float) -> None:
    less, more = probability_of(np.array([expected, expected * 2 + 0.1]), np.array([evidence, evidence]))
    assert 0 <= less <= more <= 1


def test_calibration_learns_that_forecasts_are_too_high() -> None:
    dice, calibration = np.random.default_rng(1), Calibration()
    given = dice.random(5_000)
    assert calibration.corrected(given) == pytest.approx(given)
    for _ in range(20):
        calibration.learn(given, dice.random(5_000) < given / 2)
    assert calibration.corrected(np.array([0.5])) == pytest.approx([0.25], abs=0.04)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=50))
def test_corrected_probabilities_keep_their_order(outcomes) -> None:
    calibration = Calibration()
    calibration.learn(np.array([p for p, _ in outcomes]), np.array([came for _, came in outcomes]))
    corrected = calibration.corrected(np.linspace(0, 1, 101))
    assert np.all((corrected >= 0) & (corrected <= 1))
    assert np.all(np.diff(corrected) >= -1e-12)


def test_ten_thousand_contents_of_twenty_groups_fit_in_memory_and_a_second_of_processor_time() -> None:
    usage = Usage(max_contents=10_000)
    for group in range(20):
        for start in range(0, 10_000, 4_000):
            tell(
                usage, 1, {start + number: 1 + number % 7 for number in range(min(4_000, 10_000 - start))}, f"g{group}"
            )
    began_s = time.process_time()
    found = forecast(usage, 2)
    took_s = time.process_time() - began_s
    assert len(found) == 20
    assert len(found["g0"].probability()) == 10_000
    assert took_s < 5  # five times what it may take: others may be using the machine


def test_what_habit_alone_speaks_for_is_trusted_by_half() -> None:
    sure = np.array([0.9, 0.9, 0.0])
    assert trusted(sure, np.array([0.0, QUIET_ASKS, 0.0])).tolist() == [0.9 * HABIT_TRUST, 0.9, 0.0]
