"""A mirror of model files on the site's own network: asked first, filled by whoever had to fetch from elsewhere.

Nothing a mirror sends is trusted: the bytes count when they have the pinned SHA-256.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Generator
from contextlib import closing
from pathlib import Path
from typing import Protocol

from models.catalog import ModelFile
from models.errors import CacheError

Report = Callable[[int, int], None]
"""Called with the bytes done and in all."""

_PATIENCE_S = 30.0
"""A transfer is judged by its speed from here on."""
_MIN_BYTES_PER_S = 256 << 10
"""Slower than this, a mirror is no help: a mobile link brings as much from a hub. A guess."""


class Mirror(Protocol):
    """Files by their SHA-256 in lower-case hex. Calls block, each for a bounded time between two pieces of data."""

    @property
    def name(self) -> str:
        """What people call it, e.g. ``S3 bucket xiaozhi-cache``."""
        ...

    def size_bytes(self, digest: str) -> int | None:
        """Return how long the file is there, None when it is not there; raise CacheError when the mirror is away."""
        ...

    def read(self, digest: str) -> Generator[bytes]:
        """Yield the file from its beginning; raise CacheError when it breaks off."""
        ...

    def keep(self, digest: str, path: Path, report: Report) -> None:
        """Have the file there, whole or not at all; raise CacheError. Interrupting leaves nothing there."""
        ...

    def drop(self, digest: str) -> None:
        """Remove the file there, if it is there; raise CacheError."""
        ...


class MirrorRun:
    """A mirror during one run of a command.

    It is left alone from its first failure on, so that a dead one costs one wait; one that only refuses to be changed is still read.
    """

    def __init__(
        self, mirror: Mirror, say: Callable[[str], None], *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._mirror = mirror
        self._say = say
        self._now = now
        self._is_away = False
        self._is_fixed = False

    def fetch(self, label: str, file: ModelFile, to: Path, report: Report) -> bool:
        """Bring the pinned bytes of ``file`` into ``to``; return whether they came, having said why if not.

        Raises OSError when they cannot be written. ``to`` exists afterwards only if True is returned.
        """
        if self._is_away or not file.is_pinned:
            return False
        is_whole = False
        try:
            is_whole = self._look_and_take(label, file, to, report)
        except CacheError as error:
            self._is_away = True
            self._say(f"{self._mirror.name}: {error}; going on with the usual sources")
        finally:
            if not is_whole:
                to.unlink(missing_ok=True)
        return is_whole

    def keep(self, label: str, file: ModelFile, path: Path, report: Report) -> None:
        """Put checked bytes into the mirror for other nodes; say so, or why not."""
        if self._is_away or self._is_fixed or not file.is_pinned:
            return
        self._say(f"{label}: to {self._mirror.name}, for other nodes")
        try:
            self._mirror.keep(file.sha256, path, report)
        except CacheError as error:
            self._is_fixed = True
            self._say(f"{self._mirror.name}: {error}; other nodes have to fetch {label} themselves")

    def _look_and_take(self, label: str, file: ModelFile, to: Path, report: Report) -> bool:
        size_bytes = self._mirror.size_bytes(file.sha256)
        if size_bytes is None:
            self._say(f"{label}: not in {self._mirror.name} yet; going on with the usual sources")
            return False
        if size_bytes != file.size_bytes:
            self._refuse(label, file, f"{size_bytes} bytes, pinned are {file.size_bytes}")
            return False
        self._say(f"{label}: from {self._mirror.name}")
        found = self._copy(file, to, report)
        if found != file.sha256:
            self._refuse(label, file, f"bytes with SHA-256 {found}, pinned is {file.sha256}")
            return False
        return True

    def _copy(self, file: ModelFile, to: Path, report: Report) -> str:
        """Write what the mirror sends to ``to``, at most one piece more than pinned; return its SHA-256."""
        digest, done, began_s = hashlib.sha256(), 0, self._now()
        with to.open("wb") as out, closing(self._mirror.read(file.sha256)) as pieces:
            for piece in pieces:
                digest.update(piece)
                done += len(piece)
                out.write(piece)
                report(done, file.size_bytes)
                took_s = self._now() - began_s
                if took_s > _PATIENCE_S and done < took_s * _MIN_BYTES_PER_S:
                    raise CacheError(f"too slow, {done} bytes in {took_s:.0f} s")
                if done > file.size_bytes:
                    break
        return digest.hexdigest()

    def _refuse(self, label: str, file: ModelFile, holds: str) -> None:
        """Say what the mirror has instead of the pinned bytes and remove it there."""
        self._say(f"{label}: {self._mirror.name} holds {holds}; removing it there, going on with the usual sources")
        try:
            self._mirror.drop(file.sha256)
        except CacheError as error:
            self._is_fixed = True
            self._say(f"{self._mirror.name}: {error}; {label} is still wrong there: remove it by hand")
