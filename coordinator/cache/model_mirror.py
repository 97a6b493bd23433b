"""Model files in the site's bucket, so that one node's download serves all the others."""

from __future__ import annotations

import io
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from coordinator.cache.object_store import open_client, translated
from models.errors import CacheError
from models.mirror import Report
from models.sources import unreachable

PREFIX = "model/"
"""No kind of value has this name, so no rule of the bucket's lifecycle deletes what lies here."""

_TIMEOUT_S = 10.0
"""Between two pieces of data; an upload's part of 5 MiB has as long, so links below 0.5 MB/s are not served."""
_CHUNK_BYTES = 1 << 18


class ModelMirror:
    """A ``models.mirror.Mirror`` in one bucket; open it with ``connect``. Blocks."""

    def __init__(self, client: Any, bucket: str, url: str) -> None:
        self._client = client
        self._bucket = bucket
        self._url = url
        self._is_reached = False
        self.name = f"S3 bucket {bucket}"

    @classmethod
    @contextmanager
    def connect(
        cls, url: str, bucket: str, *, access_key: str, secret_key: str, timeout_s: float = _TIMEOUT_S
    ) -> Iterator[Self]:
        """Open ``http(s)://host:port`` without asking it anything; a bad address or bucket name is a ConfigError."""
        with open_client(url, bucket, access_key=access_key, secret_key=secret_key, timeout_s=timeout_s) as client:
            yield cls(client, bucket, url)

    def size_bytes(self, digest: str) -> int | None:
        """Return how long the object is, None when there is none; raise CacheError."""
        if not self._is_reached and (reason := unreachable(self._url)):
            raise CacheError(f"not reachable: {reason}")
        self._is_reached = True
        found = translated(lambda: self._client.stat_object(self._bucket, PREFIX + digest), None)
        return None if found is None else int(found.size)

    def read(self, digest: str) -> Generator[bytes]:
        """Yield the object's bytes; raise CacheError when it is not there or breaks off."""
        response = translated(lambda: self._client.get_object(self._bucket, PREFIX + digest), None)
        if response is None:
            raise CacheError("object store: the file has gone")
        try:
            pieces = response.stream(_CHUNK_BYTES)
            while piece := translated(lambda: next(pieces, b""), b""):
                yield piece
        finally:
            response.close()
            response.release_conn()

    def keep(self, digest: str, path: Path, report: Report) -> None:
        """Put the file, in parts when it is large; raise CacheError. Interrupted, it takes back the parts that came."""
        size_bytes = path.stat().st_size
        with path.open("rb") as stream, ThreadPoolExecutor(1, "model-mirror") as thread:
            source = _Stoppable(stream, size_bytes, report)
            try:
                thread.submit(translated, lambda: self._put(digest, source, size_bytes), None).result()
            finally:
                source.is_stopped = True

    def drop(self, digest: str) -> None:
        """Remove the object; raise CacheError."""
        translated(lambda: self._client.remove_object(self._bucket, PREFIX + digest), None)

    def _put(self, digest: str, source: _Stoppable, size_bytes: int) -> None:
        if not self._client.bucket_exists(self._bucket):
            self._client.make_bucket(self._bucket)
        # one part at a time: the client's own threads would outlive an interrupted command
        self._client.put_object(self._bucket, PREFIX + digest, source, size_bytes, num_parallel_uploads=1)


class _Stoppable:
    """A file being read by the client's thread, which ends with an error at the next read once it is stopped."""

    def __init__(self, stream: io.BufferedReader, size_bytes: int, report: Report) -> None:
        self._stream = stream
        self._size_bytes = size_bytes
        self._report = report
        self.is_stopped = False

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes; raise OSError once stopped, at which the client gives its upload up."""
        if self.is_stopped:
            raise OSError("interrupted")
        self._report(self._stream.tell(), self._size_bytes)
        return self._stream.read(size)
