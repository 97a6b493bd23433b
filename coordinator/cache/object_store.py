"""The third tier: an S3 bucket (MinIO in the cluster, SeaweedFS on one machine), shared by all edges and slowest to forget.

The ``minio`` client blocks, so it runs in slots. Each object carries the SHA-256 of its bytes; one that does not match is a miss.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import re
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit

from models.errors import CacheError, ConfigError
from models.slots import Slots

TTL_S = 86_400.0
"""Seed value for L3."""
MAX_OBJECT_BYTES = 4 * 1024 * 1024
"""Larger objects are not read back into a turn. A guess, ten times the longest spoken answer."""
T = TypeVar("T")

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_CHECKSUM_BYTES = 32
_TIME_BYTES = 8


class ObjectStoreTier:
    """A CacheTier on one bucket; open it with ``connect``."""

    name = "object-store"

    def __init__(self, client: Any, bucket: str, slots: Slots, ttl_s: float, now: Callable[[], float]) -> None:
        self._client = client
        self._bucket = bucket
        self._slots = slots
        self.ttl_s = ttl_s
        self._now = now
        self._calls: set[asyncio.Task[Any]] = set()
        """Calls under way; an abandoned one ends by its own time-out and holds its slot until then."""

    @classmethod
    @asynccontextmanager
    async def connect(
        cls,
        url: str,
        bucket: str,
        *,
        access_key: str,
        secret_key: str,
        ttl_s: float = TTL_S,
        timeout_s: float = 0.5,
        now: Callable[[], float] = time.time,
    ) -> AsyncGenerator[Self, None]:
        """Open ``http(s)://host:port``; the bucket is made on the first put; a bad address or bucket name is a ConfigError."""
        import urllib3
        from minio import Minio

        parts = urlsplit(url)
        if parts.scheme not in {"http", "https"} or not parts.netloc or parts.path.strip("/"):
            raise ConfigError(f"{url!r} is not an S3 address: write http://host:port or https://host:port")
        pool = urllib3.PoolManager(
            num_pools=1, maxsize=8, timeout=urllib3.Timeout(connect=timeout_s, read=timeout_s), retries=False
        )
        if not _BUCKET.fullmatch(bucket):
            raise ConfigError(f"{bucket!r} is not an S3 bucket name: 3 to 63 lower-case letters, digits, '.' or '-'")
        secure = parts.scheme == "https"
        client = Minio(parts.netloc, access_key=access_key, secret_key=secret_key, secure=secure, http_client=pool)
        slots = Slots("object-store", 4, max_waiting=64, refusal=CacheError)
        tier = cls(client, bucket, slots, ttl_s, now)
        try:
            yield tier
        finally:
            await asyncio.gather(*tier._calls, return_exceptions=True)
            slots.close()
            pool.clear()

    async def get(self, key: str) -> bytes | None:
        """Return the value, None when unknown, too old or damaged; raise CacheError when the store is away."""
        stored = await self._call(lambda: self._read(key))
        return None if stored is None else unwrap(stored, self._now())

    async def put(self, key: str, value: bytes) -> None:
        """Keep the value; raise CacheError when the store is away."""
        stored = wrap(value, self._now() + self.ttl_s)
        await self._call(lambda: self._write(key, stored))

    async def _call(self, work: Callable[[], T]) -> T:
        """Run a blocking call in a slot; when cancelled return at once, for a thread that waits for a dead server cannot be stopped."""
        call = asyncio.create_task(self._in_slot(work), name="object-store")
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            call.cancel()
            raise

    async def _in_slot(self, work: Callable[[], T]) -> T:
        async with self._slots.hold():
            return await self._slots.run(work)

    def _read(self, key: str) -> bytes | None:
        from minio.error import S3Error
        from urllib3.exceptions import HTTPError

        response = None
        try:
            response = self._client.get_object(self._bucket, _object_name(key))
            stored: bytes = response.read(MAX_OBJECT_BYTES + 1)
        except S3Error as error:
            if error.code in {"NoSuchKey", "NoSuchBucket"}:
                return None
            raise CacheError(f"object store: {error.code}") from error
        except (HTTPError, OSError, ValueError) as error:
            raise CacheError(f"object store: {type(error).__name__}") from error
        finally:
            if response is not None:
                response.close()
                response.release_conn()
        return stored

    def _write(self, key: str, stored: bytes) -> None:
        from minio.error import S3Error
        from urllib3.exceptions import HTTPError

        try:
            self._put_object(key, stored)
        except S3Error as error:
            raise CacheError(f"object store: {error.code}") from error
        except (HTTPError, OSError, ValueError) as error:
            raise CacheError(f"object store: {type(error).__name__}") from error

    def _put_object(self, key: str, stored: bytes) -> None:
        from minio.error import S3Error

        try:
            self._client.put_object(self._bucket, _object_name(key), io.BytesIO(stored), len(stored))
        except S3Error as error:
            if error.code != "NoSuchBucket":
                raise
            self._client.make_bucket(self._bucket)
            self._client.put_object(self._bucket, _object_name(key), io.BytesIO(stored), len(stored))


def wrap(value: bytes, expires_at_s: float) -> bytes:
    """Return the stored form: 8 bytes of expiry (Unix ms, big-endian), 32 of SHA-256 over expiry and value, the value."""
    expiry = int(expires_at_s * 1000).to_bytes(_TIME_BYTES, "big")
    return expiry + hashlib.sha256(expiry + value).digest() + value


def unwrap(stored: bytes, now_s: float) -> bytes | None:
    """Return the value, None when it is damaged, cut short or too old."""
    expiry, checksum = stored[:_TIME_BYTES], stored[_TIME_BYTES : _TIME_BYTES + _CHECKSUM_BYTES]
    value = stored[_TIME_BYTES + _CHECKSUM_BYTES :]
    if hashlib.sha256(expiry + value).digest() != checksum or int.from_bytes(expiry, "big") <= now_s * 1000:
        return None
    return value


def _object_name(key: str) -> str:
    return key.replace(":", "/")
