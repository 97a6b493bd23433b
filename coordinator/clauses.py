"""What of a cloud's answer may be said already: whole clauses first, whole sentences later; pure.

A voice speaks whole pieces, so holding the rest back costs no sound; and where the stream breaks, the broken piece was never given
out and somebody else can go on from a clean edge.
"""

from __future__ import annotations

import re

from models.errors import CompletionError
from models.prompts import CompletionDelta

FIRST_CJK, FIRST_WORDS = 4, 3
"""A first piece this long may end at a comma, as where speech is cut."""
LONG_CJK, LONG_WORDS = 24, 14
"""A later piece this long may end at a comma, as there."""
MOST_CHARS = 160
"""A piece without any mark is given out at this length."""

_CJK = re.compile("[\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_CLOSERS = "”’」』）)】》\"'*"
_STRONG = re.compile(rf"(?:[。！？；!?;…]|\.{{2,}}|\.(?=\s))[。！？；!?;….]*[{_CLOSERS}]*\s*|\n\s*")
_WEAK = re.compile(r"(?:[，、：]|[,:](?=\s)|——)\s*")
_WORD = re.compile(r"[A-Za-z0-9]+")
_GARBLED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffd]")
_CJK_S, _OTHER_S = 0.2, 0.06
"""Seconds of speech per character: about five Chinese ones, or three English words, a second."""


class Passing:
    """Gives everything out at once."""

    def feed(self, delta: CompletionDelta) -> str:
        """Return the delta's text."""
        return delta.text

    def flush(self) -> str:
        """Return nothing: nothing is held."""
        return ""


class Clauses:
    """Gives out whole pieces of a growing answer."""

    def __init__(self) -> None:
        self._held = ""
        self._is_first = True

    def feed(self, delta: CompletionDelta) -> str:
        """Return the whole pieces that the delta completes, "" for none yet; raise CompletionError for what is no text."""
        if _GARBLED.search(delta.text):
            raise CompletionError("an answer was garbled")
        self._held += delta.text
        end = _end(self._held, is_first=self._is_first)
        given, self._held = self._held[:end], self._held[end:]
        self._is_first = self._is_first and not given
        return given

    def flush(self) -> str:
        """Return what is left at the end of the answer."""
        given, self._held = self._held, ""
        return given


def speech_s(text: str) -> float:
    """Return about how many seconds a voice needs for ``text``."""
    cjk = len(_CJK.findall(text))
    return cjk * _CJK_S + (len(text) - cjk) * _OTHER_S


def says_something(text: str) -> bool:
    """Return whether there is a letter or a digit to say."""
    return any(character.isalnum() for character in text)


def _end(text: str, *, is_first: bool) -> int:
    """Return how much of ``text`` may be given out."""
    for mark in reversed(list(_STRONG.finditer(text))):
        if says_something(text[: mark.start()]):
            return mark.end()
    for mark in reversed(list(_WEAK.finditer(text))):
        if _weighs(text[: mark.start()], *((FIRST_CJK, FIRST_WORDS) if is_first else (LONG_CJK, LONG_WORDS))):
            return mark.end()
    return len(text) if len(text) >= MOST_CHARS else 0


def _weighs(text: str, cjk: int, words: int) -> bool:
    return len(_CJK.findall(text)) >= cjk or len(_WORD.findall(text)) >= words
