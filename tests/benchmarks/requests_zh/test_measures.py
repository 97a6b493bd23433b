from __future__ import annotations

import random
import re
from datetime import date, timedelta

import pytest

from benchmarks.requests_zh.grading import clocks_in, is_right
from benchmarks.requests_zh.measures import MEASURES, WEEKDAYS, clock_said
from benchmarks.requests_zh.numerals import numbers_in, value_of
from benchmarks.requests_zh.request import Draft, Request
from coordinator.routing.signals import Kind

SEEDS = range(60)


def drafts(group: str) -> list[Draft]:
    maker, _ = MEASURES[group]
    return [maker(random.Random(seed)) for seed in SEEDS]


def forms(draft: Draft) -> tuple[str, ...]:
    assert isinstance(draft.gold, tuple)
    return draft.gold


@pytest.mark.parametrize(
    ("minutes", "words"),
    [(220, "三点四十"), (120, "两点"), (185, "三点零五"), (390, "六点半"), (720, "十二点")],
)
def test_a_time_is_said_as_people_do(minutes: int, words: str) -> None:
    assert clock_said(minutes) == words
    assert clocks_in(words) == [minutes % 720]


@pytest.mark.parametrize(("group", "sign"), [("clock-later", 1), ("clock-earlier", -1)])
def test_the_clock_moves_by_the_minutes_told(group: str, sign: int) -> None:
    for draft in drafts(group):
        told = clocks_in(draft.text)[0]
        minutes = [
            value_of(words)
            for words in re.findall("[要放炖过]了?([二三四五六七八九十]+|十[一二三四五六七八九]?)分钟|$", draft.text)
            if words
        ] or [value_of(words) for words in re.findall("一共演了([一二三四五六七八九十]+)分钟", draft.text)]
        assert clocks_in(forms(draft)[0]) == [(told + sign * minutes[0]) % 720], draft.text


def test_a_train_arrives_after_its_hours_and_minutes() -> None:
    for draft in drafts("arrival"):
        start = clocks_in(draft.text)[0]
        hours, minutes = re.findall("要(.+?)个小时(.+?)分钟", draft.text)[0]
        assert clocks_in(forms(draft)[0]) == [(start + 60 * value_of(hours) + value_of(minutes)) % 720]


def test_a_span_is_the_difference_of_its_times() -> None:
    for draft in drafts("time-span"):
        first, last = clocks_in(draft.text)
        assert (last - first) % 720 == draft.gold


@pytest.mark.parametrize(("group", "sign"), [("weekday-after", 1), ("weekday-before", -1)])
def test_a_weekday_moves_by_the_days_told(group: str, sign: int) -> None:
    for draft in drafts(group):
        start = WEEKDAYS.index(re.findall("星期(.)", draft.text)[0])
        days = value_of(re.findall("，(.+?)天以", draft.text)[0])
        assert forms(draft)[0] == f"星期{WEEKDAYS[int(start + sign * days) % 7]}"
        assert len(draft.rivals) == 6


def test_a_leap_year_has_a_29th_of_february() -> None:
    for draft in drafts("leap-year"):
        year = int(value_of(re.findall("^(.+?)年", draft.text)[0]))
        is_leap = (date(year, 3, 1) - timedelta(days=1)).day == 29
        assert forms(draft)[0] == ("yes" if is_leap else "no")


def test_dates_are_the_calendars() -> None:
    for draft in drafts("date-after"):
        month, day, days = [value_of(words) for words in re.findall("，(.+?)月(.+?)号再过(.+?)天", draft.text)[0]]
        then = date(2023, int(month), int(day)) + timedelta(days=int(days))
        assert forms(draft) == (f"{then.month}-{then.day}",)
        assert then.month != month
    for draft in drafts("days-between"):
        numbers = [int(found.value) for found in numbers_in(draft.text)]
        assert (date(2023, numbers[2], numbers[3]) - date(2023, numbers[0], numbers[1])).days == draft.gold


@pytest.mark.parametrize("group", ["weight-units", "length-units", "time-units", "other-units", "age-from-years"])
def test_a_conversion_is_right_when_said_and_wrong_when_ten_times(group: str) -> None:
    for draft in drafts(group):
        assert isinstance(draft.gold, float | int)
        request = Request(
            id="r",
            kind=Kind.ARITHMETIC,
            group=group,
            text=draft.text,
            gold=float(draft.gold),
            grader="number",
            tolerance=draft.tolerance,
        )
        assert is_right(request, f"等于{draft.gold:g}")
        assert not is_right(request, f"等于{draft.gold * 10:g}")


@pytest.mark.parametrize(
    ("words", "gold"),
    [("一亩", 666.7), ("三公斤", 6), ("三里地", 1500), ("八两", 400), ("两个小时", 120), ("四点五块钱", 45)],
)
def test_chinese_units_have_their_size(words: str, gold: float) -> None:
    golds = {
        draft.gold
        for group in ("weight-units", "length-units", "time-units", "other-units")
        for seed in range(400)
        if (draft := MEASURES[group][0](random.Random(seed))).text.startswith(words)
    }
    assert gold in golds
