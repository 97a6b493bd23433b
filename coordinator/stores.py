"""What the coordinator service has the hub keep: the policy's bucket always, finished turns and usage as long as the operator says."""

from __future__ import annotations

import asyncio

import msgspec
import structlog

from coordinator.buckets import JetStreamBucket, Keeping
from coordinator.jetstream import JetStream
from coordinator.policy_store import POLICY_KEEPING
from coordinator.turn_log import TurnLog
from coordinator.wire import FORECAST_BUCKET, POLICY_BUCKET, USAGE_STREAM, usage_subject
from models.errors import CloudUnreachableError, ConfigError

_log = structlog.get_logger()

AGAIN_S = 10.0
"""Pause before a hub that is away or refuses is asked again; booting devices are answered meanwhile. A guess."""
FORECAST_KEEPING = Keeping(history=1, max_age_s=2 * 3600.0)
"""A forecast is about one hour."""
USAGE_MIB = 256
"""A week of 150 edges, whose reports are some 10 kB an hour each. A guess; the oldest give way."""
_NS_PER_DAY = 86_400 * 1_000_000_000


async def make_stores(
    streams: JetStream,
    *,
    replicas: int = 1,
    keep_turns_hours: float = 0.0,
    keep_turns_mib: int = 1024,
    keep_usage_days: float = 7.0,
) -> None:
    """Have the hub keep what it should and return; a hub that is away or refuses is told so in the log and asked again for ever."""
    said = ""
    while True:
        try:
            await JetStreamBucket(streams, POLICY_BUCKET).make(
                msgspec.structs.replace(POLICY_KEEPING, replicas=replicas)
            )
            await keep_usage(streams, days=keep_usage_days, replicas=replicas)
            was_dropped = await TurnLog(streams).keep(hours=keep_turns_hours, mib=keep_turns_mib, replicas=replicas)
        except (CloudUnreachableError, ConfigError) as error:
            if str(error) != said:
                said = str(error)
                _log.warning("stores_not_made", reason=said, again_s=AGAIN_S)
            await asyncio.sleep(AGAIN_S)
        else:
            _log.info("stores_made", keep_turns_hours=keep_turns_hours, turns_deleted=was_dropped, replicas=replicas)
            return


async def keep_usage(streams: JetStream, *, days: float, replicas: int = 1) -> None:
    """Keep what edges report and what is forecast from it; 0 days deletes both. Raises CloudUnreachableError, ConfigError."""
    if not days:
        await streams.drop(USAGE_STREAM)
        await streams.drop(f"KV_{FORECAST_BUCKET}")
        return
    await JetStreamBucket(streams, FORECAST_BUCKET).make(msgspec.structs.replace(FORECAST_KEEPING, replicas=replicas))
    await streams.make(
        {
            "name": USAGE_STREAM,
            "description": "what edges were asked for, hour by hour",
            "subjects": [usage_subject("*")],
            "max_age": int(days * _NS_PER_DAY),
            "max_bytes": USAGE_MIB << 20,
            "num_replicas": replicas,
            "storage": "file",
            "compression": "s2",
            "discard": "old",
            "no_ack": True,
            "allow_direct": True,
        }
    )
