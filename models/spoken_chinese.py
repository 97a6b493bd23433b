"""Chinese as it is written to Chinese as it is said: numbers, dates, times, units and prices in words."""

from __future__ import annotations

import re
from collections.abc import Callable

from models.units import MONEY, NUMBER, PHONE, PRICE, SCALES, SIGNS, UNIT, UNITS, scaled

_DIGITS = "零一二三四五六七八九"
_MYRIADS = ("", "万", "亿", "万亿")
_LONGEST_CARDINAL = 16
"""Digits ``_MYRIADS`` can name; longer numbers are read digit by digit."""
_SHORTEST_SERIAL = 8
"""From this many digits on, a number that is not round is a telephone or serial number (a guess)."""

_CHINESE = re.compile(r"[〇㐀-䶿一-鿿]")
_UNSPEAKABLE = re.compile(r"[^〇㐀-䶿一-鿿A-Za-z，。！？；：、 ]+")
_PAUSES = str.maketrans({",": "，", "!": "！", "?": "？", ";": "；", ":": "：", "…": "。", "\n": "。", "—": "，"})


def chinese(text: str) -> str:
    """Return NFKC ``text`` without markup as Chinese characters, Latin letters and ，。！？；：、, "" if nothing is speakable."""
    text = _written_out(text)
    for sign, (word, _) in SIGNS.items():
        text = text.replace(sign, word)
    text = re.sub(r"\.(?=\s|$)", "。", text.translate(_PAUSES))
    text = _UNSPEAKABLE.sub(" ", text)
    text = re.sub(r"\s*([，。！？；：、])[，。！？；：、\s]*", r"\1", re.sub(r"\s+", " ", text))
    text = re.sub(r"(?<![A-Za-z]) | (?![A-Za-z])", "", text).lstrip("，。！？；：、")
    return text if re.search(r"[A-Za-z]", text) or _CHINESE.search(text) else ""


def cardinal(digits: str) -> str:
    """Return decimal ``digits`` in Chinese: "10086" as 一万零八十六; digit by digit when it has a leading zero or is too long."""
    if len(digits) > _LONGEST_CARDINAL or (len(digits) > 1 and digits[0] == "0"):
        return _one_by_one(digits)
    groups = [digits[max(end - 4, 0) : end] for end in range(len(digits), 0, -4)]
    spoken = ""
    for place, group in reversed(list(enumerate(groups))):
        if not int(group):
            continue
        gap = spoken and (group[0] == "0" or not int(groups[place + 1]))
        spoken += ("零" if gap else "") + _below_ten_thousand(int(group)) + _MYRIADS[place]
    return re.sub("^一十", "十", spoken) or "零"


def _below_ten_thousand(number: int) -> str:
    spoken = ""
    for unit, name in ((1000, "千"), (100, "百"), (10, "十"), (1, "")):
        digit = number // unit % 10
        if digit:
            spoken += _DIGITS[digit] + name
        elif spoken and not spoken.endswith("零") and number % unit:
            spoken += "零"
    return spoken


def _one_by_one(digits: str) -> str:
    return "".join(_DIGITS[int(digit)] for digit in digits if digit.isdecimal())


def _number(text: str) -> str:
    integer, _, fraction = text.partition(".")
    serial = not fraction and len(integer) >= _SHORTEST_SERIAL and not integer.endswith("0000")
    spoken = _one_by_one(integer) if serial else cardinal(integer)
    return spoken + ("点" + _one_by_one(fraction) if fraction else "")


def _clock(match: re.Match[str]) -> str:
    hour, minute, second = match.group(1), match.group(2), match.group(3)
    spoken = ("两" if int(hour) == 2 else cardinal(str(int(hour)))) + "点"  # noqa: PLR2004 - two o'clock is 两点
    if int(minute) or second:
        spoken += ("零" if minute[0] == "0" else "") + cardinal(str(int(minute))) + "分"
    return spoken + (cardinal(str(int(second))) + "秒" if second else "")


def _day(match: re.Match[str]) -> str:
    return f"{_one_by_one(match[1])}年{cardinal(str(int(match[2])))}月{cardinal(str(int(match[3])))}日"


def _price(match: re.Match[str]) -> str:
    amount, scale, currency = match[2], match[3] or "", MONEY[match[1]][0]
    if _CHINESE.match(scale):
        return scaled(amount, 0) + scale + currency
    return scaled(amount, SCALES.get(scale, 0)) + currency


