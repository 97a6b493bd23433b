"""Whether two answers to the same question say the same, roughly: a sign for people who look after a cache, no proof; pure."""

from __future__ import annotations

import re
from collections import Counter
from math import sqrt

from coordinator.cache.keys import normalise

ENOUGH = 0.3
"""Cosine of pairs of characters from which two answers count as alike. A guess: one model asked twice in its own words gives 0.4 to 0.9."""
_NUMBER = re.compile(r"\d+(?:[.,]\d+)*")


def agree(one: str, other: str) -> bool:
    """Return whether both name the same numbers, if both name any, and share enough of their words."""
    numbers = [set(_NUMBER.findall(text)) for text in (one, other)]
    if all(numbers) and not (numbers[0] <= numbers[1] or numbers[1] <= numbers[0]):
        return False
    return likeness(one, other) >= ENOUGH


def likeness(one: str, other: str) -> float:
    """Return the cosine of the counts of both texts' pairs of characters, in [0, 1]; 1 for texts that are the same."""
    counts = [_pairs(normalise(text)) for text in (one, other)]
    shared = sum(count * counts[1][pair] for pair, count in counts[0].items())
    lengths = [sqrt(sum(count * count for count in each.values())) for each in counts]
    if not all(lengths):
        return float(normalise(one) == normalise(other))
    return min(1.0, shared / (lengths[0] * lengths[1]))


def _pairs(text: str) -> Counter[str]:
    return Counter(text[place : place + 2] for place in range(len(text) - 1))
