"""Text into numbers: hashed pieces of characters and words for a linear model, and the dense surface of a request."""

from __future__ import annotations

import math
import re
import zlib

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

BUCKETS = 1 << 15
"""Columns of the hashed pieces, half for characters and half for words; a power of two."""
CHARACTER_SIZES = (2, 3, 4, 5)
"""Pieces of so many characters; they need no word boundaries, so Chinese is as good as English."""
_HALF = BUCKETS // 2
_MULTIPLIER = np.uint32(0x9E3779B1)
"""Knuth's multiplicative hash: 2^32 over the golden ratio, odd."""
_WORD = re.compile(r"[\u3400-\u9fff]|[a-z]+|\d+")
_SPACE = re.compile(r"\s+")
_DIGIT = re.compile(r"\d")


def window(text: str) -> str:
    """Return ``text`` as it is cut into pieces: lower-cased, every digit as 0 and every run of space as one."""
    return _DIGIT.sub("0", _SPACE.sub(" ", text.lower()).strip())


def pieces(text: str) -> tuple[Indices, Floats]:
    """Return the columns of a text, ascending and distinct, and in each 1 + ln(how often); every value is at least 1."""
    clean = window(text)
    found = np.concatenate([*_characters(f" {clean} "), _words(clean)])
    columns = np.sort(found.astype(np.uint16)).astype(np.int64)  # 16 bits sort five times as fast
    starts = np.flatnonzero(np.concatenate(([True], columns[1:] != columns[:-1])))
    counts = np.diff(np.append(starts, len(columns)))
    return columns[starts], 1 + np.log(counts.astype(np.float32))


def _characters(text: str) -> list[Indices]:
    codes = np.frombuffer(text.encode("utf-32-le", "replace"), dtype="<u4")
    rolled, parts = codes * _MULTIPLIER, []
    for size in range(2, max(CHARACTER_SIZES) + 1):
        if len(codes) < size:
            break
        rolled = (rolled[:-1] ^ (rolled[:-1] >> np.uint32(15))) * _MULTIPLIER + codes[size - 1 :]
        if size in CHARACTER_SIZES:
            mixed = (rolled ^ (rolled >> np.uint32(13))) * np.uint32(0x85EBCA6B + 2 * size)
            parts.append(((mixed >> np.uint32(12)) & np.uint32(_HALF - 1)).astype(np.int64))
    return parts


def _words(text: str) -> Indices:
    alone = np.array([zlib.crc32(word.encode("utf-8", "replace")) for word in _WORD.findall(text)], dtype=np.uint32)
    mixed = (alone[:-1] * _MULTIPLIER) ^ alone[1:]
    pairs = (mixed ^ (mixed >> np.uint32(15))) * _MULTIPLIER >> np.uint32(8)
    return (np.concatenate([alone, pairs]).astype(np.int64) & (_HALF - 1)) + _HALF


SURFACE = (
    *("length", "words", "numbers", "stem_length", "symbols", "sentences"),
    *("options", "option_mean", "option_max", "option_spread", "numeric_options"),
    *("digit_share", "symbol_share", "comma_share", "word_length", "long_words", "distinct_words"),
    *("asks", "gap", "negated", "excluded", "question", "amount", "condition", "reason", "bars", "quotes"),
)
"""Names of the columns of `surface`, in order."""
RISING = frozenset({"length", "words", "numbers", "stem_length", "sentences", "comma_share", "condition"})
"""Columns in which more is taken to mean more to gain: longer requests with more facts, a prior that outlives the training data."""

_TOKEN = re.compile(r"[\u3400-\u9fff]|[A-Za-z']+|\d+")
_NUMBER = re.compile(r"\d+(?:\.\d+)?")
_OPTION = re.compile(r"(?:^|\s)([a-h])[.)](?=\s)")
_NUMERIC = re.compile(r"[-$¥\s(]*\d")
_SYMBOL = re.compile(r"[+*/=^<>\\$%×÷]")
_SENTENCE = re.compile(r"[.!?。！？]")
_COMMA = re.compile(r"[,，、;；]")
_NEGATED = re.compile(r"\bnot\b|n't\b|不|没")
_EXCLUDED = re.compile(r"\b(?:except|least)\b|除了|除外|错误的")
_QUESTION = re.compile(r"\b(?:which|what|who|when|where)\b|什么|哪|谁")
_AMOUNT = re.compile(r"\bhow (?:many|much)\b|多少|几")
_CONDITION = re.compile(r"\bif\b|suppose|assum|given|如果|假设|假如|已知")
_REASON = re.compile(r"\bwhy\b|because|explain|为什么|因为|原因|解释")
_QUOTE = re.compile(r"[\"“「《]")
_LONG_WORD = 7
"""Letters above which a word counts as long. A guess."""
_FEWEST_OPTIONS = 2


def surface(text: str) -> list[float]:
    """Return the columns named in `SURFACE` of a text in lower case: sizes as ln(1 + n), shares in [0, 1], yes and no as 1 and 0."""
    stem, options = _split_options(text)
    words = _TOKEN.findall(text)
    return [*_sizes(text, stem, words), *_option_sizes(options), *_shares(text, stem, words), *_marks(stem)]


def _split_options(text: str) -> tuple[str, list[str]]:
    """Return what comes before a choice "a. … b. …", and the choices; they need no lines of their own."""
    marks: list[re.Match[str]] = []
    for mark in _OPTION.finditer(text):
        if mark[1].lower() == "abcdefgh"[len(marks) : len(marks) + 1]:
            marks.append(mark)
    if len(marks) < _FEWEST_OPTIONS:
        return text, []
    ends = [*(mark.start() for mark in marks[1:]), len(text)]
    return text[: marks[0].start()], [text[mark.end() : end].strip() for mark, end in zip(marks, ends, strict=True)]


def _sizes(text: str, stem: str, words: list[str]) -> list[float]:
    counts = (len(text), len(words), len(_NUMBER.findall(text)), len(stem), len(_SYMBOL.findall(text)))
    return [*(math.log1p(count) for count in counts), math.log1p(len(_SENTENCE.findall(stem)))]


def _option_sizes(options: list[str]) -> list[float]:
    lengths = [len(option) for option in options] or [0]
    mean = sum(lengths) / len(lengths)
    spread = math.sqrt(sum((length - mean) ** 2 for length in lengths) / len(lengths)) / (1 + mean)
    numeric = sum(_NUMERIC.match(option) is not None for option in options)
    return [float(len(options)), math.log1p(mean), math.log1p(max(lengths)), spread, float(numeric)]


def _shares(text: str, stem: str, words: list[str]) -> list[float]:
    characters, count = max(len(text), 1), max(len(words), 1)
    return [
        len(_DIGIT.findall(text)) / characters,
        len(_SYMBOL.findall(text)) / characters,
        len(_COMMA.findall(stem)) / count,
        sum(map(len, words)) / count,
        sum(len(word) > _LONG_WORD for word in words) / count,
        len({word.lower() for word in words}) / count,
    ]


def _marks(stem: str) -> list[float]:
    patterns = (_NEGATED, _EXCLUDED, _QUESTION, _AMOUNT, _CONDITION, _REASON)
    asks, gap = "?" in stem or "？" in stem, "__" in stem
    found = [float(pattern.search(stem) is not None) for pattern in patterns]
    return [float(asks), float(gap), *found, float(stem.count("|")), float(len(_QUOTE.findall(stem)))]
