"""Preloading put together by settings: what is reported, foretold and prepared while an edge runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager

from coordinator import wire
from coordinator.buckets import Bucket, JetStreamBucket
from coordinator.bus import Bus
from coordinator.jetstream import HeaderBus, JetStream
from coordinator.metrics import Metrics
from coordinator.preloading.reports import group_of
from edge.assembly import Assembly
from edge.background import running
from edge.preloading.first_words import FIRST_WORDS, read_questions
from edge.preloading.idle import IdleTime
from edge.preloading.preparing import Preparer
from edge.preloading.reporting import UsageReporter
from edge.remembering import Tiers
from edge.settings import EdgeSettings

_MIB = 1 << 20


def is_wanted(settings: EdgeSettings) -> bool:
    """Return whether anything is to be prepared: not where nothing is remembered, or nothing for more than one device."""
    return settings.preload_mib > 0 and settings.answer_cache and settings.cache_scope != "device"


def reporter(settings: EdgeSettings, bus: Bus) -> UsageReporter:
    """Return what counts the edge's asks."""
    return UsageReporter(bus, settings.node_id, group_of(settings.region))


def forecasts(settings: EdgeSettings, bus: HeaderBus) -> Bucket:
    """Return the bucket the coordinator tells its forecasts in."""
    streams = JetStream(bus, domain=settings.jetstream_domain, asker=settings.node_id)
    return JetStreamBucket(streams, wire.FORECAST_BUCKET)


async def first_words(settings: EdgeSettings) -> list[tuple[str, str]]:
    """Return what is prepared at the start, languages with questions; raise ConfigError for a file that cannot be read."""
    own = [(language, question) for language, questions in FIRST_WORDS.items() for question in questions]
    if settings.preload_questions is not None:
        own += await asyncio.to_thread(read_questions, settings.preload_questions, settings.language)
    return own


@asynccontextmanager
async def preloading(
    settings: EdgeSettings,
    assembly: Assembly,
    tiers: Tiers,
    bucket: Bucket,
    reports: UsageReporter,
    metrics: Metrics,
) -> AsyncGenerator[None, None]:
    """Report what is asked and prepare what will be while the body runs; raise ConfigError before it."""
    if not is_wanted(settings):
        yield
        return
    stages = assembly.stages
    preparer = Preparer(
        tiers.ladder,
        tiers.shelf,
        assembly.maker,
        IdleTime(is_busy=lambda: stages.are_busy, is_wanted=lambda: stages.are_asked, calm_s=settings.preload_calm_s),
        edge_id=settings.node_id,
        shares=tiers.has_far,
        shelf_bytes=settings.preload_mib * _MIB,
        budget_s=settings.preload_budget_s,
        min_confidence=settings.preload_confidence,
        observe=lambda action, result: metrics.preloads.labels(action, result).inc(),
        made=reports.made,
    )
    words = await first_words(settings)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(reports.run(), "usage-reports"))
        await stack.enter_async_context(running(preparer.greet(words), "first-words"))
        await stack.enter_async_context(running(preparer.follow(bucket, group_of(settings.region)), "preparing"))
        yield
