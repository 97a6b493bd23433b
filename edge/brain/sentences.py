"""Pieces of an answer to sentences a voice can speak, the first as early as it makes sense.

``SentenceCutter`` decides where to cut, also inside a piece; ``speakable`` takes out what only eyes can read.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing

import msgspec

from models.prompts import CompletionDelta

_CJK = "\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
_CLOSERS = "”’」』）)】》\"'*"
_EMOJI = "\U0001f000-\U0001faff\u2600-\u27bf\u2b00-\u2bff\ufe0f\u200d\u20e3"

_CJK_CHARACTER = re.compile(f"[{_CJK}]")
_WORD = re.compile(rf"[^\W_{_CJK}]+(?:['’.,:-][^\W_{_CJK}]+)*")
_MARK = re.compile(
    rf"(?P<fence>```)|(?P<line>\n)|(?P<strong>(?:[。！？；!?;…]|\.{{2,}})[。！？；!?;….]*[{_CLOSERS}]*)"
    rf"|(?P<dot>\.[{_CLOSERS}]*)|(?P<weak>[，、：,:]|——)"
)
_ABBREVIATION = re.compile(
    r"(?:^|[\W\d_])(?:[a-z]|mr|mrs|ms|dr|prof|sr|jr|st|vs|etc|e\.g|i\.e|no|fig|al|a\.m|p\.m|approx|dept|inc|ltd|u\.s)$",
    re.IGNORECASE,
)
_LIST_NUMBER = re.compile(r"(?:^|\n)\s*\d{1,3}$")

_FIRST_CJK, _FIRST_WORDS = 4, 3
"""A first piece this long may end at a comma: about a second of speech, a guess."""
_LATER_CJK, _LATER_WORDS = 6, 3
"""Shorter sentences after the first join the next: voices stumble over scraps."""
_LONG_CJK, _LONG_WORDS = 24, 14
"""A later sentence this long may end at a comma: about five seconds of speech, a guess."""
_MOST_CJK, _MOST_WORDS, _MOST_CHARACTERS = 80, 40, 400
"""Run-ons are cut here: a voice takes about 20 s for it, and half our speech window is 15 s."""

_EMOTIONS: dict[str, str] = {
    "😀": "happy", "😃": "happy", "😄": "happy", "😊": "happy", "🙂": "happy", "🎉": "happy", "👍": "happy", "😁": "happy",
    "😆": "laughing", "😂": "laughing", "🤣": "laughing", "😹": "laughing",
    "😜": "funny", "😝": "funny", "🤪": "silly", "😛": "silly",
    "😢": "sad", "😔": "sad", "😞": "sad", "🙁": "sad", "😭": "crying",
    "😠": "angry", "😡": "angry", "😍": "loving", "🥰": "loving", "❤": "loving", "💕": "loving",
    "😳": "embarrassed", "😅": "embarrassed", "😲": "surprised", "😮": "surprised", "😱": "shocked", "🤯": "shocked",
    "🤔": "thinking", "💭": "thinking", "😉": "winking", "😎": "cool", "😌": "relaxed", "😋": "delicious", "🤤": "delicious",
    "😘": "kissy", "😗": "kissy", "😏": "confident", "💪": "confident", "😴": "sleepy", "🥱": "sleepy",
    "😕": "confused", "😵": "confused", "🙄": "confused",
}  # fmt: skip
"""Emoji to the faces boards have, protocol §7.2."""


class Sentence(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of an answer to be spoken in one breath."""

    text: str
    """Speakable: no Markdown, no emoji."""
    emotion: str = ""
    """The face its first known emoji stands for, "" for none."""


async def sentences(deltas: AsyncGenerator[CompletionDelta, None]) -> AsyncGenerator[Sentence, None]:
    """Yield the answer's sentences in order, losing nothing speakable but code blocks; closes ``deltas``."""
    cutter = SentenceCutter()
    async with aclosing(deltas):
        async for delta in deltas:
            for piece in cutter.feed(delta.text):
                yield piece
    for piece in cutter.flush():
        yield piece


class SentenceCutter:
    """Cuts a growing text; what it has given out is settled."""

    def __init__(self) -> None:
        self._text = ""
        self._is_first = True
        self._is_code = False
        self._emotion = ""

    def feed(self, text: str) -> Iterator[Sentence]:
        """Yield the sentences that ``text`` completes."""
        self._text += text
        yield from self._cut(is_last=False)

    def flush(self) -> Iterator[Sentence]:
        """Yield what is left; an unclosed code block is dropped."""
        yield from self._cut(is_last=True)
        if not self._is_code:
            yield from self._said(self._text)
        self._text = ""

    def _cut(self, *, is_last: bool) -> Iterator[Sentence]:
        while True:
            if self._is_code:
                _, fence, rest = self._text.partition("```")
                if not fence:
                    self._text = self._text[-2:]
                    return
                self._text, self._is_code = rest, False
            end, is_fence = find_cut(self._text, is_first=self._is_first, is_last=is_last)
            if end < 0:
                return
            piece, self._text = self._text[:end], self._text[end + 3 * is_fence :]
            self._is_code = is_fence
            yield from self._said(piece)

    def _said(self, piece: str) -> Iterator[Sentence]:
        """Yield the piece as a sentence, if there is anything to say; a face without words waits for the next."""
        self._emotion = self._emotion or emotion_of(piece)
        text = speakable(piece)
        if text:
            self._is_first = False
            yield Sentence(text=text, emotion=self._emotion)
            self._emotion = ""


