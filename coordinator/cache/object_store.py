"""The third tier: an S3 bucket (MinIO in the cluster, SeaweedFS on one machine), shared by all edges and slowest to forget.

The ``minio`` client blocks, so it runs in slots. The bucket forgets by its lifecycle, in whole days; a value's own time stands in its seal,
as does whether it is whole.
"""

from __future__ import annotations

import asyncio
import io
import math
import re
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from itertools import islice
from typing import Any, Self, TypeVar
from urllib.parse import urlsplit
from xml.etree.ElementTree import ParseError

import structlog

from coordinator.cache.kinds import L3_TTL_S, Kind, TierName, kind_of
from coordinator.cache.sealed import MAX_VALUE_BYTES
from coordinator.cache.tiers import TierSize
from models.errors import CacheError, ConfigError
from models.slots import Slots

_log = structlog.get_logger()

T = TypeVar("T")

_BUCKET = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_DAY_S = 86_400
_PAGE = 500
_THREADS = 4
_KINDS = frozenset(Kind)
_UNKNOWN = frozenset({"NoSuchKey", "NoSuchBucket"})


class ObjectStoreTier:
    """A FarTier on one bucket; open it with ``connect``."""

    name = TierName.OBJECT_STORE

    def __init__(self, client: Any, bucket: str, slots: Slots, keep_days: int) -> None:
        self._client = client
        self._bucket = bucket
        self._slots = slots
        self._keep_days = keep_days
        self._is_made = False
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
        longest_ttl_s: float = L3_TTL_S,
        timeout_s: float = 0.5,
    ) -> AsyncGenerator[Self, None]:
        """Open ``http(s)://host:port``; the bucket is made on the first put; a bad address or bucket name is a ConfigError.

        ``longest_ttl_s`` is after how long the bucket deletes, rounded up to days.
        """
        with open_client(url, bucket, access_key=access_key, secret_key=secret_key, timeout_s=timeout_s) as client:
            slots = Slots("object-store", _THREADS, max_waiting=64, refusal=CacheError)
            tier = cls(client, bucket, slots, max(1, math.ceil(longest_ttl_s / _DAY_S)))
            try:
                yield tier
            finally:
                await asyncio.gather(*tier._calls, return_exceptions=True)
                slots.close()

    async def get(self, key: str) -> bytes | None:
        """Return the bytes, None when unknown; raise CacheError when the store is away or the object too large."""
        return await self._call(lambda: self._read(key))

    async def put(self, key: str, stored: bytes, ttl_s: float) -> None:  # noqa: ARG002  # the bucket's lifecycle, see above
        """Keep the bytes until the bucket's lifecycle ends; raise CacheError when the store is away."""
        await self._call(lambda: self._write(key, stored))

    async def drop(self, key: str) -> None:
        """Forget the bytes; raise CacheError."""
        await self._call(lambda: self._client.remove_object(self._bucket, _object_name(key)))

    async def ping(self) -> None:
        """Return when the store answers; raise CacheError when not."""
        await self._call(lambda: self._client.bucket_exists(self._bucket))

    async def keys(self, prefix: str) -> AsyncGenerator[str, None]:
        """Yield the keys that begin so; raise CacheError."""
        async with aclosing(self._objects(prefix)) as objects:
            async for found in objects:
                yield found.object_name.replace("/", ":")

    async def size(self) -> TierSize:
        """Return how many objects there are and what they take; raise CacheError."""
        entries = held = 0
        async with aclosing(self._objects("")) as objects:
            async for found in objects:
                entries, held = entries + 1, held + (found.size or 0)
        return TierSize(entries=entries, bytes=held)

    async def _objects(self, prefix: str) -> AsyncGenerator[Any, None]:
        """Yield what is remembered; the model files of the same bucket are not, and no purge may reach them."""
        listed: Iterator[Any] = self._client.list_objects(self._bucket, prefix=_object_name(prefix), recursive=True)
        page: list[Any] = []
        while page := await self._call(lambda: list(islice(listed, _PAGE)), unknown=[]):
            for found in page:
                if kind_of(found.object_name.replace("/", ":")) in _KINDS:
                    yield found

    async def _call(self, work: Callable[[], T], *, unknown: T | None = None) -> T:
        """Run a blocking call in a slot; raise CacheError for what it raises, but return ``unknown`` for what is not there.

        Cancelled, it returns at once: a thread that waits for a dead server cannot be stopped.
        """
        call = asyncio.create_task(self._in_slot(lambda: translated(work, unknown)), name="object-store")
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
        response = None
        try:
            response = self._client.get_object(self._bucket, _object_name(key))
            stored: bytes = response.read(MAX_VALUE_BYTES + 1)
        finally:
            if response is not None:
                response.close()
                response.release_conn()
        if len(stored) > MAX_VALUE_BYTES:
            raise CacheError("object store: an object is larger than any of ours")
        return stored

    def _write(self, key: str, stored: bytes) -> None:
        from minio.error import S3Error

        if not self._is_made:
            self._make()
        try:
            self._put(key, stored)
        except S3Error as error:
            if error.code != "NoSuchBucket":
                raise
            self._make()
            self._put(key, stored)

    def _put(self, key: str, stored: bytes) -> None:
        self._client.put_object(self._bucket, _object_name(key), io.BytesIO(stored), len(stored))

    def _make(self) -> None:
        """Make the bucket, if it is not there, and have it forget our kinds of values, nothing else (model files lie there too).

        A store that cannot forget is used all the same.
        """
        from minio.commonconfig import ENABLED, Filter
        from minio.error import S3Error
        from minio.lifecycleconfig import Expiration, LifecycleConfig, Rule

        if not self._client.bucket_exists(self._bucket):
            self._client.make_bucket(self._bucket)
        expiry = Expiration(days=self._keep_days)
        rules = [
            Rule(
                ENABLED, rule_filter=Filter(prefix=_object_name(f"{kind}:")), rule_id=f"cache-{kind}", expiration=expiry
            )
            for kind in Kind
        ]
        try:
            self._client.set_bucket_lifecycle(self._bucket, LifecycleConfig(rules))
        except S3Error as error:
            _log.warning("bucket_does_not_forget", bucket=self._bucket, code=error.code)
        self._is_made = True


