"""Chinese numerals into digits, so that 二十, 20 and 百分之二十, 20% look alike; pure.

Only a run that is read in one way is written anew: 三五 (three to five), 二三十 and 一两 (an ounce) stay as they are.
Points between digits are written as ``keys.normalise`` writes them.
"""

from __future__ import annotations

import re

POINT, COMMA = "\ue000", "\ue001"
_DIGITS = {numeral: str(value) for value, numeral in enumerate("零一二三四五六七八九")} | {"〇": "0", "两": "2"}
_PLACES = {"十": 10, "百": 100, "千": 1000}
_LARGE = (("亿", 100_000_000), ("万", 10_000))
_NUMERAL = "零〇一二两三四五六七八九十百千万亿"
_RUN = re.compile(
    rf"(?<![\d{_NUMERAL}点])([{_NUMERAL}]+)(?:点([零〇一二三四五六七八九]+)(?![{_NUMERAL}分刻钟]))?(?![\d])"
)
_SECTION = re.compile(
    r"(?:([一二两三四五六七八九])千)?(零)?(?:([一二两三四五六七八九])百)?(零)?(?:([一二三四五六七八九])?十)?(零)?([一二两三四五六七八九])?"
)
_SEQUENCE = re.compile(r"[零〇一二三四五六七八九]{3,}|[一二三四五六七八九][零〇]|[零〇一二三四五六七八九]|两")
_THOUSANDS = re.compile(rf"(?<![\d{COMMA}{POINT}])\d{{1,3}}(?:{COMMA}\d{{3}})+(?!\d|{COMMA})")
_MYRIADS = re.compile(rf"(?<![\d{POINT}])(\d+)([万亿])(?![\d{_NUMERAL}])")
_AMOUNT = rf"-?\d+(?:{POINT}\d+)?"
_PERCENT = re.compile(rf"百分之({_AMOUNT})(?![\d%{POINT}])")
_FRACTION = re.compile(rf"(?<![\d百千万]){_AMOUNT}分之{_AMOUNT}(?![\d%{POINT}])")
_OPERATORS = (
    (re.compile(rf"(?<=[\d%])(?:加上?|\+)(?=-?{_AMOUNT})"), "+"),
    (re.compile(rf"(?<=[\d%])(?:减去?|-)(?=-?{_AMOUNT})"), "-"),
    (re.compile(rf"(?<=[\d%])(?:乘以?|×|\*)(?=-?{_AMOUNT})"), "*"),
    (re.compile(rf"(?<=[\d%])(?:除以|÷|/)(?=-?{_AMOUNT})"), "/"),
)
_NEGATIVE = re.compile(r"负(?=\d)")


def with_digits(text: str) -> str:
    """Return normalised ``text`` with its numerals, percentages, fractions and sums in digits and signs."""
    text = _THOUSANDS.sub(lambda found: found.group().replace(COMMA, ""), text)
    text = _RUN.sub(_written, text)
    text = _MYRIADS.sub(lambda found: str(int(found[1]) * dict(_LARGE)[found[2]]), text)
    text = _NEGATIVE.sub("-", text)
    text = _PERCENT.sub(r"\1%", text)
    text = _FRACTION.sub(lambda found: "/".join(reversed(found.group().split("分之"))), text)
    for pattern, sign in _OPERATORS:
        text = pattern.sub(sign, text)
    return text


def value_of(run: str) -> int | None:
    """Return the value of a run of Chinese numerals, None when it is not read in exactly one way."""
    for name, size in _LARGE:
        before, found, after = run.partition(name)
        if found:
            return _joined(value_of(before), size, after)
    return _section(run)


def _joined(before: int | None, size: int, after: str) -> int | None:
    rest = 0 if not after else value_of(after)
    if not before or rest is None or rest >= size:
        return None
    if after and rest < size // 10 and not after.startswith("零"):
        return None if rest >= 10 else before * size + rest * size // 10  # noqa: PLR2004 - 一万二 is 12000, but 一万十 is nothing
    return before * size + rest


def _section(run: str) -> int | None:
    found = _SECTION.fullmatch(run)
    if not run or found is None or run in {"零", "百", "千"}:
        return None
    thousands, _, hundreds, _, tens, _, ones = found.groups()
    has_ten = "十" in run
    short = _short_hundred(run)
    if short is not None:
        return short
    value = 1000 * _digit(thousands) + 100 * _digit(hundreds) + _digit(ones)
    value += 10 * (_digit(tens) or 1) if has_ten else 0
    return value if value and not run.endswith("零") and "零零" not in run else None


def _short_hundred(run: str) -> int | None:
    """Return 120 for 一百二 and 1200 for 一千二: a last digit alone counts for the place below."""
    for name in ("百", "千"):
        if len(run) > 1 and run[-2] == name and run[-1] in _DIGITS:
            before = _section(run[:-1])
            return None if before is None else before + int(_DIGITS[run[-1]]) * _PLACES[name] // 10
    return None


def _digit(numeral: str | None) -> int:
    return int(_DIGITS[numeral]) if numeral else 0


def _written(found: re.Match[str]) -> str:
    run, fraction = found.groups()
    whole = "".join(_DIGITS[each] for each in run) if _SEQUENCE.fullmatch(run) else value_of(run)
    if whole is None:
        return found.group()
    return str(whole) if fraction is None else f"{whole}{POINT}" + "".join(_DIGITS[each] for each in fraction)