def find_cut(text: str, *, is_first: bool, is_last: bool) -> tuple[int, bool]:
    """Return where the first sentence of ``text`` ends, -1 for not yet, and whether a code fence ended it.

    ``is_last`` says that nothing follows, so that a mark at the very end needs no second look.
    """
    cjk = words = begin = 0
    comma = -1
    for mark in _MARK.finditer(text):
        step_cjk, step_words = _weigh(text[begin : mark.start()])
        if cjk + step_cjk > _MOST_CJK or words + step_words > _MOST_WORDS or mark.start() > _MOST_CHARACTERS:
            break
        cjk, words, begin = cjk + step_cjk, words + step_words, mark.end()
        kind = mark.lastgroup or ""
        if kind == "fence":
            return mark.start(), True
        if not is_last and not _is_settled(text, mark):
            return -1, False
        if kind == "weak":
            comma = mark.end() if _is_pause(text, mark) else comma
        if _ends(text, mark, kind, is_first=is_first, cjk=cjk, words=words):
            return mark.end(), False
    return _cut_run_on(text, comma), False


def _is_settled(text: str, mark: re.Match[str]) -> bool:
    """Whether what may still follow cannot change the meaning of a mark at the end of the text."""
    if mark.end() < len(text):
        return True
    if mark.group()[-1] in "。；\n":
        return not any(quote in text[: mark.start()] for quote in '“‘「『（(【《"*')
    return False


def _ends(text: str, mark: re.Match[str], kind: str, *, is_first: bool, cjk: int, words: int) -> bool:
    """Whether the mark ends a sentence of so many CJK characters and words."""
    if kind == "line":
        return cjk + words > 0
    if kind == "weak":
        enough = (_FIRST_CJK, _FIRST_WORDS) if is_first else (_LONG_CJK, _LONG_WORDS)
        return _is_pause(text, mark) and (cjk >= enough[0] or words >= enough[1])
    if kind == "dot" and not _is_full_stop(text, mark):
        return False
    return cjk + words > 0 if is_first else (cjk >= _LATER_CJK or words >= _LATER_WORDS)


def _is_pause(text: str, mark: re.Match[str]) -> bool:
    """Whether a comma or colon is one: not in 1,000, 10:30 or http://."""
    following = text[mark.end() : mark.end() + 1]
    return (
        mark.group() not in {",", ":"} or not following or following.isspace() or bool(_CJK_CHARACTER.match(following))
    )


def _is_full_stop(text: str, mark: re.Match[str]) -> bool:
    """Whether a dot ends a sentence: not in 3.14, e.g., a file name or the number of a list."""
    following = text[mark.end() : mark.end() + 1]
    if following and not following.isspace() and not _CJK_CHARACTER.match(following):
        return False
    before = text[: mark.start()]
    return not _ABBREVIATION.search(before) and not _LIST_NUMBER.search(before)


def _weigh(text: str) -> tuple[int, int]:
    """Return the number of CJK characters and of other words."""
    return len(_CJK_CHARACTER.findall(text)), len(_WORD.findall(text))


def _cut_run_on(text: str, comma: int) -> int:
    """Return where to cut a text without an end that has grown too long, -1 for not yet; at a comma or space if there is one."""
    cjk, words = _weigh(text)
    if cjk <= _MOST_CJK and words <= _MOST_WORDS and len(text) <= _MOST_CHARACTERS:
        return -1
    if comma > 0:
        return comma
    most = _longest(text)
    space = text.rfind(" ", 0, most)
    return space + 1 if space > 0 and _weigh(text[space:most])[0] < _FIRST_CJK else most


def _longest(text: str) -> int:
    """Return the length of the longest beginning within all limits that splits no word if that can be."""
    cjk = words = 0
    for unit in re.finditer(rf"[{_CJK}]|{_WORD.pattern}", text):
        is_cjk = bool(_CJK_CHARACTER.match(unit.group()))
        cjk, words = cjk + is_cjk, words + (not is_cjk)
        if cjk > _MOST_CJK or words > _MOST_WORDS or unit.end() > _MOST_CHARACTERS:
            return unit.start() or _MOST_CHARACTERS
    return min(len(text), _MOST_CHARACTERS)


_CLEANING: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"!?\[([^\]\n]*)\]\([^)\n]*\)"), r"\1"),
    (re.compile(r"(?m)^\s*(?:#{1,6}\s+|>+\s?|[-+•]\s+|\*\s+|(?:[-*_]\s*){3,}$)"), ""),
    (re.compile(r"(?<!\d)(?<!\d\s)\*+|\*+(?!\s*\d)|\*{2,}"), ""),
    (re.compile(r"(?<!\w)_+|_+(?!\w)|__+|~~|`+"), ""),
    (re.compile(r"\s*\|\s*"), " "),
    (re.compile(f"[{_EMOJI}]"), ""),
    (re.compile(r"\s+"), " "),
)


def speakable(text: str) -> str:
    """Return ``text`` without Markdown and emoji, "" when nothing is left that a voice could say."""
    for pattern, replacement in _CLEANING:
        text = pattern.sub(replacement, text)
    text = text.strip().lstrip("。！？；，、：!?;,:…”’」』）)】》 ")
    return text if any(_weigh(text)) else ""


def emotion_of(text: str) -> str:
    """Return the face of the first emoji that has one, "" for none."""
    return next((_EMOTIONS[character] for character in text if character in _EMOTIONS), "")
