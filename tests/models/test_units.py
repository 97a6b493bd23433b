from __future__ import annotations

import re

import pytest

from models.units import MONEY, PHONE, SCALES, SIGNS, UNIT, UNITS, scaled


@pytest.mark.parametrize("unit", UNITS)
def test_every_unit_behind_a_number_is_found_whole(unit):
    match = UNIT.search(f"about 2.5 {unit}.")
    assert match is not None
    assert match.groups() == ("2.5", unit)


@pytest.mark.parametrize("text", ["5 kgs", "v1.2.3s", "the 1990s", "5G", "3D", "m"])
def test_what_only_looks_like_a_unit_is_not_one(text):
    assert UNIT.search(text) is None


def test_every_word_can_be_spoken():
    for chinese, english in [*UNITS.values(), *MONEY.values(), *SIGNS.values()]:
        assert re.fullmatch(r"[一-鿿]+", chinese)
        assert re.fullmatch(r"[A-Za-z ]+", english)


@pytest.mark.parametrize(
    ("amount", "power", "plain"),
    [("1.50", 3, "1500"), ("1299.00", 0, "1299"), ("0.99", 0, "0.99"), ("3.5", 4, "35000"), ("1.2345", 3, "1234.5")],
)
def test_scaled_amounts_are_plain_numbers(amount, power, plain):
    assert scaled(amount, power) == plain


@pytest.mark.parametrize("amount", ["9" * 80, "0." + "1" * 60, "0"])
def test_any_amount_can_be_scaled(amount):
    assert all(re.fullmatch(r"\d+(?:\.\d+)?", scaled(amount, power)) for power in SCALES.values())


@pytest.mark.parametrize("text", ["3-5", "2024-2025", "2024-05-01", "10-20-30", "1-800", "123-45"])
def test_ranges_and_dates_are_no_telephone_numbers(text):
    assert PHONE.search(text) is None
