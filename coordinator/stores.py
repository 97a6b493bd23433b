"""What the coordinator service has the hub keep: the policy's bucket always, finished turns as long as the operator says."""

from __future__ import annotations

import asyncio

import msgspec
import structlog

from coordinator.buckets import JetStreamBucket
from coordinator.jetstream import JetStream
from coordinator.policy_store import POLICY_KEEPING
from coordinator.turn_log import TurnLog
from coordinator.wire import POLICY_BUCKET
from models.errors import CloudUnreachableError, ConfigError

_log = structlog.get_logger()

AGAIN_S = 10.0
"""Pause before a hub that is away or refuses is asked again; booting devices are answered meanwhile. A guess."""


async def make_stores(
    streams: JetStream, *, replicas: int = 1, keep_turns_hours: float = 0.0, keep_turns_mib: int = 1024
) -> None:
    """Have the hub keep what it should and return; a hub that is away or refuses is told so in the log and asked again for ever."""
    said = ""
    while True:
        try:
            await JetStreamBucket(streams, POLICY_BUCKET).make(
                msgspec.structs.replace(POLICY_KEEPING, replicas=replicas)
            )
            was_dropped = await TurnLog(streams).keep(hours=keep_turns_hours, mib=keep_turns_mib, replicas=replicas)
        except (CloudUnreachableError, ConfigError) as error:
            if str(error) != said:
                said = str(error)
                _log.warning("stores_not_made", reason=said, again_s=AGAIN_S)
            await asyncio.sleep(AGAIN_S)
        else:
            _log.info("stores_made", keep_turns_hours=keep_turns_hours, turns_deleted=was_dropped, replicas=replicas)
            return
