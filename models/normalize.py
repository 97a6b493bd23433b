"""Turns what a language model writes into words a voice can say: no digits in Chinese, no signs, no markup."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

_MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
_DIGITS = "零一二三四五六七八九"
_MYRIADS = ("", "万", "亿", "万亿")
_LONGEST_CARDINAL = 16
"""Digits ``_MYRIADS`` can name; longer numbers are read digit by digit."""
_SHORTEST_SERIAL = 8
"""From this many digits on, a number that is not round is a telephone or serial number (a guess)."""

_NUMBER = r"\d+(?:\.\d+)?"
_UNITS = {
    "km/h": ("公里每小时", "kilometers per hour"),
    "m/s": ("米每秒", "meters per second"),
    "°C": ("摄氏度", "degrees Celsius"),
    "°F": ("华氏度", "degrees Fahrenheit"),
    "kWh": ("千瓦时", "kilowatt hours"),
    "km": ("公里", "kilometers"),
    "kg": ("公斤", "kilograms"),
    "cm": ("厘米", "centimeters"),
    "mm": ("毫米", "millimeters"),
    "mg": ("毫克", "milligrams"),
    "ml": ("毫升", "milliliters"),
    "mL": ("毫升", "milliliters"),
    "kW": ("千瓦", "kilowatts"),
    "Hz": ("赫兹", "hertz"),
    "m": ("米", "meters"),
    "g": ("克", "grams"),
    "L": ("升", "liters"),
    "W": ("瓦", "watts"),
    "°": ("度", "degrees"),
}
_UNIT = re.compile(rf"({_NUMBER})\s*({'|'.join(map(re.escape, _UNITS))})(?![A-Za-z])")
_MONEY = {"$": ("美元", "dollars"), "¥": ("元", "yuan"), "€": ("欧元", "euros"), "£": ("英镑", "pounds")}
_PRICE = re.compile(rf"([$¥€£])\s*({_NUMBER})(?![\d.]*\s*[元万亿])")
_SIGNS = {
    "±": ("正负", "plus or minus"),
    "≈": ("约等于", "is about"),
    "≠": ("不等于", "is not"),
    "≤": ("小于等于", "is at most"),
    "≥": ("大于等于", "is at least"),
    "+": ("加", "plus"),
    "×": ("乘以", "times"),
    "÷": ("除以", "divided by"),
    "=": ("等于", "equals"),
    "&": ("和", "and"),
    "°": ("度", "degrees"),
}
_MARKUP: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"<[^<>\n]{1,200}>"), " "),  # tags
    (re.compile(r"!?\[([^\[\]\n]*)\]\([^()\s]*\)"), r"\1"),  # links and images keep their words
    (re.compile(r"(?:https?://|www\.)[^\s，。！？；、（）()]+"), " "),
    (re.compile(r"[\w.+-]{1,64}@[\w-]{1,64}\.[A-Za-z.]{2,24}"), " "),
    (re.compile(r"^[ \t]*(?:#{1,6}|>|[-*+•·]|\|)[ \t]+", re.MULTILINE), ""),  # headings, quotes, bullets
    (re.compile(r"^[ \t]*(?:[-*_=|:][ \t]*){3,}$", re.MULTILINE), ""),  # rules and table rules
    (re.compile(r"(?<=\d)[ \t]*[*x][ \t]*(?=\d)"), "×"),
    (re.compile(r"(?<=\d),(?=\d{3}(?!\d))"), ""),  # thousands
)
_CHINESE = re.compile(r"[〇㐀-䶿一-鿿]")
_UNSPEAKABLE_ZH = re.compile(r"[^〇㐀-䶿一-鿿A-Za-z，。！？；：、 ]+")
_UNSPEAKABLE_EN = re.compile(r"[^A-Za-z0-9,.!?;:' -]+")
_PAUSES_ZH = str.maketrans({",": "，", "!": "！", "?": "？", ";": "；", ":": "：", "…": "。", "\n": "。", "—": "，"})
_PAUSES_EN = str.maketrans(
    {"，": ", ", "。": ". ", "！": "! ", "？": "? ", "；": "; ", "：": ": ", "、": ", ", "…": ". ", "’": "'"}
)


def normalize(text: str, language: str) -> str:
    """Return ``text`` as words and pauses for a "zh" or (any other ``language``) English voice, "" if nothing is speakable.

    Chinese output holds Chinese characters, Latin letters and ，。！？；：、 only; English output ASCII letters, digits and marks.
    """
    text = text.replace("²", "的平方" if language == "zh" else " squared")
    text = text.replace("³", "的立方" if language == "zh" else " cubed")
    text = unicodedata.normalize("NFKC", re.sub(r"[…。]", "。", text)).replace("−", "-")
    for pattern, replacement in _MARKUP:
        text = pattern.sub(replacement, text)
    return _chinese(text) if language == "zh" else _english(text)


def clauses(text: str, *, shortest: int, longest: int) -> list[str]:
    """Cut normalised ``text`` behind its pauses into pieces of about ``shortest`` to at most ``longest`` characters."""
    pieces: list[str] = []
    for piece in re.findall(r"[^，。！？；：、,.!?;:]*(?:[，。！？；：、]+|[,.!?;:]+(?=\s|$)|[,.!?;:]|$)\s*", text):
        joined = pieces[-1] + piece if pieces else ""
        if (
            joined
            and len(joined) <= longest
            and (len(pieces[-1].strip()) < shortest or len(piece.strip()) <= shortest // 2)
        ):
            pieces[-1] = joined
        else:
            pieces.extend(_hard_cuts(piece, longest))
    return [piece.strip() for piece in pieces if re.search(r"\w", piece)]


def _hard_cuts(piece: str, longest: int) -> list[str]:
    """Cut a piece without pauses at its last space before ``longest``, else in the middle of nowhere."""
    cuts: list[str] = []
    while len(piece) > longest:
        at = piece.rfind(" ", 1, longest) + 1 or longest
        cuts.append(piece[:at])
        piece = piece[at:]
    return [*cuts, piece]


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
    return "".join(_DIGITS[int(digit)] for digit in digits)


def _number(text: str) -> str:
    whole, _, fraction = text.partition(".")
    serial = not fraction and len(whole) >= _SHORTEST_SERIAL and not whole.endswith("0000")
    spoken = _one_by_one(whole) if serial else cardinal(whole)
    return spoken + ("点" + _one_by_one(fraction) if fraction else "")


def _clock(match: re.Match[str]) -> str:
    hour, minute, second = match.group(1), match.group(2), match.group(3)
    spoken = ("两" if int(hour) == 2 else cardinal(str(int(hour)))) + "点"  # noqa: PLR2004 - two o'clock is 两点
    if int(minute) or second:
        spoken += ("零" if minute[0] == "0" else "") + cardinal(str(int(minute))) + "分"
    return spoken + (cardinal(str(int(second))) + "秒" if second else "")


def _day(match: re.Match[str]) -> str:
    return f"{_one_by_one(match[1])}年{cardinal(str(int(match[2])))}月{cardinal(str(int(match[3])))}日"


_DATE = re.compile(r"(?<!\d)(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})(?!\d)")
_TIME = re.compile(r"(?<![\d:])([01]?\d|2[0-4]):([0-5]\d)(?::([0-5]\d))?(?![\d:])")
_CHINESE_NUMBERS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (_DATE, _day),
    (_TIME, _clock),
    (re.compile(r"(?<!\d)(\d{4})(?=\s*年)"), lambda match: _one_by_one(match[1])),
    (re.compile(rf"({_NUMBER})\s*%"), lambda match: "百分之" + _number(match[1])),
    (re.compile(r"(\d+)\s*/\s*(\d+)"), lambda match: f"{_number(match[2])}分之{_number(match[1])}"),
    (re.compile(r"(\d)\s*:\s*(?=\d)"), lambda match: match[1] + "比"),
    (re.compile(r"(?<![A-Za-z0-9.)])-(?=\d)"), lambda _match: "负"),
    (re.compile(r"(?<![\d.])2(?=[个只条本次天位杯瓶块种件家岁点年周倍米元])"), lambda _match: "两"),
    (re.compile(_NUMBER), lambda match: _number(match[0])),
)


def _chinese(text: str) -> str:
    text = _PRICE.sub(lambda match: match[2] + _MONEY[match[1]][0], text)
    text = _UNIT.sub(lambda match: match[1] + _UNITS[match[2]][0], text)
    if not _DATE.search(text):
        text = re.sub(r"(?<=\d)\s*[-~～]\s*(?=\d)", "减" if "=" in text else "到", text)
    for pattern, spoken in _CHINESE_NUMBERS:
        text = pattern.sub(spoken, text)
    for sign, (word, _) in _SIGNS.items():
        text = text.replace(sign, word)
    text = re.sub(r"\.(?=\s|$)", "。", text.translate(_PAUSES_ZH))
    text = _UNSPEAKABLE_ZH.sub(" ", text)
    text = re.sub(r"\s*([，。！？；：、])[，。！？；：、\s]*", r"\1", re.sub(r"\s+", " ", text))
    text = re.sub(r"(?<![A-Za-z]) | (?![A-Za-z])", "", text).lstrip("，。！？；：、")
    return text if re.search(r"[A-Za-z]", text) or _CHINESE.search(text) else ""


def _english(text: str) -> str:
    text = _DATE.sub(lambda match: f"{_month(match[2])} {int(match[3])}, {match[1]}", text)
    text = _PRICE.sub(lambda match: f"{match[2]} {_MONEY[match[1]][1]}", text)
    text = _UNIT.sub(lambda match: f"{match[1]} {_UNITS[match[2]][1]}", text)
    text = re.sub(r"\s*%", " percent", text)
    text = _TIME.sub(lambda match: f"{match[1]} {match[2]}" if int(match[2]) else f"{match[1]} o'clock", text)
    text = re.sub(r"(?<=\d)\s+-\s+(?=\d)", " minus ", text)
    text = re.sub(r"(?<=\d)[-–](?=\d)", " minus " if "=" in text else " to ", text)
    text = re.sub(r"(?<![A-Za-z0-9.)])-(?=\d)", "minus ", text)
    for sign, (_, word) in _SIGNS.items():
        text = text.replace(sign, f" {word} ")
    text = "".join(
        mark for mark in unicodedata.normalize("NFD", text.translate(_PAUSES_EN)) if not unicodedata.combining(mark)
    )
    text = _UNSPEAKABLE_EN.sub(" ", text.replace("\n", ". "))
    text = re.sub(r"(?<![A-Za-z])['-]|['-](?![A-Za-z])", " ", text)
    text = re.sub(r"\s+([,.!?;:])", r"\1", re.sub(r"\s+", " ", text))
    text = re.sub(r"([,.!?;:])(?:\s*[,.!?;:])+", r"\1", text).lstrip(",.!?;: ").strip()
    return text if re.search(r"[A-Za-z0-9]", text) else ""


def _month(digits: str) -> str:
    return _MONTHS[int(digits) - 1] if 1 <= int(digits) <= len(_MONTHS) else digits
