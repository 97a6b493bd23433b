from __future__ import annotations

from coordinator.preloading.forecaster import MIN_AT_EDGE, MIN_IN_FLEET, Forecaster, Judged
from coordinator.preloading.reports import UsageReport
from tests.coordinator.preloading.test_reports import content

DAY = 24
FIRST = 20_000 * DAY


def report(
    hour: int, counts: dict[str, int], *, edge: str = "edge-1", group: str = "north", made: tuple[str, ...] = ()
) -> UsageReport:
    return UsageReport(
        edge_id=edge,
        group=group,
        hour=hour,
        counts={content(name): count for name, count in counts.items()},
        texts={content(name): f"zh {name}" for name in counts},
        made=tuple(content(name) for name in made),
    )


def days_of(forecaster: Forecaster, days: int, counts: dict[str, int], *, edges: int = 1) -> int:
    """Report the same at 8:00 of each day and return that hour of the day after."""
    for day in range(days):
        hour = FIRST + day * DAY + 8
        for edge in range(edges):
            assert forecaster.take(report(hour, counts, edge=f"edge-{edge}"), hour)
    return FIRST + days * DAY + 8


def test_what_is_asked_each_day_at_this_hour_is_foretold_with_its_words() -> None:
    forecaster = Forecaster()
    hour = days_of(forecaster, 5, {"weather": 40, "rare": 1})
    told = {content.key: content for content in forecaster.foresee(hour)["north"]}
    assert told[content("weather")].at_edge > 0.95
    assert told[content("weather")].text == "zh weather"
    assert told[content("weather")].in_fleet < 0.6, "nothing is made by habit alone"
    at_night = {content.key: content for content in forecaster.foresee(hour + 14)["north"]}
    assert content("weather") not in at_night or at_night[content("weather")].expected < 1


def test_what_was_asked_an_hour_ago_is_sure_enough_to_be_made() -> None:
    forecaster = Forecaster()
    hour = days_of(forecaster, 5, {"weather": 40})
    forecaster.take(report(hour - 1, {"weather": 40}), hour - 1)
    told = forecaster.foresee(hour)["north"][0]
    assert told.in_fleet >= told.at_edge > 0.9


def test_an_edge_of_many_is_asked_less_than_its_group() -> None:
    one, many = Forecaster(), Forecaster()
    alone = one.foresee(days_of(one, 5, {"a": 6}))["north"][0]
    among = many.foresee(days_of(many, 5, {"a": 6}, edges=6))["north"][0]
    assert among.in_fleet >= alone.in_fleet
    assert 0.5 < among.expected / alone.expected < 2


def test_what_pays_nowhere_is_not_told() -> None:
    forecaster = Forecaster()
    hour = days_of(forecaster, 3, {"often": 50} | {f"once-{number}": 1 for number in range(500)})
    told = forecaster.foresee(hour)["north"]
    assert content("often") in {each.key for each in told}
    assert all(each.at_edge >= MIN_AT_EDGE or each.in_fleet >= MIN_IN_FLEET for each in told)


def test_what_was_made_and_not_asked_for_is_wasted() -> None:
    forecaster = Forecaster()
    hour = days_of(forecaster, 3, {"a": 5, "b": 5})
    forecaster.foresee(hour)
    forecaster.take(report(hour, {"c": 1}, edge="edge-1", made=("a", "b")), hour)
    forecaster.take(report(hour, {"a": 1}, edge="edge-2", group="south"), hour)
    assert forecaster.judge() == Judged(made=2, wasted=1)
    assert forecaster.judge() == Judged(made=0, wasted=0)


def test_forecasts_that_do_not_come_true_are_believed_less() -> None:
    sure, doubted = Forecaster(), Forecaster()
    names = {f"n{number}": 3 for number in range(200)}
    for forecaster in (sure, doubted):
        days_of(forecaster, 4, names)
    for day in range(4, 7):
        hour = FIRST + day * DAY + 8
        for forecaster, counts in ((sure, names), (doubted, {"other": 600})):
            forecaster.foresee(hour)
            forecaster.take(report(hour, counts), hour)
            forecaster.judge()
    kept = max(each.at_edge for each in sure.foresee(FIRST + 7 * DAY + 8)["north"])
    fell = [each.at_edge for each in doubted.foresee(FIRST + 7 * DAY + 8)["north"] if each.key != content("other")]
    assert kept > max(fell, default=0.0)


def test_a_report_of_another_time_or_edge_to_come_is_not_taken() -> None:
    forecaster = Forecaster()
    assert not forecaster.take(report(FIRST + 5, {"a": 1}), FIRST + 4)
    assert forecaster.take(report(FIRST + 5, {"a": 1}), FIRST + 5)
    assert not forecaster.take(report(FIRST, {"a": 1}), FIRST + 5)


def test_an_empty_fleet_is_told_nothing() -> None:
    forecaster = Forecaster()
    assert forecaster.foresee(FIRST) == {}
    assert forecaster.judge() == Judged(made=0, wasted=0)
