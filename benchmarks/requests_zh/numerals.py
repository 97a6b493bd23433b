"""Numbers in a Chinese answer, in digits or in words, with their values and places; pure."""

from __future__ import annotations

import re

import msgspec

_DIGITS = (
    {digit: value for value, digit in enumerate("零一二三四五六七八九")}
    | {str(value): value for value in range(10)}
    | {"〇": 0, "两": 2, "幺": 1}
)
_SMALL = {"十": 10, "百": 100, "千": 1000}
_LARGE = {"万": 10_000, "亿": 100_000_000}
_PLACES = _SMALL | _LARGE

_CHINESE = "[零〇幺一二两三四五六七八九十百千万亿]+(?:点[零〇一二三四五六七八九]+)?"
_ARABIC = r"\d+(?:,\d{3})*(?:\.\d+)?"
_ONE = f"(?:{_ARABIC}|{_CHINESE})"
_NUMBER = re.compile(
    rf"(?P<percent>百分之(?P<percent_of>{_ONE})|(?P<percent_sign>{_ARABIC})\s*%)"
    rf"|(?P<halved>一半|半(?=个?小时|[个斤天年米公块]))"
    rf"|(?P<below>{_ONE})分之(?P<above>{_ONE})"
    rf"|(?P<over>\d+)/(?P<under>\d+)(?![\d/])"
    rf"|(?P<plain>(?:(?<![a-z\d.)年月日])-|负|零下)?(?<![a-z\d.])(?:{_ARABIC}(?:[十百千万亿]+(?:{_ARABIC}[十百千万])*)?|{_CHINESE}))(?P<half>个半)?"
)
_NO_NUMBERS = re.compile(
    "(?<=[\\d十百])千[克米瓦]|(?<![一二三四五六七八九十百千万])(?:一共|一样|一定|一起|一下|一遍|一些|一直|一般|一旦|一边|一会儿?|一点儿?(?!钟|半|整|[零一二三四五六七八九十过差])|万一|统一|唯一|进一步|一步一?步|两者|二者|(?<!分)之一|同一|"
    "每一|任一|这一|那一|某一|另一|十分(?![钟之一二三四五六七八九十\\d])|千万别|三角|四边|六边|五边|一方面|第一(?!个?名|百)|第二步|第三步|"
    "二氧|一氧|三明治|百货|百科|百姓|一切|一致|一旁|一面|七夕|星期[一二三四五六]|周[一二三四五六]|礼拜[一二三四五六])"
)
_WEAK = re.compile("一[个种道位次名件只句]")


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """One number in a text."""

    value: float
    start: int
    end: int
    is_percent: bool = False
    """Then the value is the number of per cent."""
    is_weak: bool = False
    """Whether it may be an article rather than a number: 一个."""


def numbers_in(text: str) -> list[Found]:
    """Return the numbers of NFKC ``text`` in their order; words that merely hold a numeral are none."""
    blanked = _NO_NUMBERS.sub(lambda match: "#" * len(match[0]), text)
    return [_found(match, text) for match in _NUMBER.finditer(blanked)]


def value_of(numeral: str) -> float:
    """Return the value of one numeral: "12.5", "3万5千", "两百五", "二零零八", "三点一四"."""
    if sign := re.match("-|负|零下", numeral):
        return -value_of(numeral[sign.end() :])
    numeral = numeral.replace(",", "")
    whole, point, fraction = numeral.partition("点")
    if point:
        return value_of(whole) + float("0." + "".join(str(_DIGITS[digit]) for digit in fraction))
    if re.fullmatch(r"[\d.]+", numeral):
        return float(numeral)
    if any(place in numeral for place in _PLACES):
        return _with_places(numeral)
    return float("".join(str(_DIGITS[digit]) for digit in numeral))


def _found(match: re.Match[str], text: str) -> Found:
    start, end = match.span()
    if match["percent"]:
        return Found(
            value=value_of(match["percent_of"] or match["percent_sign"]), start=start, end=end, is_percent=True
        )
    if match["below"]:
        below = value_of(match["below"])
        return Found(value=value_of(match["above"]) / below if below else 0.0, start=start, end=end)
    if match["over"]:
        under = float(match["under"])
        return Found(value=float(match["over"]) / under if under else 0.0, start=start, end=end)
    if match["halved"]:
        return Found(value=0.5, start=start, end=end)
    value = value_of(match["plain"]) + (0.5 if match["half"] else 0.0)
    return Found(value=value, start=start, end=end, is_weak=_WEAK.match(text, start) is not None)


def _with_places(numeral: str) -> float:
    """Return the value of a numeral with 十百千万亿; a last digit alone counts for the place below the last one (两百五)."""
    total, section, pending, place = 0.0, 0.0, "", 1
    for part in re.findall(r"\d+(?:\.\d+)?|.", numeral):
        if part in _SMALL:
            section += float(pending or 1) * _SMALL[part]
        elif part in _LARGE:
            section += float(pending or 0)
            total = (total + section or 1.0) * _LARGE[part] if part == "亿" else total + (section or 1.0) * _LARGE[part]
            section = 0.0
        elif part not in "零〇":
            pending += str(_DIGITS[part]) if part in _DIGITS else part
            continue
        pending, place = "", _PLACES.get(part, 1)
    if pending:
        section += float(pending) * (place // 10 if place > 10 and float(pending) < 10 else 1)  # noqa: PLR2004 - decimal
    return total + section
