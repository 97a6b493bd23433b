"""Questions asked before in other words: one form per meaning, and what is remembered by it; pure.

A question is brought into the form that all its known wordings share, and only equal forms mean the same. So what is proposed is what was
checked, the form is the key under which the answer is kept, in every tier, and no likeness, however great, makes up for a number, a name or a negation that differs.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import Literal

import msgspec

from coordinator.cache.keys import MAX_QUESTION_CHARS, normalise
from coordinator.cache.meaning_chinese import form_of_chinese
from coordinator.cache.meaning_english import form_of_english

RULES = "meaning-1"
"""Name of the rules, part of the keys made with them: other rules are another memory."""

Reason = Literal["same", "empty", "language", "number", "unit", "negation", "asked", "opposite", "order", "words"]

_BETWEEN_NUMBERS = re.compile(
    r"(?<=[零一二两三四五六七八九十百千万亿\d])[\s、，]+(?=[零一二两三四五六七八九十百千万亿\d])"
)
_APART = "\ue003"
"""Between numbers of a list, which would run together without: 四十一、十一 is not 四十、一十一."""
_HAN = re.compile("[\u3400-\u9fff]")
_NUMBERS = re.compile("-?\\d+(?:\ue000\\d+)?(?:%|/\\d+)?")
_UNITS = re.compile(
    "\\d(平方|立方)?(公里|千米|英里|海里|厘米|毫米|米|公斤|千克|毫克|克|斤|两|吨|毫升|升|度|岁|年|个月|月|天|日|周|小时|分钟|秒|元|块|美元|倍|寸|尺|亩)"
)
_NEGATIONS = re.compile(r"[不没别无非未莫勿]|\b(?:not|no|never|without|none|nothing)\b")
_ASKED = re.compile(r"[WHBTDNPLQGYE]|\b(?:who|what|why|how|which|where|when|whose|is|are|do|does|did|can)\b")
_OPPOSITES = (
    "大小",
    "高低矮",
    "长短",
    "多少",
    "快慢",
    "远近",
    "前后",
    "上下",
    "左右",
    "里外",
    "早晚",
    "冷热",
    "好坏",
    "优缺",
    "开关",
    "进出",
    "男女",
    "公母",
    "买卖",
    "正负反",
    "深浅",
    "轻重",
    "新旧",
    "胖瘦",
    "软硬",
    "东西南北",
    "春夏秋冬",
    "古现",
)


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Whether two questions mean the same, and the first thing that tells them apart."""

    is_same: bool
    reason: Reason


def meaning_of(question: str) -> str:
    """Return the form that all known wordings of the question share, "" when it is empty or longer than is remembered."""
    if len(question) > MAX_QUESTION_CHARS:
        return ""
    text = normalise(_BETWEEN_NUMBERS.sub(_APART, question))
    return form_of_chinese(text) if _HAN.search(text) else form_of_english(text)


def same_meaning(one: str, other: str) -> Verdict:
    """Return whether both questions surely mean the same; in doubt they do not. Symmetric, and for no text does it raise."""
    reason = _difference(meaning_of(one), meaning_of(other))
    return Verdict(is_same=reason == "same", reason=reason)


def _difference(one: str, other: str) -> Reason:
    if not one or not other:
        return "empty"
    if one == other:
        return "same"
    if bool(_HAN.search(one)) != bool(_HAN.search(other)):
        return "language"
    for reason, pattern in _TELLING:
        if Counter(pattern.findall(one)) != Counter(pattern.findall(other)):
            return reason
    if _are_opposite(one, other):
        return "opposite"
    return "order" if sorted(one) == sorted(other) else "words"


_TELLING: tuple[tuple[Reason, re.Pattern[str]], ...] = (
    ("number", _NUMBERS),
    ("unit", _UNITS),
    ("negation", _NEGATIONS),
    ("asked", _ASKED),
)


def _are_opposite(one: str, other: str) -> bool:
    more, less = Counter(one) - Counter(other), Counter(other) - Counter(one)
    return any(set(more) & set(scale) and set(less) & set(scale) for scale in _OPPOSITES)
