"""English as it is written to English as espeak-ng reads it well: it knows plain numbers and ordinals, but no units, prices or signs."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

from models.units import MONEY, PHONE, PRICE, SCALES, SIGNS, UNIT, UNITS, scaled

_MONTHS = "January February March April May June July August September October November December".split()  # noqa: SIM905 - a table
_SMALL = "zero one two three four five six seven eight nine".split()  # noqa: SIM905 - a table
_PARTS = {
    2: "half",
    3: "third",
    4: "quarter",
    5: "fifth",
    6: "sixth",
    7: "seventh",
    8: "eighth",
    9: "ninth",
    10: "tenth",
}
_ONE_OF = {
    "feet": "foot",
    "hertz": "hertz",
    "gigahertz": "gigahertz",
    "megahertz": "megahertz",
    "kilohertz": "kilohertz",
}

_POWERS = {3: "thousand", 6: "million", 9: "billion", 12: "trillion"}
_NAMED_FROM = 6
"""Thousands are read well as digits."""

_UNSPEAKABLE = re.compile(r"[^A-Za-z0-9,.!?;:' -]+")
_PAUSES = str.maketrans(
    {"，": ", ", "。": ". ", "！": "! ", "？": "? ", "；": "; ", "：": ": ", "、": ", ", "…": ". ", "’": "'"}
)


def english(text: str) -> str:
    """Return NFKC ``text`` without markup as ASCII letters, digits and marks, "" if nothing is speakable."""
    for pattern, spoken in _RULES:
        text = pattern.sub(spoken, text)
    text = re.sub(r"(?<=\d)\s+-\s+(?=\d)", " minus ", text)
    text = re.sub(r"(?<=\d)[-–~](?=\d)", " minus " if "=" in text else " to ", text)
    text = re.sub(r"\b(percent|per mille|degrees \w+)\s*[-~]\s*(?=\d)", r"\1 to ", text)
    text = re.sub(r"(?<![A-Za-z0-9.)])-(?=\d)", "minus ", text)
    for sign, (_, word) in SIGNS.items():
        text = text.replace(sign, f" {word} ")
    text = "".join(
        mark for mark in unicodedata.normalize("NFD", text.translate(_PAUSES)) if not unicodedata.combining(mark)
    )
    text = _UNSPEAKABLE.sub(" ", text.replace("\n", ". "))
    text = re.sub(r"(?<![A-Za-z])['-]|['-](?![A-Za-z])", " ", text)
    text = re.sub(r"\s+([,.!?;:])", r"\1", re.sub(r"\s+", " ", text))
    text = re.sub(r"([,.!?;:])(?:\s*[,.!?;:])+", r"\1", text).lstrip(",.!?;: ").strip()
    return text if re.search(r"[A-Za-z0-9]", text) else ""


def _date(match: re.Match[str]) -> str:
    year, month, day = (match["y"], match["m"], match["d"]) if match["y"] else (match["y2"], match["m2"], match["d2"])
    if not 1 <= int(month) <= len(_MONTHS):
        return f"{year} {month} {day}"
    return f"{_MONTHS[int(month) - 1]} {int(day)}, {year}"


def _price(match: re.Match[str]) -> str:
    power = SCALES.get(match[3] or "", 0)
    named = power - power % 3 if power >= _NAMED_FROM else 0
    amount = scaled(match[2], power - named)
    currency = MONEY[match[1]][1]
    return f"{amount} {_POWERS[named]} {currency}" if named else f"{amount} {_counted(amount, currency)}"


def _unit(match: re.Match[str]) -> str:
    return f"{match[1]} {_counted(match[1], UNITS[match[2]][1])}"


def _counted(number: str, name: str) -> str:
    """Return the name of one when ``number`` is 1: "square meters" as "square meter"."""
    if number != "1" or name == "yuan":
        return name
    words = name.split(" ")
    plural = next((place for place, word in enumerate(words) if word in _ONE_OF or word.endswith("s")), None)
    if plural is not None:
        words[plural] = _ONE_OF.get(words[plural], words[plural].removesuffix("s"))
    return " ".join(words)


def _time(match: re.Match[str]) -> str:
    hour, minute, second, half = str(int(match[1])), match[2], match[3], match[4] or ""
    if int(minute) or second:
        said = f"{hour} {'oh ' if minute[0] == '0' and int(minute) else ''}{int(minute) or 'hundred'}"
    else:
        said = hour if half else f"{hour} o'clock"
    said += f" and {int(second)} seconds" if second else ""
    return f"{said} {half}".rstrip()


def _fraction(match: re.Match[str]) -> str:
    above, below = int(match[1]), int(match[2])
    if not 0 < above < below or below not in _PARTS:
        return f"{match[1]} {match[2]}"
    part = _PARTS[below]
    return f"{_SMALL[above]} {part if above == 1 else part + 's'}"


def _power(match: re.Match[str]) -> str:
    return {"2": " squared", "3": " cubed"}.get(match[1], f" to the power of {match[1]}")


def _spelled(match: re.Match[str]) -> str:
    """Return a telephone number digit by digit, with a pause where it is written in groups."""
    return ", ".join(" ".join(group) for group in re.findall(r"\d+", match[0]))


_RULES: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (
        re.compile(
            r"(?<!\d)(?:(?P<y>\d{4})[-/.](?P<m>\d{1,2})[-/.](?P<d>\d{1,2})|(?P<m2>\d{1,2})/(?P<d2>\d{1,2})/(?P<y2>\d{4}))(?!\d)"
        ),
        _date,
    ),
    (PHONE, _spelled),
    (PRICE, _price),
    (UNIT, _unit),
    (re.compile(r"\s*%"), lambda _match: " percent"),
    (re.compile(r"\s*‰"), lambda _match: " per mille"),
    (
        re.compile(r"(?<![\d:])([01]?\d|2[0-4]):([0-5]\d)(?::([0-5]\d))?(?:\s*([AaPp]\.?[Mm])(?![A-Za-z]))?(?![\d:])"),
        _time,
    ),
    (re.compile(r"(?<![\d/.])(\d{1,3})/(\d{1,3})(?![\d/])"), _fraction),
    (re.compile(r"(?<=\d):(?=\d)"), lambda _match: " to "),
    (re.compile(r"\^(\d+)"), _power),
    (re.compile(r"#(?=\d)|(?<![A-Za-z])No\.?\s*(?=\d)"), lambda _match: "number "),
    (re.compile(r"(?<![\d%A-Za-z])[~≈]\s*(?=\d)"), lambda _match: "about "),
)
