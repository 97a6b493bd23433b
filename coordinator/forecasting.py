"""The coordinator's hourly forecast: reads what edges reported, tells each group's edges what they will be asked for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing

import msgspec
import structlog

from coordinator import wire
from coordinator.buckets import Bucket
from coordinator.jetstream import JetStream, Kept
from coordinator.preloading.forecaster import Forecaster, Judged
from coordinator.preloading.foreseen import encode_foreseen
from coordinator.preloading.reports import UsageReport, decode_report
from models.errors import CloudUnreachableError, ConfigError

_log = structlog.get_logger()

HOUR_S = 3600
SETTLE_S = 90.0
"""Seconds into the hour until the edges' reports of the last one are there: they come within the first minute."""
AGAIN_S = 30.0
"""Pause before a hub that is away or not made yet is asked again. A guess."""


class Forecasting:
    """Forecasts each hour soon after it began; ``run`` it in a task."""

    def __init__(
        self,
        streams: JetStream,
        bucket: Bucket,
        *,
        days: float,
        observe: Callable[[Judged], None] = lambda _judged: None,
        dropped: Callable[[], None] = lambda: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """``days`` is how far back a start reads; ``observe`` hears what the last hour's preparations were worth.

        ``dropped`` hears of each report that is none.
        """
        self._streams = streams
        self._bucket = bucket
        self._days = days
        self._observe = observe
        self._dropped = dropped
        self._now = now
        self._forecaster = Forecaster()
        self._read_to = (0.0, 0)
        """When the last report that was read came, and its place in the stream, which begins anew when the stream is made anew."""

    async def run(self) -> None:
        """Tell the groups about this hour, and then about each one, until cancelled; raises nothing."""
        said = ""
        while True:
            now_s = self._now()
            try:
                await self.tell(int(now_s // HOUR_S))
            except (CloudUnreachableError, ConfigError) as error:
                if str(error) != said:
                    said = str(error)
                    _log.warning("forecast_not_told", reason=said, again_s=AGAIN_S)
                await asyncio.sleep(AGAIN_S)
            else:
                said = ""
                await asyncio.sleep((now_s // HOUR_S + 1) * HOUR_S + SETTLE_S - now_s)

    async def tell(self, hour: int) -> None:
        """Read the reports, forecast ``hour`` and tell every group; raise CloudUnreachableError, ConfigError."""
        reports = await self._read()
        judged = await asyncio.to_thread(self._forecaster.judge)
        self._observe(judged)
        foreseen = await asyncio.to_thread(self._forecaster.foresee, hour)
        for group, contents in foreseen.items():
            await self._bucket.put(group, encode_foreseen(group, hour, contents))
        _log.info("forecast_told", hour=hour, reports=reports, groups=len(foreseen), made=judged.made)

    async def _read(self) -> int:
        """Take over the reports that came since the last time and return how many."""
        taken = 0
        since_s = self._read_to[0] or self._now() - self._days * 24 * HOUR_S
        reading = self._streams.read(wire.USAGE_STREAM, wire.usage_subject("*"), since_s=since_s)
        async with aclosing(reading) as messages:
            async for kept in messages:
                if (kept.at_s, kept.sequence) > self._read_to:
                    self._read_to = (kept.at_s, kept.sequence)
                    report = _report(kept)
                    if report is None:
                        self._dropped()
                    else:
                        taken += self._forecaster.take(report, int(kept.at_s // HOUR_S))
        return taken


def _report(kept: Kept) -> UsageReport | None:
    """Return the report, None for what is none, or speaks for another edge than the one whose subject it came on."""
    try:
        report = decode_report(kept.payload)
    except msgspec.MsgspecError:
        return None
    return report if kept.subject == f"voice.usage.{report.edge_id}" else None
