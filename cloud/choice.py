"""Which replica answers a prompt: the device's favourite unless it is busy, else the less loaded of two drawn at random.

Power of two choices after Mitzenmacher (2001); favourites by rendezvous hashing (Thaler and Ravishankar, 1998), so that every worker
has the same ones without talking, and a replica that comes or goes moves only its own devices.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Sequence
from typing import Protocol, TypeVar

import msgspec

YIELD = 0.25
"""A favourite's pressure may exceed that of the better of two others by this part; a prefix found again saves less. A guess."""
SLOW = 2.0
"""From this many times the pool's usual time to the first token on a replica counts as slow; below it is chance and prompts' length."""
SLOW_S = 0.1
"""And by at least so much, or nobody would hear it."""
KV_FULL = 0.9
"""From this part of the KV cache on vLLM begins to put requests back (preemption), so such a replica counts as busier."""
PANIC_SHARE = 0.25
"""When fewer than this part of the replicas can be used, the probes are more likely wrong than all the others, and all are used. A guess
below Envoy's 50 %: work per replica is bounded here, so the ones that are left cannot be run over."""
MAX_SLOWNESS = 100.0
_FAILURE = 0.25
"""Pressure one failure in a row counts for: a replica that refuses at once always looks idle."""
_MAX_FAILURES = 8
_ROUND = 0x9E3779B97F4A7C15
_MASK = 0xFFFF_FFFF_FFFF_FFFF


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a replica's work."""

    limit: int
    """Requests it may have at once, its max_batch_size."""
    own: int = 0
    """Requests this process has there."""
    others: int = 0
    """Requests it says it has beyond ours."""
    waiting: int = 0
    """Those of all of them that wait in its queue."""
    kv_usage: float = 0.0
    """In [0, 1]."""
    failures: int = 0
    """In a row, while the last is not long ago."""
    slowness: float = 1.0
    """As ``slowness``."""


def pressure(load: Load) -> float:
    """Return what to expect of a replica: 1 when idle, 2 with a full batch, more with a queue, a full KV cache, failures or slowness."""
    work = (load.own + load.others + load.waiting) / load.limit
    memory = max(0.0, load.kv_usage - KV_FULL) / (1 - KV_FULL)
    return load.slowness * (1 + work + memory + _FAILURE * min(load.failures, _MAX_FAILURES))


def is_full(*, limit: int, own: int, others: int, waiting: int) -> bool:
    """Whether a replica takes no more: our share is used up, or it queues already with a full batch; see ``Load``."""
    return own >= limit or (waiting > 0 and own + others >= limit)


def slowness(first_s: float | None, usual_s: float | None) -> float:
    """Return how many times slower than usual a replica's first tokens come, 1 when that is little or not known."""
    if first_s is None or usual_s is None or first_s < usual_s + SLOW_S or first_s < SLOW * usual_s:
        return 1.0
    return min(first_s / max(usual_s, SLOW_S), MAX_SLOWNESS)


class Candidate(Protocol):
    """A replica that has room."""

    @property
    def seed(self) -> int:
        """``hashed`` of its name."""
        ...

    @property
    def pressure(self) -> float:
        """How busy it is, as ``pressure``."""
        ...


C = TypeVar("C", bound=Candidate)


def choose(candidates: Sequence[C], key: int | None, dice: random.Random) -> C:
    """Return the one to ask of at least one; ``key`` is ``hashed`` of what its prefixes are remembered under, None for nothing."""
    rival = less_busy(candidates, dice)
    if key is not None:
        for favourite in favourites(candidates, key):
            if favourite is rival or favourite.pressure <= rival.pressure * (1 + YIELD):
                return favourite
    return rival


def less_busy(candidates: Sequence[C], dice: random.Random) -> C:
    """Return the less busy of two different candidates drawn at random."""
    count = len(candidates)
    first = int(dice.random() * count)
    if count == 1:
        return candidates[first]
    second = (first + 1 + int(dice.random() * (count - 1))) % count
    one, other = candidates[first], candidates[second]
    return other if other.pressure < one.pressure else one


def favourites(candidates: Sequence[C], key: int) -> list[C]:
    """Return the first two of this key's order over the candidates, the second for when the first is busy, so that it is always the same."""
    ranks = [_mixed(key ^ candidate.seed) for candidate in candidates]
    first = ranks.index(max(ranks))
    ranks[first] = -1
    second = ranks.index(max(ranks))
    return [candidates[first]] if second == first else [candidates[first], candidates[second]]


def hashed(name: str) -> int:
    """Return 64 bits that are the same in every process."""
    return int.from_bytes(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest())


def is_panic(usable: int, known: int) -> bool:
    """Whether so few of the ``known`` replicas are ``usable`` that all are to be used."""
    return usable < PANIC_SHARE * known or usable == 0


def _mixed(bits: int) -> int:
    mixed = (bits * _ROUND) & _MASK
    return ((mixed ^ (mixed >> 32)) * _ROUND) & _MASK
