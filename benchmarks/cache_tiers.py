"""How long each tier of the cache takes for a hit and for a miss: this process's memory, a real Redis, a real S3.

A far tier's time is what a caller waits: the round trip and the check of the seal. A ping stands beside it; the slowest put makes the bucket.
"""

from __future__ import annotations

import itertools
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from benchmarks.report import percentile
from coordinator.cache.kinds import COMPRESSED, Kind, kind_of
from coordinator.cache.memory import MemoryTier
from coordinator.cache.object_store import ObjectStoreTier
from coordinator.cache.redis_tier import RedisTier
from coordinator.cache.sealed import seal, unseal
from coordinator.cache.tiers import FarTier
from models.errors import CacheError

TTL_S = 600.0
TIMEOUT_S = 5.0
"""Patient: slow answers are to be measured, not given up."""
KEYS = 64
"""Different values asked for in turn, so that it is not always the same one."""
ROUNDS: Mapping[str, int] = {"l1": 20_000, "l2": 2_000, "l3": 500}
"""Gets of each sort; the rarest percentile shown is the 99th."""
SPEECH_BYTES = 24_000
"""Six seconds of Opus at 32 kbit/s: random, since packets do not get shorter."""
ANSWER = "北京是中国的首都，历史悠久，有许多名胜古迹，例如故宫、长城和颐和园。"
ANSWER_BYTES = 300


def values_of(kind: Kind, seed: int = 1) -> dict[str, bytes]:
    """Return KEYS values by their keys: SPEECH_BYTES of noise for speech, else ANSWER_BYTES of UTF-8 text or one less or two."""
    dice = random.Random(seed)
    keys = [f"{kind}:{dice.randbytes(32).hex()}" for _ in range(KEYS)]
    if kind is Kind.SPEECH:
        return {key: dice.randbytes(SPEECH_BYTES) for key in keys}
    text = ANSWER * (ANSWER_BYTES // len(ANSWER.encode()) + 1)
    return {key: text.encode()[:ANSWER_BYTES].decode(errors="ignore").encode() for key in keys}


async def measure(
    redis_url: str,
    s3_url: str,
    *,
    access_key: str,
    secret_key: str,
    bucket: str = "benchmark",
    rounds: Mapping[str, int] = ROUNDS,
) -> dict[str, Any]:
    """Return ``{l1, l2, l3}`` as ``far_results`` gives them; what was written is deleted. Raises CacheError when a tier is broken or forgets."""
    async with (
        RedisTier.connect(redis_url, timeout_s=TIMEOUT_S) as redis,
        ObjectStoreTier.connect(
            s3_url, bucket, access_key=access_key, secret_key=secret_key, timeout_s=TIMEOUT_S
        ) as store,
    ):
        return {
            "l1": near_results(MemoryTier(), rounds["l1"]),
            "l2": await far_results(redis, rounds["l2"]),
            "l3": await far_results(store, rounds["l3"]),
        }


def near_results(tier: MemoryTier, rounds: int) -> dict[str, Any]:
    """Return the same of the process's own memory, which has no ``ping_ms``."""
    results: dict[str, Any] = {}
    for kind in (Kind.SPEECH, Kind.ANSWER):
        values = values_of(kind)
        for key, value in values.items():
            tier.put(key, value, TTL_S)
        hits_ms, misses_ms = [], []
        for key, number in zip(itertools.cycle(values), range(rounds), strict=False):
            unknown = f"{kind}:unknown-{number}"
            began_s = time.perf_counter()
            found = tier.get(key)
            then_s = time.perf_counter()
            other = tier.get(unknown)
            ended_s = time.perf_counter()
            _check(tier.name, is_right=found == values[key] and other is None)
            hits_ms.append((then_s - began_s) * 1000)
            misses_ms.append((ended_s - then_s) * 1000)
        results[kind.value] = {"hit_ms": _spread(hits_ms), "miss_ms": _spread(misses_ms)}
    return {"get_ms": results[Kind.SPEECH.value]["hit_ms"], **results}


async def far_results(tier: FarTier, rounds: int) -> dict[str, Any]:
    """Return ``{get_ms, ping_ms, speech: {hit_ms, miss_ms, put_ms}, answer: the same}``, each ``{p50, p99}``; ``get_ms`` is a hit on speech."""
    pings_ms = [await _took_ms(tier.ping) for _ in range(rounds)]
    results = {kind.value: await _far_kind(tier, kind, rounds) for kind in (Kind.SPEECH, Kind.ANSWER)}
    return {"get_ms": results[Kind.SPEECH.value]["hit_ms"], "ping_ms": _spread(pings_ms), **results}


async def _far_kind(tier: FarTier, kind: Kind, rounds: int) -> dict[str, Any]:
    values = values_of(kind)
    try:
        puts_ms = [await _took_ms(partial(_put, tier, key, value)) for key, value in values.items()]
        hits_ms, misses_ms = [], []
        for key, number in zip(itertools.cycle(values), range(rounds), strict=False):
            hits_ms.append(await _get_ms(tier, key, values[key]))
            misses_ms.append(await _get_ms(tier, f"{kind}:unknown-{number}", None))
    finally:
        for key in values:
            await tier.drop(key)
    return {"hit_ms": _spread(hits_ms), "miss_ms": _spread(misses_ms), "put_ms": _spread(puts_ms)}


async def _put(tier: FarTier, key: str, value: bytes) -> None:
    now_s = time.time()
    is_text = kind_of(key) in COMPRESSED
    await tier.put(key, seal(key, value, made_at_s=now_s, expires_at_s=now_s + TTL_S, compress=is_text), TTL_S)


async def _get_ms(tier: FarTier, key: str, expected: bytes | None) -> float:
    began_s = time.perf_counter()
    stored = await tier.get(key)
    sealed = unseal(key, stored, time.time()) if stored is not None else None
    took_ms = (time.perf_counter() - began_s) * 1000
    _check(tier.name, is_right=(sealed.value if sealed else None) == expected)
    return took_ms


async def _took_ms(call: Callable[[], Awaitable[object]]) -> float:
    began_s = time.perf_counter()
    await call()
    return (time.perf_counter() - began_s) * 1000


def _check(name: str, *, is_right: bool) -> None:
    if not is_right:
        raise CacheError(f"{name}: a value is not what was put there a moment ago")


def _spread(values_ms: list[float]) -> dict[str, float]:
    return {f"p{share}": round(percentile(values_ms, share) or 0.0, 5) for share in (50, 99)}
