"""The second tier: Redis, one server or a cluster, shared by the processes of a node or a site.

A value is written by one SET and read by one GET, so half a value is never seen; whether it is the right one says its seal.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, Awaitable, Generator
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any, Self

from coordinator.cache.kinds import TierName
from coordinator.cache.tiers import TierSize
from models.errors import CacheError, ConfigError

PREFIX = "xiaozhi:"
"""Keeps our keys apart in a Redis that others use."""
_LEASE = "lease:"
_CLUSTER = "redis+cluster://"
_PAGE = 500
_STUMBLES = (ValueError, TypeError, LookupError, AttributeError)
"""What the library's parser and its callbacks raise for ":abc", "$-5", or a number where a list belongs."""
_RELEASE = "if redis.call('get', KEYS[1]) == ARGV[1] then return redis.call('del', KEYS[1]) end return 0"


class RedisTier:
    """A FarTier on Redis; open it with ``connect``."""

    name = TierName.REDIS

    def __init__(self, client: Any) -> None:
        self._client = client
        self._calls: set[asyncio.Task[Any]] = set()
        """Calls under way; one that is abandoned ends by its own time-out: cancelled while it connects, it would leave a socket behind."""

    @classmethod
    @asynccontextmanager
    async def connect(cls, url: str, *, timeout_s: float = 0.5) -> AsyncGenerator[Self, None]:
        """Open a pool on ``redis://host:port/db`` or a cluster of which ``redis+cluster://host:port`` is one node.

        A server that is away is a CacheError later, a bad URL a ConfigError now.
        """
        client = _client(url, timeout_s)
        tier = cls(client)
        try:
            yield tier
        finally:
            await asyncio.gather(*tier._calls, return_exceptions=True)
            await client.aclose()

    async def get(self, key: str) -> bytes | None:
        """Return the bytes; raise CacheError when the server is away or holds another type under the key."""
        stored = await self._call(self._client.get(PREFIX + key))
        if stored is None or isinstance(stored, bytes):
            return stored
        raise CacheError(f"redis: GET was answered with {type(stored).__name__}")

    async def put(self, key: str, stored: bytes, ttl_s: float) -> None:
        """Keep the bytes; raise CacheError when the server is away or full."""
        if not await self._call(self._client.set(PREFIX + key, stored, px=max(1, int(ttl_s * 1000)))):
            raise CacheError("redis: SET was not answered with OK")

    async def drop(self, key: str) -> None:
        """Forget the bytes, of whatever type; raise CacheError."""
        await self._call(self._client.unlink(PREFIX + key))

    async def ping(self) -> None:
        """Return when the server, in a cluster every one, answers; raise CacheError when not."""
        await self._call(self._client.ping())

    async def keys(self, prefix: str) -> AsyncGenerator[str, None]:
        """Yield the keys that begin so, by SCAN: one may come twice, one written meanwhile not at all. Raises CacheError."""
        pattern = f"{_escaped(PREFIX + prefix)}*"
        with _translated():
            found = self._client.scan_iter(match=pattern, count=_PAGE)
            async with aclosing(found):
                async for key in found:
                    yield key.decode(errors="replace").removeprefix(PREFIX)

    async def size(self) -> TierSize:
        """Return how many of our keys there are and what their values take; raise CacheError. It asks for each."""
        entries = held = 0
        async with aclosing(self.keys("")) as keys:
            async for key in keys:
                entries += 1
                held += await self._call(self._client.memory_usage(PREFIX + key)) or 0
        return TierSize(entries=entries, bytes=held)

    async def lease(self, key: str, ttl_s: float) -> str | None:
        """Return a token when nobody else makes this value, None when somebody does; raise CacheError."""
        token = uuid.uuid4().hex
        left_ms = max(1, int(ttl_s * 1000))
        is_ours = await self._call(self._client.set(PREFIX + _LEASE + key, token, nx=True, px=left_ms))
        return token if is_ours else None

    async def release(self, key: str, token: str) -> None:
        """Give a lease back; nothing happens when it is somebody else's by now. Raises CacheError."""
        await self._call(self._client.eval(_RELEASE, 1, PREFIX + _LEASE + key, token))

    async def _call(self, command: Awaitable[Any]) -> Any:
        """Return what the command returns; raise CacheError for what it raises. Cancelled, this returns at once and the call goes on."""
        call = asyncio.ensure_future(_translating(command))
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            call.add_done_callback(_unheard)
            raise


def _client(url: str, timeout_s: float) -> Any:
    import redis.asyncio
    from redis.asyncio.cluster import RedisCluster
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    terms: dict[str, Any] = {"socket_connect_timeout": timeout_s, "socket_timeout": timeout_s}
    try:
        if url.startswith(_CLUSTER):
            retry = Retry(NoBackoff(), 1)  # one more try after the cluster said that a key has moved
            return RedisCluster.from_url("redis://" + url.removeprefix(_CLUSTER), retry=retry, **terms)
        return redis.asyncio.from_url(url, max_connections=64, retry=Retry(NoBackoff(), 0), **terms)
    except ValueError as error:
        raise ConfigError(
            f"{url!r} is not a Redis address: write redis://host:port/0, or redis+cluster://host:port"
        ) from error


async def _translating(command: Awaitable[Any]) -> Any:
    with _translated():
        return await command


def _unheard(call: asyncio.Future[Any]) -> None:
    """Take note of how an abandoned call ended, so that nobody is warned that nobody did."""
    if not call.cancelled():
        call.exception()


@contextmanager
def _translated() -> Generator[None, None, None]:
    """Raise CacheError for whatever the library raises, also where it stumbles over a reply that no Redis sends."""
    import redis.exceptions

    try:
        yield
    except (redis.exceptions.RedisError, redis.exceptions.RedisClusterException, OSError, *_STUMBLES) as error:
        raise CacheError(f"redis: {type(error).__name__}") from error


def _escaped(text: str) -> str:
    """Return ``text`` as a pattern of SCAN that matches it alone."""
    return "".join(f"\\{character}" if character in "*?[]^\\" else character for character in text)
