"""Turns what a language model writes into words a voice can say: no digits in Chinese, no signs, no markup."""

from __future__ import annotations

import re
import unicodedata

from models.spoken_chinese import chinese
from models.spoken_english import english

_MARKUP: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"</?[A-Za-z][^<>\n]{0,200}>"), " "),  # tags
    (re.compile(r"[-=]+>|→|⇒"), "，"),
    (re.compile(r"(?<![\w)] )(?<![\w)])[<>]+|[<>]+(?![ \t]*[\w(-])"), " "),  # no comparison of two things
    (re.compile(r"!?\[([^\[\]\n]*)\]\([^()\s]*\)"), r"\1"),  # links and images keep their words
    (re.compile(r"(?:https?://|www\.)[^\s，。！？；、（）()]+"), " "),
    (re.compile(r"[\w.+-]{1,64}@[\w-]{1,64}\.[A-Za-z.]{2,24}"), " "),
    (re.compile(r"^[ \t]*(?:#{1,6}|>|[-*+•·]|\|)[ \t]+", re.MULTILINE), ""),  # headings, quotes, bullets
    (re.compile(r"^[ \t]*(?:[-*_=|:][ \t]*){3,}$", re.MULTILINE), ""),  # rules and table rules
    (re.compile(r"(?<=\d)[ \t]*[*x][ \t]*(?=\d)"), "×"),
    (re.compile(r"(?<=\d),(?=\d{3}(?!\d))"), ""),  # thousands
)
_POWERS = str.maketrans({"²": "^2", "³": "^3", "㎡": "m^2", "㎥": "m^3", "…": "。"})
"""What Unicode's compatibility forms would make plain digits of."""
_PLAIN = str.maketrans({"−": "-", "⁄": "/", "～": "~", "〜": "~", "–": "-"})


def normalize(text: str, language: str) -> str:
    """Return ``text`` as words and pauses for a "zh" or (any other ``language``) English voice, "" if nothing is speakable.

    Chinese output holds Chinese characters, Latin letters and ，。！？；：、 only; English output ASCII letters, digits and marks.
    """
    text = unicodedata.normalize("NFKC", text.translate(_POWERS)).translate(_PLAIN)
    for pattern, replacement in _MARKUP:
        text = pattern.sub(replacement, text)
    return chinese(text) if language == "zh" else english(text)


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
