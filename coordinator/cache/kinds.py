"""What is remembered, where, and for how long: the kinds of values and the tiers' terms for each; pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

import msgspec

L1_TTL_S, L2_TTL_S, L3_TTL_S = 7 * 86_400.0, 86_400.0, 30 * 86_400.0
"""How long each tier keeps a value. An answer that depends on its words alone does not age, a purge reaches every edge at once, and another
model or voice has other keys: room decides, not age. With the seeds' 300 s, 1 h and 24 h a simulated fleet hits 20 points less
(``python -m benchmarks cache``); whoever wants those writes them into EDGE_CACHE_CONFIG."""


class Kind(StrEnum):
    """Kinds of values; the first part of a key."""

    TRANSCRIPT = "transcript"
    """What an utterance said, by its sound."""
    ANSWER = "answer"
    """The text of an answer, by its question."""
    SPEECH = "speech"
    """One spoken sentence as Opus packets, by voice, quality and words."""
    AUDIO = "audio"
    """A whole spoken answer, by its question, voice and quality."""


class TierName(StrEnum):
    """The tiers, nearest first."""

    MEMORY = "memory"
    REDIS = "redis"
    OBJECT_STORE = "object-store"


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """How long each tier keeps each kind."""

    ttl_s: Mapping[str, Mapping[str, float]]
    """By tier and kind, in seconds; a kind that is not named is not kept there."""
    max_bytes: Mapping[str, int] = {}
    """By tier; only this process's own memory is bounded by us."""

    def of(self, tier: str, kind: str) -> float:
        """Return how long ``tier`` keeps ``kind``, 0 for not at all."""
        return self.ttl_s.get(tier, {}).get(kind, 0.0)


def _each(ttl_s: float) -> dict[str, float]:
    return dict.fromkeys(Kind, ttl_s)


TERMS = Terms(
    ttl_s={TierName.MEMORY: _each(L1_TTL_S), TierName.REDIS: _each(L2_TTL_S), TierName.OBJECT_STORE: _each(L3_TTL_S)}
)
"""All three tiers keep every kind."""
COMPRESSED = frozenset({Kind.TRANSCRIPT, Kind.ANSWER})
"""Kinds of text. Opus packets do not get shorter."""


def kind_of(key: str) -> str:
    """Return the kind of the value that ``key`` names."""
    return key.partition(":")[0]
