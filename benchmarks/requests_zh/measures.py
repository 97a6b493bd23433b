"""Units, clocks and calendars: conversions, times of day, weekdays and dates, computed here."""

from __future__ import annotations

import random
from datetime import date, timedelta

from benchmarks.requests_zh.request import Draft
from benchmarks.requests_zh.speech import counted, said

WEEKDAYS = ("一", "二", "三", "四", "五", "六", "日")
_WEEKDAY_FORMS = tuple(
    f"星期{day}/周{day}/礼拜{day}" + ("/星期天/周天/礼拜天" if day == "日" else "") for day in WEEKDAYS
)
_DAY_MINUTES = 720
_FIRST_DAY = date(2023, 1, 1)
"""A year without a leap day, so that dates are right in most years."""

Conversion = tuple[str, str, float, tuple[float, ...]]
_WEIGHTS: tuple[Conversion, ...] = (
    ("斤", "克", 500, (1, 3, 4, 6)),
    ("公斤", "斤", 2, (3, 7.5, 12, 25)),
    ("吨", "公斤", 1000, (2, 3.5, 6)),
    ("两", "克", 50, (3, 5, 8)),
    ("公斤", "克", 1000, (1.5, 4, 9)),
)
_LENGTHS: tuple[Conversion, ...] = (
    ("米", "厘米", 100, (1.8, 3, 4.5)),
    ("公里", "米", 1000, (2, 3.6, 10)),
    ("厘米", "毫米", 10, (7, 12.5, 30)),
    ("里地", "米", 500, (3, 8)),
    ("米", "分米", 10, (5, 2.5)),
    ("公里", "里", 2, (6, 15)),
)
_TIMES: tuple[Conversion, ...] = (
    ("个小时", "分钟", 60, (2, 3, 5, 8)),
    ("分钟", "秒", 60, (3, 5, 12)),
    ("天", "小时", 24, (2, 3, 5)),
    ("年", "个月", 12, (2, 5, 10)),
    ("个星期", "天", 7, (3, 6, 9)),
)
_AMOUNTS: tuple[Conversion, ...] = (
    ("升", "毫升", 1000, (1.5, 2, 3)),
    ("平方米", "平方分米", 100, (2, 5)),
    ("块钱", "毛", 10, (3, 4.5, 12)),
    ("块钱", "分钱", 100, (2, 5)),
    ("亩", "平方米", 666.7, (1, 2)),
    ("平方公里", "公顷", 100, (1, 3)),
)


def _converted(rng: random.Random, conversions: tuple[Conversion, ...]) -> Draft:
    big, small, ratio, amounts = rng.choice(conversions)
    amount = rng.choice(amounts)
    text = rng.choice(("{}等于多少{}？", "{}是多少{}？", "{}换算过来是多少{}？"))
    gold = amount * ratio
    return Draft(
        text=text.format(counted(amount, big) if big != "两" else said(amount) + big, small),
        gold=round(gold, 3),
        grader="number",
        tolerance=gold * 0.01 if ratio % 1 else 0.0,
    )


def weight(rng: random.Random) -> Draft:
    """Weights, Chinese ones too."""
    return _converted(rng, _WEIGHTS)


def length(rng: random.Random) -> Draft:
    """Lengths, Chinese ones too."""
    return _converted(rng, _LENGTHS)


def duration(rng: random.Random) -> Draft:
    """Hours, minutes, seconds, years."""
    return _converted(rng, _TIMES)


def amount(rng: random.Random) -> Draft:
    """Volume, area and money."""
    return _converted(rng, _AMOUNTS)


def clock_said(minutes: int) -> str:
    """Return a time of day as it is said: 220 as 三点四十."""
    hour, minute = divmod(minutes, 60)
    name = "两" if hour == 2 else said(hour)  # noqa: PLR2004 - two o'clock is 两点
    if not minute:
        return f"{name}点"
    return f"{name}点半" if minute == 30 else f"{name}点{'零' if minute < 10 else ''}{said(minute)}"  # noqa: PLR2004


def _clock(text: str, minutes: int) -> Draft:
    hour, minute = divmod((minutes - 60) % _DAY_MINUTES + 60, 60)
    return Draft(text=text, gold=(f"{hour}:{minute:02}",), grader="clock")


def clock_later(rng: random.Random) -> Draft:
    """A time some minutes after another."""
    start, later = 60 * rng.randint(1, 11) + 5 * rng.randint(0, 11), 5 * rng.randint(3, 17)
    text = rng.choice(
        ("现在{}，再过{}分钟是几点？", "{}开始的节目，放{}分钟，几点结束？", "要是{}把汤炖上，炖{}分钟，几点能关火？")
    )
    return _clock(text.format(clock_said(start), said(later)), start + later)


def clock_earlier(rng: random.Random) -> Draft:
    """A time some minutes before another."""
    end, before = 60 * rng.randint(3, 12) + 5 * rng.randint(0, 11), 5 * rng.randint(3, 16)
    text = rng.choice(("我{}要到公司，路上要{}分钟，最晚几点出门？", "电影{}散场，一共演了{}分钟，是几点开始的？"))
    return _clock(text.format(clock_said(end), said(before)), end - before)


