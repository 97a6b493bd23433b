from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.cache.keys import normalise
from coordinator.cache.meaning_numbers import value_of, with_digits


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("二十", "20"),
        ("一百零二", "102"),
        ("一百二", "120"),
        ("一万二", "12000"),
        ("一千两百", "1200"),
        ("三百六十五", "365"),
        ("二零零八年", "2008年"),
        ("三点一四", "3.14"),
        ("百分之二十", "20%"),
        ("20%", "20%"),
        ("百分之20%", "百分之20%"),
        ("三分之一", "1/3"),
        ("负三加五", "-3+5"),
        ("12乘以3", "12*3"),
        ("十除以二", "10/2"),
        ("1万", "10000"),
        ("1,000", "1000"),
        ("两个", "2个"),
        ("第三十回", "第30回"),
    ],
)
def test_a_number_is_written_in_digits(text: str, digits: str) -> None:
    assert with_digits(normalise(text)) == normalise(digits)


@pytest.mark.parametrize(
    "text",
    ["三五个人", "二三十", "一两酒", "万一", "千米", "三点五分", "三点二十", "百货", "二十三十", "零零", "一万十"],
)
def test_what_has_several_readings_stays(text: str) -> None:
    written = with_digits(text)
    assert all(numeral in written for numeral in text if numeral in "两百千万" or text in {"三五个人", "二三十"})
    assert written not in {"12酒", "35个人", "3.5分", "2030"}


def test_three_fifths_is_not_five_thirds() -> None:
    assert with_digits("五分之三") == "3/5"
    assert with_digits("三分之五") == "5/3"


@given(st.integers(min_value=1, max_value=99_999_999))
def test_every_number_is_read_back(number: int) -> None:
    assert value_of(_spoken(number)) == number


@given(st.text(alphabet="零〇一二两三四五六七八九十百千万亿点分之负加减0123.%", max_size=20))
def test_any_numerals_are_written_without_raising(text: str) -> None:
    assert isinstance(with_digits(normalise(text)), str)


def _spoken(number: int) -> str:
    if number >= 10_000:
        rest = number % 10_000
        return _spoken(number // 10_000) + "万" + ("零" if 0 < rest < 1000 else "") + (_spoken(rest) if rest else "")
    spoken, is_gap = "", False
    for place, name in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit = number // place % 10
        if digit:
            spoken += ("零" if is_gap and spoken else "") + "零一二三四五六七八九"[digit] + name
        is_gap = not digit
    return spoken
