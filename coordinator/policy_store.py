"""The routing policy in its bucket: read, changed by one operator at a time, taken back; every change is a new version."""

from __future__ import annotations

import difflib
import json
from typing import Any

import msgspec

from coordinator.buckets import MAX_HISTORY, Bucket, Entry, Keeping
from coordinator.routing.policy import Policy, parse_policy
from coordinator.wire import POLICY_KEY
from models.errors import ConfigError

POLICY_KEEPING = Keeping(history=MAX_HISTORY)
"""A policy is a few hundred bytes; as many as a bucket can keep are there to go back to."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """A policy that may take the place of the one of ``revision``."""

    policy: Policy
    document: bytes
    """What is stored: JSON for people, with its version."""
    revision: int
    """Revision it was made from, 0 for none."""
    diff: tuple[str, ...]
    """What it changes, as a unified diff; empty when nothing but the version."""


class Version(msgspec.Struct, frozen=True, kw_only=True):
    """One policy of the history."""

    entry: Entry
    policy: Policy | None
    """None for a document that is no policy: edges passed it over."""


class PolicyStore:
    """The policy in a bucket."""

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    async def history(self) -> tuple[Version, ...]:
        """Return what is kept, oldest first, the newest being in force; raise CloudUnreachableError, ConfigError."""
        return tuple([Version(entry=entry, policy=_policy(entry)) for entry in await self._bucket.history(POLICY_KEY)])

    async def proposed(self, document: bytes, *, revision: int | None = None) -> Change:
        """Return the change this document would make; raise CloudUnreachableError, ConfigError naming each bad field.

        Its version becomes the next one, whatever the document says. ``revision`` is the one it was made from, the newest when None.
        """
        history = await self.history()
        newest = history[-1].entry if history else None
        at = newest.revision if newest else 0
        if revision is not None and revision != at:
            raise ConfigError(_stale(revision, at))
        version = 1 + max((known.policy.version for known in history if known.policy), default=0)
        policy, stored = numbered(document, version)
        old = newest.value if newest else b""
        return Change(policy=policy, document=stored, revision=at, diff=difference(old, stored))

    async def apply(self, change: Change) -> int:
        """Put the change in force and return its revision; raise CloudUnreachableError, ConfigError when somebody was quicker."""
        revision = await self._bucket.put(POLICY_KEY, change.document, expected=change.revision)
        if revision is None:
            newest = await self._bucket.get(POLICY_KEY)
            raise ConfigError(_stale(change.revision, newest.revision if newest else 0))
        return revision

    async def earlier(self, revision: int | None = None) -> bytes:
        """Return the document of ``revision``, or of the last good one before the newest; raise ConfigError when there is none."""
        history = await self.history()
        if revision is not None:
            found = [known.entry.value for known in history if known.entry.revision == revision]
            if not found:
                raise ConfigError(f"revision {revision} is not kept; see: xiaozhi-fleet policy history")
            return found[0]
        good = [known.entry.value for known in history[:-1] if known.policy]
        if not good:
            raise ConfigError("there is no earlier policy to go back to; see: xiaozhi-fleet policy history")
        return good[-1]


def numbered(document: bytes, version: int) -> tuple[Policy, bytes]:
    """Return the policy of a document and the document to store, both with this version; raise ConfigError naming each bad field."""
    fields = _fields(document)
    if fields is None:
        raise ConfigError("a policy is a JSON object such as " + '{"threshold": 0.7}')
    fields["version"] = version
    stored = _text({"version": version, **fields}).encode()
    return parse_policy(stored), stored


def difference(old: bytes, new: bytes) -> tuple[str, ...]:
    """Return a unified diff of two documents, whatever the order of their fields and their version."""
    before, after = (_plain(document) for document in (old, new))
    return tuple(difflib.unified_diff(before, after, "in force", "new", lineterm="", n=2))


def _plain(document: bytes) -> list[str]:
    if not document:
        return []
    fields = _fields(document)
    if fields is None:
        return ["(not a policy)"]
    fields.pop("version", None)
    return json.dumps(fields, indent=2, sort_keys=True, ensure_ascii=False).splitlines()


def _fields(document: bytes) -> dict[str, Any] | None:
    try:
        return msgspec.json.decode(document, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return None


def _text(fields: dict[str, Any]) -> str:
    return json.dumps(fields, indent=2, ensure_ascii=False)


def _policy(entry: Entry) -> Policy | None:
    try:
        return parse_policy(entry.value)
    except ConfigError:
        return None


def _stale(made_from: int, newest: int) -> str:
    return (
        f"this change was made from revision {made_from}, but revision {newest} is in force: somebody else changed the policy; "
        "look at it with: xiaozhi-fleet policy show"
    )
