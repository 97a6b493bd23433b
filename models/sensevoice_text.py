"""What SenseVoice's output says: CTC logits into token ids, tags into a language, pieces into clean text."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

BLANK = 0
"""Token that CTC writes where nothing begins (funasr_onnx/sensevoice_bin.py, blank_id)."""

LANGUAGES = {"zh": 3, "en": 4, "yue": 7, "ja": 11, "ko": 12}
"""Numbers by which the model is told the language, by BCP-47 primary tag; ``AUTO`` leaves it to the model (the same file, lid_dict)."""

AUTO = 0
WITH_ITN = 14
"""Number that asks for punctuation and for numbers as digits ("3 点 20 分"); ``WITHOUT_ITN`` asks for plain words (textnorm_dict)."""
WITHOUT_ITN = 15

NO_SPEECH = "nospeech"
_TAG = re.compile(r"<\|(.*?)\|>")
_SAYING = frozenset("LN")
"""Unicode categories of characters that say something: letters, Chinese ones too, and numbers."""


class Pieces(Protocol):
    """The vocabulary; sentencepiece's processor is one."""

    def get_piece_size(self) -> int:
        """Return the number of pieces."""
        ...

    def id_to_piece(self, token: int, /) -> str:
        """Return one piece as it is written in the model."""
        ...

    def decode(self, tokens: list[int], /) -> str:
        """Return the text of pieces."""
        ...


@dataclass(frozen=True, slots=True)
class Written:
    """What CTC wrote for one utterance."""

    tokens: tuple[int, ...]
    """Without blanks and repeats."""
    certainty: tuple[float, ...]
    """Of each token, the highest probability the model gave it, in (0, 1]."""


@dataclass(frozen=True, slots=True)
class Said:
    """What an utterance says."""

    text: str
    language: str
    """BCP-47 primary tag, "" when the model names none."""
    confidence: float
    """Mean certainty of the text's tokens, 1.0 without any."""


class Vocabulary:
    """Token ids to text; knows which pieces are tags such as <|zh|>, <|NEUTRAL|>, <|Speech|> and <|withitn|>."""

    def __init__(self, pieces: Pieces) -> None:
        self._pieces = pieces
        self.size = pieces.get_piece_size()
        names = (_TAG.fullmatch(pieces.id_to_piece(token)) for token in range(self.size))
        self._tags = {token: name.group(1) for token, name in enumerate(names) if name}

    def read(self, written: Written) -> Said:
        """Return the text on one line without tags; "" where the model heard no speech or nothing but punctuation."""
        tags = {self._tags[token] for token in written.tokens if token in self._tags}
        spoken = [
            (token, certainty)
            for token, certainty in zip(written.tokens, written.certainty, strict=True)
            if token not in self._tags and token < self.size
        ]
        text = clean(self._pieces.decode([token for token, _ in spoken])) if NO_SPEECH not in tags else ""
        if not text:
            return Said(text="", language="", confidence=1.0)
        language = next((name for name in LANGUAGES if name in tags), "")
        return Said(text, language, sum(certainty for _, certainty in spoken) / len(spoken))


def write(logits: npt.NDArray[Any]) -> Written:
    """Return the greedy CTC reading of one utterance's ``logits``, shape [frames, vocabulary]."""
    best = logits.argmax(axis=-1)
    said = np.flatnonzero(best != BLANK)
    chosen = logits[said].astype(np.float32)
    peak = chosen.max(axis=-1, keepdims=True, initial=-np.inf)
    certainty = 1.0 / np.exp(chosen - peak).sum(axis=-1)
    tokens, highest = list[int](), list[float]()
    before = -1
    for frame, sure in zip(said.tolist(), certainty.tolist(), strict=True):
        token = int(best[frame])
        if tokens and frame == before + 1 and token == tokens[-1]:
            highest[-1] = max(highest[-1], sure)
        else:
            tokens.append(token)
            highest.append(sure)
        before = frame
    return Written(tuple(tokens), tuple(highest))


def clean(text: str) -> str:
    """Return ``text`` on one line without tags, emoji and control characters; "" when no letter or digit is left."""
    kept = "".join(character for character in _TAG.sub("", text) if character.isspace() or _is_written(character))
    return " ".join(kept.split()) if any(unicodedata.category(character)[0] in _SAYING for character in kept) else ""


def language_number(language: str) -> int:
    """Return the number that tells the model ``language``; ``AUTO`` for one it does not know."""
    return LANGUAGES.get(language, AUTO)


def like_length(taken: Sequence[int], length: int, waste: float) -> bool:
    """Tell whether a batch of ``taken`` lengths and one of ``length`` pads less than ``waste`` in [0, 1) of what it computes."""
    longest = max(*taken, length) if taken else length
    return 1 - (sum(taken) + length) / (longest * (len(taken) + 1)) <= waste if longest else True


def _is_written(character: str) -> bool:
    """Tell whether a character may stand in a text: no controls, no broken UTF-8, none of the emoji FunASR puts in for tags."""
    is_emoji = "\U0001f000" <= character <= "\U0001faff" or character == "❓"
    return not is_emoji and not unicodedata.category(character).startswith("C")