def _half_of_day(match: re.Match[str]) -> str:
    half = "上午" if (match["before"] or match["after"])[0] in "aA" else "下午"
    hour = match["time"] or match["time2"]
    return half + (hour if ":" in hour else f"{hour}点")


_DATE = re.compile(r"(?<!\d)(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})(?!\d)")
_TIME = re.compile(r"(?<![\d:])([01]?\d|2[0-4]):([0-5]\d)(?::([0-5]\d))?(?![\d:])")
_RANGE = re.compile(r"(?<=[\d%°元年月日号时点分秒个天岁级度米斤克升])\s*[-~]\s*(?=\d)")
_HALF = re.compile(
    r"(?<![A-Za-z])(?P<before>[AaPp]\.?[Mm]\.?)\s*(?P<time>\d{1,2}(?::\d{2})?)(?![\d:])"
    r"|(?<![\d:])(?P<time2>\d{1,2}(?::\d{2})?)\s*(?P<after>[AaPp]\.?[Mm])(?![A-Za-z])"
)

_Rules = tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...]
_BEFORE_RANGES: _Rules = (
    (PHONE, lambda match: _one_by_one(match[0])),
    (re.compile(r"(?<=[拨打话线叫])(\s*)(\d{3,5})(?![\d.:个次位年月日元点分])"), lambda match: _one_by_one(match[2])),
    (re.compile(r"(?<!\d)(1(?:10|14|19|20|22))(?=急救|报警|火警|电话|热线|查询)"), lambda match: _one_by_one(match[1])),
    (_DATE, _day),
    (PRICE, _price),
    (UNIT, lambda match: match[1] + UNITS[match[2]][0]),
    (
        re.compile(r"(?<!\d)(\d{4})年?\s*[-~到至]\s*(\d{4})\s*(?=年)"),
        lambda m: f"{_one_by_one(m[1])}到{_one_by_one(m[2])}",
    ),
    (re.compile(r"(?<![\d.])\d+(?:\.\d+){2,}"), lambda match: "点".join(map(_one_by_one, match[0].split(".")))),
    (re.compile(r"(?<!\d)(\d{3}0)s(?![A-Za-z])"), lambda match: _one_by_one(match[1]) + "年代"),
    (re.compile(r"(?<!\d)([05-9][05]|10)(?=后)"), lambda match: _one_by_one(match[1])),
    (re.compile(r"(?<![\d%A-Za-z])[~≈]\s*(?=\d)"), lambda _match: "约"),
    (re.compile(r"(?<![A-Za-z])No\.?\s*(?=\d)|第(?=\d)"), lambda _match: "第"),
    (re.compile(r"#(\d+)"), lambda match: match[1] + "号"),
)
_NUMBERS: _Rules = (
    (_TIME, _clock),
    (re.compile(r"(?<!\d)(\d{4})(?=\s*年)"), lambda match: _one_by_one(match[1])),
    (re.compile(rf"({NUMBER})\s*%"), lambda match: "百分之" + _number(match[1])),
    (re.compile(rf"({NUMBER})\s*‰"), lambda match: "千分之" + _number(match[1])),
    (re.compile(r"(\d+)\s*/\s*(\d+)"), lambda match: f"{_number(match[2])}分之{_number(match[1])}"),
    (re.compile(r"(?<=\d)([^\s\d/]{1,2})/(?=[一-鿿])"), lambda match: match[1] + "每"),
    (re.compile(r"(?<=[一-鿿])/(?=[一-鿿])"), lambda _match: "或"),
    (re.compile(r"\^(\d+)"), lambda match: {"2": "的平方", "3": "的立方"}.get(match[1], f"的{_number(match[1])}次方")),
    (re.compile(r"(\d)\s*:\s*(?=\d)"), lambda match: match[1] + "比"),
    (re.compile(r"(?<![A-Za-z0-9.)])-(?=\d)"), lambda _match: "负"),
    (re.compile(r"(?<![\d.第])2(?=[个只条本次天位杯瓶块种件家岁点年周倍米元])"), lambda _match: "两"),
    (re.compile(NUMBER), lambda match: _number(match[0])),
)


def _written_out(text: str) -> str:
    for pattern, spoken in _BEFORE_RANGES:
        text = pattern.sub(spoken, text)
    text = _HALF.sub(_half_of_day, text)
    text = _RANGE.sub("减" if "=" in text else "到", text)
    for pattern, spoken in _NUMBERS:
        text = pattern.sub(spoken, text)
    return text
