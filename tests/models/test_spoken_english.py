from __future__ import annotations

import pytest

from models.normalize import normalize
from models.spoken_english import english


@pytest.mark.parametrize(
    ("written", "spoken"),
    [
        ("9:05 am", "9 oh 5 am"),
        ("12:00 PM", "12 PM"),
        ("0:30", "0 30"),
        ("20:05:09", "20 oh 5 and 9 seconds"),
        ("12/31/1998", "December 31, 1998"),
        ("2024-13-01", "2024 13 01"),
        ("the 1990s", "the 1990s"),
        ("2024-2025", "2024 to 2025"),
        ("call 555-1234", "call 5 5 5, 1 2 3 4"),
        ("+1 (555) 123-4567", "1, 5 5 5, 1 2 3, 4 5 6 7"),
        ("1/2 cup", "one half cup"),
        ("3/4", "three quarters"),
        ("24/7", "24 7"),
        ("½", "one half"),
        ("70%-80%", "70 percent to 80 percent"),
        ("5‰", "5 per mille"),
        ("-5~3°C", "minus 5 to 3 degrees Celsius"),
        ("1 kg", "1 kilogram"),
        ("1 km/h", "1 kilometer per hour"),
        ("1 ft", "1 foot"),
        ("1°C", "1 degree Celsius"),
        ("1 Hz", "1 hertz"),
        ("10 m²", "10 square meters"),
        ("2.4GHz", "2.4 gigahertz"),
        ("$1", "1 dollar"),
        ("$1.50", "1.50 dollars"),
        ("$1,299.00", "1299 dollars"),
        ("$1.5M", "1.5 million dollars"),
        ("£3 million", "3 million pounds"),
        ("¥3.5万", "35000 yuan"),
        ("¥2亿", "200 million yuan"),
        ("#5 and No. 1", "number 5 and number 1"),
        ("16:9", "16 to 9"),
        ("~5", "about 5"),
        ("3 > 2", "3 is more than 2"),
        ("2^10", "2 to the power of 10"),
        ("x²", "x squared"),
        ("√2", "the root of 2"),
        ("π", "pi"),
        ("<i>so</i> what", "so what"),
        ("A4 at 10 s", "A4 at 10 seconds"),
        ("AT&T", "AT and T"),
    ],
)
def test_numbers_units_and_signs_become_what_espeak_reads_well(written, spoken):
    assert normalize(written, "en") == spoken


def test_text_of_another_script_is_nothing_to_say():
    assert english("привет") == ""
