"""Pairs of questions, written for this project: different in meaning though alike in words, and alike in meaning though not in words."""

from __future__ import annotations

from importlib import resources
from typing import Literal

import msgspec

from models.errors import ConfigError

NEAR_MISSES, PARAPHRASES = "near_misses.jsonl", "paraphrases.jsonl"
Split = Literal["held-out", "tuning"]


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """Two questions; which file it is from says whether they mean the same."""

    split: Split
    kind: str
    """What differs, or the language of a paraphrase."""
    a: str
    b: str


def load_pairs(file: str) -> list[Pair]:
    """Return the committed pairs of NEAR_MISSES or PARAPHRASES; raise ConfigError when the file is missing or malformed."""
    try:
        data = resources.files("benchmarks.meaning_zh").joinpath(file).read_bytes()
        return [msgspec.json.decode(line, type=Pair) for line in data.splitlines()]
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(f"{file}: {error}") from error
