from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.requests_zh.numerals import numbers_in, value_of
from benchmarks.requests_zh.speech import said


@pytest.mark.parametrize(
    ("numeral", "value"),
    [
        ("8", 8),
        ("八", 8),
        ("十", 10),
        ("十二", 12),
        ("二十", 20),
        ("两百五", 250),
        ("二百五十", 250),
        ("二百零五", 205),
        ("一千零二十", 1020),
        ("一万二", 12000),
        ("三万5千", 35000),
        ("3万", 30000),
        ("1.5亿", 150_000_000),
        ("一亿三千万", 130_000_000),
        ("二零零八", 2008),
        ("三点一四", 3.14),
        ("1,234.5", 1234.5),
        ("负五", -5),
        ("零下十二", -12),
        ("零", 0),
    ],
)
def test_a_numeral_has_its_value(numeral: str, value: float) -> None:
    assert value_of(numeral) == pytest.approx(value)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("一共有三个", [3]),
        ("它们一样重", []),
        ("十分高兴", []),
        ("十分钟", [10]),
        ("考了九十分", [90]),
        ("跳了二十一下", [21]),
        ("星期三", []),
        ("三分之一", [1 / 3]),
        ("2/3", [2 / 3]),
        ("百分之二十", [20]),
        ("20%", [20]),
        ("一半", [0.5]),
        ("两个半小时", [2.5]),
        ("半小时", [0.5]),
        ("5千克等于5000克", [5, 5000]),
        ("第一名", [1]),
        ("夜里-3度", [-3]),
        ("10-3=7", [10, 3, 7]),
        ("三年二班", [3, 2]),
        ("1/0", [0]),
        ("没有", []),
    ],
)
def test_the_numbers_of_a_text_are_found_and_no_others(text: str, values: list[float]) -> None:
    assert [found.value for found in numbers_in(text)] == pytest.approx(values)


@given(st.integers(min_value=0, max_value=99_999_999))
def test_what_is_said_is_read_back(number: int) -> None:
    assert value_of(said(number)) == number


@given(st.text(alphabet="零一两三十百千万亿点分之半负下个百%0123456789.,/-", max_size=30))
def test_any_text_is_read_without_an_error(text: str) -> None:
    assert all(0 <= found.start < found.end <= len(text) for found in numbers_in(text))
