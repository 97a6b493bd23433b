"""What a tier of the cache does: keep bytes under a key for a while, and say so when it cannot."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol, runtime_checkable

import msgspec


class TierSize(msgspec.Struct, frozen=True, kw_only=True):
    """What a tier holds of ours."""

    entries: int
    bytes: int


class NearTier(Protocol):
    """This process's own memory: it answers at once and never fails."""

    def get(self, key: str) -> bytes | None:
        """Return the value, None when unknown or too old."""
        ...

    def put(self, key: str, value: bytes, ttl_s: float) -> None:
        """Keep the value for ``ttl_s`` at most."""
        ...

    def drop(self, key: str) -> None:
        """Forget the value."""
        ...

    def purge(self, prefix: str) -> None:
        """Forget all whose key begins so, and maybe others of their kind."""
        ...


class FarTier(Protocol):
    """A place that others share, behind a network: it may be away, slow, full, or lie."""

    @property
    def name(self) -> str:
        """Label for metrics and terms: a TierName."""
        ...

    async def get(self, key: str) -> bytes | None:
        """Return the bytes, None when unknown; raise CacheError when broken."""
        ...

    async def put(self, key: str, stored: bytes, ttl_s: float) -> None:
        """Keep the bytes for ``ttl_s`` at least; raise CacheError when broken."""
        ...

    async def drop(self, key: str) -> None:
        """Forget the bytes; raise CacheError when broken."""
        ...

    async def ping(self) -> None:
        """Return when it answers; raise CacheError when it does not."""
        ...

    def keys(self, prefix: str) -> AsyncGenerator[str, None]:
        """Yield the keys that begin so, a page at a time; raise CacheError. For people: it may take seconds."""
        ...

    async def size(self) -> TierSize:
        """Return what is held; raise CacheError. It may take seconds."""
        ...


@runtime_checkable
class Leasing(Protocol):
    """A tier that lets one node at a time make a value."""

    @property
    def name(self) -> str:
        """Its name as a tier."""
        ...

    async def lease(self, key: str, ttl_s: float) -> str | None:
        """Return a token when nobody else makes this value, None when somebody does; raise CacheError."""
        ...

    async def release(self, key: str, token: str) -> None:
        """Give a lease back; nothing happens when it is somebody else's by now. Raises CacheError."""
        ...
