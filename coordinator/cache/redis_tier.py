"""The second tier: Redis, shared by the processes of a node."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, Self

from models.errors import CacheError, ConfigError

TTL_S = 3600.0
"""Seed value for L2."""
PREFIX = "xiaozhi:"
"""Keeps our keys apart in a Redis that others use."""


class RedisTier:
    """A CacheTier on one Redis server; open it with ``connect``."""

    name = "redis"

    def __init__(self, client: Any, ttl_s: float) -> None:
        self._client = client
        self.ttl_s = ttl_s

    @classmethod
    @asynccontextmanager
    async def connect(cls, url: str, *, ttl_s: float = TTL_S, timeout_s: float = 0.5) -> AsyncGenerator[Self, None]:
        """Open a pool on ``redis://host:port/db``; a server that is away is a CacheError later, a bad URL a ConfigError now."""
        import redis.asyncio
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        try:
            client = redis.asyncio.from_url(
                url,
                max_connections=32,
                retry=Retry(NoBackoff(), 0),
                socket_connect_timeout=timeout_s,
                socket_timeout=timeout_s,
            )
        except ValueError as error:
            raise ConfigError(f"{url!r} is not a Redis address: write redis://host:port/0") from error
        try:
            yield cls(client, ttl_s)
        finally:
            await client.aclose()

    async def get(self, key: str) -> bytes | None:
        """Return the value; raise CacheError when the server is away or holds another type under the key."""
        import redis.exceptions

        try:
            value: bytes | None = await self._client.get(PREFIX + key)
        except (redis.exceptions.RedisError, OSError) as error:
            raise CacheError(f"redis: {type(error).__name__}") from error
        return value

    async def put(self, key: str, value: bytes) -> None:
        """Keep the value; raise CacheError when the server is away or full."""
        import redis.exceptions

        try:
            await self._client.set(PREFIX + key, value, px=int(self.ttl_s * 1000))
        except (redis.exceptions.RedisError, OSError) as error:
            raise CacheError(f"redis: {type(error).__name__}") from error