@contextmanager
def open_client(url: str, bucket: str, *, access_key: str, secret_key: str, timeout_s: float) -> Iterator[Any]:
    """Yield a ``minio`` client that waits ``timeout_s`` and tries once; a bad address or bucket name is a ConfigError."""
    import urllib3
    from minio import Minio

    parts = urlsplit(url)
    if parts.scheme not in {"http", "https"} or not parts.netloc or parts.path.strip("/"):
        raise ConfigError(f"{url!r} is not an S3 address: write http://host:port or https://host:port")
    if not _BUCKET.fullmatch(bucket):
        raise ConfigError(f"{bucket!r} is not an S3 bucket name: 3 to 63 lower-case letters, digits, '.' or '-'")
    pool = urllib3.PoolManager(
        num_pools=1, maxsize=8, timeout=urllib3.Timeout(connect=timeout_s, read=timeout_s), retries=False
    )
    secure = parts.scheme == "https"
    try:
        yield Minio(parts.netloc, access_key=access_key, secret_key=secret_key, secure=secure, http_client=pool)
    finally:
        pool.clear()


def translated(work: Callable[[], T], unknown: T | None) -> T:
    """Return what a call of the client returns, ``unknown`` for what is not there; raise CacheError for its failures."""
    from minio.error import MinioException, S3Error
    from urllib3.exceptions import HTTPError

    try:
        return work()
    except S3Error as error:
        if error.code in _UNKNOWN:
            return unknown  # type: ignore[return-value]  # the caller's own choice
        raise CacheError(f"object store: {error.code}") from error
    except (MinioException, HTTPError, OSError, ValueError, ParseError) as error:
        raise CacheError(f"object store: {type(error).__name__}") from error


def _object_name(key: str) -> str:
    return key.replace(":", "/")
