"""How people say a request to a loudspeaker, and how recognition writes it down: numbers in words, fillers, lost punctuation."""

from __future__ import annotations

import random
import re

from models.spoken_chinese import cardinal

_OPENINGS = (
    "嗯，",
    "那个，",
    "小智，",
    "小智小智，",
    "哎，",
    "呃，",
    "对了，",
    "哎小智，",
    "那个那个，",
    "嘿，",
    "小智啊，",
)
_ASKING = ("请问，", "我问一下，", "我想问一下，", "帮我看看，", "麻烦问一下，", "我想知道，")
"""Openings of requests with a right answer."""
_OPENED, _BARE, _FULL_STOP = 0.3, 0.45, 0.25
"""Share of requests with an opening, without any punctuation, and with a full stop instead of no mark. Guesses."""
_MARKS = re.compile("[，。？！、：；“”《》]")
_LISTED = re.compile("(?<=[零一二三四五六七八九十百千])、(?=[一二三四五六七八九十百千])")
"""Without a gap nobody could tell the numbers of a list apart."""
_QUESTIONS = ("?", "？")


def said(number: float) -> str:
    """Return a number as it is said: 200 as 两百, 3.5 as 三点五, -3 as 负三."""
    if number < 0:
        return "负" + said(-number)
    whole, _, fraction = f"{number:g}".partition(".") if number < 1e5 else (str(int(number)), "", "")  # noqa: PLR2004 - %g
    words = re.sub("^二(?=[百千万亿])|(?<=[万亿])二(?=[千])", "两", cardinal(whole))
    return words + ("点" + "".join(cardinal(digit) for digit in fraction) if fraction else "")


def counted(number: float, measure: str) -> str:
    """Return so many of something: 2 and 个 as 两个."""
    return ("两" if number == 2 else said(number)) + measure  # noqa: PLR2004 - two of a thing are 两


def spoken(text: str, rng: random.Random, *, is_question: bool = False, is_verbatim: bool = False) -> str:
    """Return ``text`` as it may be heard and written down; a verbatim one keeps its words and marks."""
    if is_verbatim:
        return text
    if rng.random() < _OPENED:
        text = rng.choice(_OPENINGS + _ASKING if is_question else _OPENINGS) + text
    if rng.random() < _BARE:
        return _MARKS.sub("", _LISTED.sub(" ", text))
    if text.endswith(_QUESTIONS) and rng.random() < _FULL_STOP:
        return text[:-1] + "。"
    return text
