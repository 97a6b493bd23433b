"""The cache of an edge node, put together by settings; decides nothing itself."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass

import structlog

from coordinator.buckets import Bucket
from coordinator.cache.answers import AnswerCache
from coordinator.cache.config import CacheConfig, read_cache_config
from coordinator.cache.keys import normalise
from coordinator.cache.kinds import L3_TTL_S, TERMS, Terms, TierName
from coordinator.cache.ladder import Ladder
from coordinator.cache.meaning import RULES, meaning_of
from coordinator.cache.memory import MemoryTier
from coordinator.cache.object_store import ObjectStoreTier
from coordinator.cache.purges import decode_purges
from coordinator.cache.redis_tier import RedisTier
from coordinator.cache.tiers import FarTier
from coordinator.metrics import Metrics
from coordinator.preloading.shelf import ShelvedTier
from coordinator.wire import PURGE_KEY
from edge.settings import EdgeSettings
from models.errors import ConfigError

_log = structlog.get_logger()

_MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Tiers:
    """What a process remembers with."""

    ladder: Ladder
    shelf: ShelvedTier
    """The ladder's nearest tier: what devices ask for, and a shelf for what they will."""
    has_far: bool
    """Whether there are tiers that other nodes share."""


@asynccontextmanager
async def remembering(settings: EdgeSettings, metrics: Metrics) -> AsyncGenerator[Tiers, None]:
    """Yield the tiers that the settings name, filled and read while the body runs; raise ConfigError."""
    config = _config(settings)
    for note in config.notes:
        _log.info("cache_config_not_ours", field=note)
    async with AsyncExitStack() as stack:
        far = await stack.enter_async_context(far_tiers(settings, config.terms))
        memory = MemoryTier(max_bytes=config.terms.max_bytes.get(TierName.MEMORY, settings.cache_mib * _MIB))
        shelf = ShelvedTier(memory, shelf_bytes=settings.preload_mib * _MIB)
        terms = config.terms if far else lasting(config.terms)
        ladder = Ladder(shelf, far, terms=terms, observe=metrics.observe_cache)
        metrics.cache_bytes.labels(TierName.MEMORY).set_function(lambda: memory.held_bytes)
        metrics.cache_entries.labels(TierName.MEMORY).set_function(lambda: len(memory))
        metrics.cache_bytes.labels("shelf").set_function(lambda: shelf.held_bytes)
        metrics.cache_entries.labels("shelf").set_function(lambda: len(shelf))
        for name, waiting in ladder.writes_waiting.items():
            metrics.queue_size.labels(f"cache-{name}").set_function(waiting)
        yield Tiers(await stack.enter_async_context(ladder.open()), shelf, bool(far))


@asynccontextmanager
async def far_tiers(settings: EdgeSettings, terms: Terms = TERMS) -> AsyncGenerator[list[FarTier], None]:
    """Yield the tiers beyond this process that the settings name, nearest first; raise ConfigError for an address that is none."""
    async with AsyncExitStack() as stack:
        tiers: list[FarTier] = []
        if settings.redis_url:
            tiers.append(await stack.enter_async_context(RedisTier.connect(settings.redis_url)))
        if settings.s3_url:
            tiers.append(await stack.enter_async_context(_object_store(settings, terms)))
        yield tiers


async def follow_purges(bucket: Bucket, ladder: Ladder) -> None:
    """Have the ladder forget what an operator wants forgotten, as soon as it is heard of, until cancelled."""
    async with aclosing(bucket.watch(PURGE_KEY)) as entries:
        async for entry in entries:
            try:
                ladder.purge(decode_purges(entry.value))
            except ConfigError as error:
                _log.warning("cache_purge_refused", revision=entry.revision, reason=str(error))
            else:
                _log.info("cache_purged", revision=entry.revision, marks=len(ladder.purges.marks))


def answers(settings: EdgeSettings, ladder: Ladder) -> AnswerCache:
    """Return the memory of answers; of none when the settings want none."""
    kept = ladder if settings.answer_cache else Ladder()
    version = f"{settings.llm_name}|{settings.pool}"
    form_of: Callable[[str], str] = normalise
    if settings.cache_other_words:
        version, form_of = f"{version}|{RULES}", meaning_of
    return AnswerCache(kept, version, scope=settings.cache_scope, group=settings.region, form_of=form_of)


def lasting(terms: Terms) -> Terms:
    """Return the terms of a process with nothing beyond its memory: that keeps each kind as long as any tier would have."""
    longest: dict[str, float] = {}
    for kinds in terms.ttl_s.values():
        for kind, ttl_s in kinds.items():
            longest[kind] = max(ttl_s, longest.get(kind, 0.0))
    return Terms(ttl_s={TierName.MEMORY: longest}, max_bytes=terms.max_bytes)


def _config(settings: EdgeSettings) -> CacheConfig:
    return CacheConfig(terms=TERMS) if settings.cache_config is None else read_cache_config(settings.cache_config)


def _object_store(settings: EdgeSettings, terms: Terms) -> AbstractAsyncContextManager[FarTier]:
    return ObjectStoreTier.connect(
        settings.s3_url,
        settings.s3_bucket,
        access_key=settings.s3_access_key,
        secret_key=settings.s3_secret_key.get_secret_value(),
        longest_ttl_s=max(terms.ttl_s.get(TierName.OBJECT_STORE, {}).values(), default=L3_TTL_S),
    )