def arrival(rng: random.Random) -> Draft:
    """A time some hours and minutes after another."""
    start, hours, minutes = 60 * rng.randint(6, 9) + 5 * rng.randint(1, 11), rng.randint(1, 4), 5 * rng.randint(1, 11)
    text = f"火车上午{clock_said(start)}开，路上要{counted(hours, '个小时')}{said(minutes)}分钟，几点到？"
    return _clock(text, start + 60 * hours + minutes)


def time_span(rng: random.Random) -> Draft:
    """Minutes between two times."""
    start, span = 60 * rng.randint(1, 9) + 5 * rng.randint(0, 11), 5 * rng.randint(5, 38)
    text = rng.choice(("从{}到{}总共多少分钟？", "{}开始上课，{}下课，这节课上了多少分钟？"))
    end = start + span
    return Draft(text=text.format(clock_said(start), clock_said(end)), gold=span, grader="number", unit="分钟")


def _weekday(text: str, index: int) -> Draft:
    gold = _WEEKDAY_FORMS[index % 7]
    rivals = tuple(forms for forms in _WEEKDAY_FORMS if forms != gold)
    return Draft(text=text, gold=tuple(gold.split("/")), grader="category", rivals=rivals)


def weekday_after(rng: random.Random) -> Draft:
    """The weekday so many days after one."""
    start, days = rng.randrange(7), rng.choice([each for each in range(3, 60) if each % 7])
    text = f"今天是星期{WEEKDAYS[start]}，{said(days)}天以后是星期几？"
    return _weekday(text, start + days)


def weekday_before(rng: random.Random) -> Draft:
    """The weekday so many days before one."""
    start, days = rng.randrange(7), rng.choice([each for each in range(3, 30) if each % 7])
    return _weekday(f"今天星期{WEEKDAYS[start]}，{said(days)}天以前是星期几？", start - days)


def weekday_named(rng: random.Random) -> Draft:
    """Weekdays by 昨天 and 后天."""
    days = {"大前天": -3, "前天": -2, "昨天": -1, "今天": 0, "明天": 1, "后天": 2, "大后天": 3}
    (a, a_day), (b, b_day) = rng.sample(list(days.items()), 2)
    start = rng.randrange(7)
    return _weekday(f"如果{a}是星期{WEEKDAYS[start]}，那{b}是星期几？", start + b_day - a_day)


def weekday_of_month(rng: random.Random) -> Draft:
    """The weekday of a day in a month whose first is known."""
    start, day = rng.randrange(7), rng.choice([each for each in range(4, 30) if (each - 1) % 7])
    return _weekday(f"这个月一号是星期{WEEKDAYS[start]}，{said(day)}号是星期几？", start + day - 1)


def date_after(rng: random.Random) -> Draft:
    """The date so many days after one, into the next month."""
    month, days = rng.randint(1, 11), rng.randint(4, 12)
    first = _FIRST_DAY.replace(month=month % 12 + 1) - timedelta(days=rng.randint(1, days - 2))
    then = first + timedelta(days=days)
    text = f"今年不是闰年，{said(first.month)}月{said(first.day)}号再过{said(days)}天是几月几号？"
    return Draft(text=text, gold=(f"{then.month}-{then.day}",), grader="date")


def days_between(rng: random.Random) -> Draft:
    """Days from one date to another."""
    first = _FIRST_DAY + timedelta(days=rng.randint(62, 270))
    days = rng.randint(9, 45)
    last = first + timedelta(days=days)
    text = f"今天{said(first.month)}月{said(first.day)}号，离{said(last.month)}月{said(last.day)}号还有几天？"
    return Draft(text=text, gold=days, grader="number")


def leap_year(rng: random.Random) -> Draft:
    """Whether a year has 366 days."""
    year = rng.choice((1900, 1996, 2000, 2004, 2010, 2014, 2016, 2018, 2020, 2022, 2023, 2024, 2025, 2028, 2030, 2100))
    is_leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    digits = "".join(said(int(digit)) for digit in str(year))
    return Draft(
        text=f"{digits}年是闰年吗？",
        gold=("yes" if is_leap else "no", *(() if is_leap else ("平年",))),
        grader="yes-no",
    )


def age_from_years(rng: random.Random) -> Draft:
    """An age from two years."""
    born, age = rng.randint(1948, 1999), rng.randint(18, 75)
    year = "".join(said(int(digit)) for digit in str(born))
    then = "".join(said(int(digit)) for digit in str(born + age))
    return Draft(text=f"{year}年出生的人到{then}年过完生日是多少周岁？", gold=age, grader="number")


MEASURES = {
    "weight-units": (weight, 8),
    "length-units": (length, 8),
    "time-units": (duration, 8),
    "other-units": (amount, 8),
    "clock-later": (clock_later, 8),
    "clock-earlier": (clock_earlier, 8),
    "arrival": (arrival, 8),
    "time-span": (time_span, 8),
    "weekday-after": (weekday_after, 8),
    "weekday-before": (weekday_before, 8),
    "weekday-named": (weekday_named, 8),
    "weekday-of-month": (weekday_of_month, 8),
    "date-after": (date_after, 8),
    "days-between": (days_between, 8),
    "leap-year": (leap_year, 8),
    "age-from-years": (age_from_years, 8),
}
"""Group, what makes a draft of it, and how many there are."""
