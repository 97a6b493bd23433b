"""Keeps the routing policy in force: the last good one seen, from the bucket or, after a restart, from a file."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path

import structlog

from coordinator.buckets import Bucket, Entry
from coordinator.routing.policy import Policy, parse_policy
from coordinator.wire import POLICY_KEY
from models.errors import ConfigError

_log = structlog.get_logger()

STATE_FILE = "policy.json"
"""Name, in the state directory, of the last good policy."""


def _ignore(_reason: str) -> None:
    """Count nothing."""


class PolicyWatch:
    """Tells ``change`` of every good policy. A bad one is refused whole and the old one stays, as it does while the link is cut.

    ``refused`` hears why, for a metric: "invalid" (cannot be a policy), "unusable" (``change`` raised ConfigError), "unsaved" (in force,
    but the file cannot be written). ``state_dir`` is made when needed; without one a restart begins without a policy.
    """

    def __init__(
        self,
        bucket: Bucket,
        change: Callable[[Policy], None],
        *,
        state_dir: Path | None = None,
        refused: Callable[[str], None] = _ignore,
    ) -> None:
        self._bucket = bucket
        self._change = change
        self._file = state_dir / STATE_FILE if state_dir else None
        self._refused = refused
        self.revision = 0
        """Revision in the bucket of the policy in force, 0 for one that does not come from there."""

    async def run(self) -> None:
        """Put the saved policy in force, then each good one that comes, until cancelled; raises nothing."""
        await self.restore()
        async with aclosing(self._bucket.watch(POLICY_KEY)) as entries:
            async for entry in entries:
                if self._take(entry.value, revision=entry.revision):
                    await self._save(entry)

    async def restore(self) -> bool:
        """Put the saved policy in force, for a start before the bucket is heard of; return whether there was a good one."""
        if self._file is None:
            return False
        try:
            document = await asyncio.to_thread(self._file.read_bytes)
        except FileNotFoundError:
            return False
        except OSError as error:
            _log.warning("policy_unreadable", file=str(self._file), reason=error.strerror)
            return False
        return self._take(document, revision=0)

    def _take(self, document: bytes, *, revision: int) -> bool:
        try:
            policy = parse_policy(document)
        except ConfigError as error:
            return self._refuse("invalid", revision, error)
        try:
            self._change(policy)
        except ConfigError as error:
            return self._refuse("unusable", revision, error)
        self.revision = revision
        _log.info("policy_in_force", version=policy.version, revision=revision)
        return True

    def _refuse(self, reason: str, revision: int, error: ConfigError) -> bool:
        _log.warning("policy_refused", reason=reason, revision=revision, error=str(error))
        self._refused(reason)
        return False

    async def _save(self, entry: Entry) -> None:
        if self._file is None:
            return
        saving = asyncio.ensure_future(asyncio.to_thread(replace_file, self._file, entry.value))
        try:
            await asyncio.shield(saving)
        except asyncio.CancelledError:
            await asyncio.wait([saving])  # a thread cannot be stopped, and it takes but a sync of the disk
            raise
        except OSError as error:
            _log.warning("policy_unsaved", file=str(self._file), reason=error.strerror)
            self._refused("unsaved")


def replace_file(path: Path, content: bytes) -> None:
    """Write the file so that after a crash it is the old one or the new one; blocks. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(f"{path.name}.new")
    with fresh.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
