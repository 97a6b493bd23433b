from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.preloading.reports import UsageReport
from coordinator.preloading.usage import DAY_FADES, HOUR_FADES, LATEST_HOURS, Usage


def content(number: int) -> str:
    return f"answer:{number:064x}"


def report(hour: int, counts: dict[int, int], group: str = "north", edge: str = "edge-1") -> UsageReport:
    told = {content(number): count for number, count in counts.items()}
    return UsageReport(edge_id=edge, group=group, hour=hour, counts=told, texts=dict.fromkeys(told, "words"))


def test_edges_of_a_group_are_added_up() -> None:
    usage = Usage()
    assert usage.add(report(100, {1: 2, 2: 1}), 100)
    assert usage.add(report(100, {2: 4}, edge="edge-2"), 100)
    assert usage.groups["north"].by_hour[: len(usage.contents), 100 % 24].tolist() == [2, 5]


def test_order_of_reports_within_the_hour_does_not_matter() -> None:
    one, other = Usage(), Usage()
    reports = [report(100, {1: 2}), report(100, {2: 4}, group="south"), report(100, {2: 1, 1: 1})]
    for each in reports:
        one.add(each, 100)
    for each in reversed(reports):
        other.add(each, 100)
    for group in ("north", "south"):
        for number in (1, 2):
            sums = [usage.groups[group].by_hour[usage.contents.index(content(number))].sum() for usage in (one, other)]
            assert sums[0] == sums[1]


def test_days_and_hours_fade() -> None:
    usage = Usage()
    usage.add(report(100, {1: 8}), 100)
    usage.advance(101)
    assert usage.groups["north"].recent[0] == pytest.approx(8 * HOUR_FADES)
    usage.advance(124)
    group = usage.groups["north"]
    assert group.by_hour[0, 100 % 24] == pytest.approx(8 * DAY_FADES)
    assert group.weights[100 % 24] == pytest.approx(DAY_FADES + 1)


@pytest.mark.parametrize(
    ("hour", "is_taken"), [(100, True), (101, False), (100 - LATEST_HOURS, True), (99 - LATEST_HOURS, False)]
)
def test_report_too_late_or_of_an_hour_to_come_is_not_taken(hour: int, is_taken: bool) -> None:
    usage = Usage()
    usage.add(report(100, {1: 1}), 100)
    assert usage.add(report(hour, {2: 1}), 100) is is_taken
    assert (content(2) in usage.contents) is is_taken
    assert usage.hour == 100


def test_late_report_counts_for_its_own_hour() -> None:
    usage = Usage()
    usage.add(report(100, {1: 1}), 100)
    usage.add(report(98, {2: 10}), 100)
    group = usage.groups["north"]
    assert group.by_hour[1, 98 % 24] == 10
    assert group.recent[1] == pytest.approx(10 * HOUR_FADES**2)


def test_one_group_too_many_is_not_taken() -> None:
    usage = Usage(max_groups=1)
    assert usage.add(report(1, {1: 1}, group="north"), 1)
    assert not usage.add(report(1, {1: 1}, group="south"), 1)
    assert list(usage.groups) == ["north"]


def test_much_asked_contents_outlive_a_flood_of_others() -> None:
    usage = Usage(max_contents=20)
    usage.add(report(1, {1: 50}), 1)
    for hour in range(2, 40):
        usage.add(report(hour, {hour * 100 + number: 1 for number in range(9)}), hour)
    assert content(1) in usage.contents
    row = usage.contents.index(content(1))
    assert usage.groups["north"].by_hour[row].sum() == pytest.approx(50 * DAY_FADES)


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.dictionaries(st.integers(0, 80), st.integers(1, 9), max_size=30)), max_size=20
    )
)
def test_memory_is_bounded(steps) -> None:
    usage, hour = Usage(max_contents=16), 50
    for ahead, counts in steps:
        hour += ahead
        usage.add(report(hour, counts), hour)
        assert len(usage.contents) <= 16
        assert len(set(usage.contents)) == len(usage.contents)
        assert set(usage.texts) <= set(usage.contents)
        for group in usage.groups.values():
            assert np.all(group.by_hour[len(usage.contents) :] == 0)


def test_long_silence_is_passed_over_quickly() -> None:
    usage = Usage()
    usage.add(report(1, {1: 5}), 1)
    usage.advance(10**9)
    assert usage.hour == 10**9
    assert usage.groups["north"].recent[0] == pytest.approx(0, abs=1e-6)
