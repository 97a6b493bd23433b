"""Where models lie on disk: pulls them in safely, checks them, and tells engines where their files are."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal, Protocol

import msgspec
import structlog

from models.catalog import CatalogEntry, HubSource, ModelFile, Source, load_catalog
from models.errors import CatalogError
from models.mirror import MirrorRun

ROOT_VARIABLE = "XIAOZHI_FLEET_MODELS"
"""Environment variable with the directory of models."""

_STAMPS = "verified.json"
_LOCK = ".lock"
_WORK = ".work"
_CHUNK_BYTES = 1 << 20
_LOG = structlog.get_logger()


class Fetch(Protocol):
    """What brings bytes; ``models.sources.Fetcher.fetch`` is one."""

    def __call__(
        self, source: Source, file: ModelFile, part: Path, work: Path, progress: Callable[[int, int], None], /
    ) -> None:
        """Bring the bytes of ``file`` into ``part``, going on from what is there; raise CatalogError."""
        ...


Progress = Callable[[str, str, int, int], None]
"""Called with model name, file name, bytes done and bytes in all (0 unknown)."""


class FileState(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of one file on disk."""

    model: str
    file: str
    path: str
    state: Literal["ok", "missing", "corrupt", "unpinned"]
    """``unpinned`` is there, but nothing says which bytes it should hold."""
    size_bytes: int = 0
    sha256: str = ""
    """Of the bytes on disk; "" when they were not read."""
    detail: str = ""
    """What is wrong, and the mend."""


class _Stamp(msgspec.Struct, frozen=True):
    """What a file looked like when its hash was taken."""

    size_bytes: int
    mtime_ns: int
    sha256: str


def default_root() -> Path:
    """Return $XIAOZHI_FLEET_MODELS, or ~/.cache/xiaozhi-fleet/models."""
    chosen = os.environ.get(ROOT_VARIABLE, "")
    return Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "xiaozhi-fleet" / "models"


def locate(name: str, root: Path | None = None) -> dict[str, Path]:
    """Return the files of model ``name`` by role; raise CatalogError naming what is missing or changed, and the mend.

    Looks at names and sizes only, unless a file changed since its hash was taken: then it is hashed once (a second per GB).
    A model that was never pulled is replaced by its fallback if that one was, with a warning in the log.
    """
    entry = load_catalog().entry(name)
    place = (root or default_root()) / entry.name
    if not entry.files:
        raise CatalogError(f"{name} has no files here: {entry.served_by} fetches {entry.upstream} itself")
    if entry.fallback and not is_present(entry, root) and is_present(load_catalog().entry(entry.fallback), root):
        _LOG.warning("model_fallback", model=name, fallback=entry.fallback)
        return locate(entry.fallback, root)
    for file in entry.files:
        state = _look(entry, file, place)
        if state.state in {"missing", "corrupt"}:
            raise CatalogError(state.detail)
    return {file.role: place / file.name for file in entry.files}


def is_present(entry: CatalogEntry, root: Path | None = None) -> bool:
    """Tell whether all files of a model exist, by name only."""
    place = (root or default_root()) / entry.name
    return bool(entry.files) and all((place / file.name).is_file() for file in entry.files)


def verify(entry: CatalogEntry, root: Path | None = None, progress: Progress | None = None) -> list[FileState]:
    """Hash every file of a model and return what was found; blocks about a second per GB."""
    place = (root or default_root()) / entry.name
    return [_inspect(entry, file, place, progress) for file in entry.files]


def pull(
    entry: CatalogEntry,
    root: Path | None = None,
    *,
    fetch: Fetch,
    progress: Progress = lambda _model, _file, _done, _total: None,
    say: Callable[[str], None] = lambda _line: None,
    unpinned: bool = False,
    mirror: MirrorRun | None = None,
) -> list[FileState]:
    """Bring every missing or bad file of a model to disk and return what is there; raise CatalogError.

    ``mirror`` is asked before the file's own sources, and given what came from those. Only bytes with the pinned SHA-256 get their final name, in one step. Interrupting keeps what came, for the next call.
    A second call at the same time waits for the first.
    """
    if not entry.files:
        raise CatalogError(f"{entry.name}: nothing to pull, {entry.served_by} fetches {entry.upstream} itself")
    loose = [file.name for file in entry.files if not file.is_pinned]
    if loose and not unpinned:
        raise CatalogError(
            f"{entry.name}: no SHA-256 is pinned for {', '.join(loose)}; add --unpinned to take what the hub sends"
        )
    place = (root or default_root()) / entry.name
    try:
        place.mkdir(parents=True, exist_ok=True)
        with _locked(place, entry.name, say):
            errand = _Errand(entry, place, fetch, progress, say, mirror)
            states = [errand.run(file) for file in entry.files]
            shutil.rmtree(place / _WORK, ignore_errors=True)
            return states
    except OSError as error:
        raise CatalogError(
            f"{entry.name}: cannot write {error.filename or place}: {error.strerror or error}"
        ) from error


@dataclass(frozen=True, slots=True)
class _Errand:
    """One pull of one model, its lock held."""

    entry: CatalogEntry
    place: Path
    fetch: Fetch
    progress: Progress
    say: Callable[[str], None]
    mirror: MirrorRun | None

    def run(self, file: ModelFile) -> FileState:
        """Bring one file to disk, from the mirror if it is there; raise CatalogError with every source's reason."""
        state = _look(self.entry, file, self.place)
        if state.state in {"ok", "unpinned"}:
            return state
        if state.state == "corrupt":
            self.say(state.detail)
            (self.place / file.name).unlink()
        if not file.is_pinned:
            self._part(file).unlink(missing_ok=True)
        if self.mirror is None:
            return self._from_sources(file)
        label = f"{self.entry.name}/{file.name}"
        incoming = (
            self.place / f"{file.name}.incoming"
        )  # beside what a hub's broken transfer left, which may yet be needed
        if self.mirror.fetch(label, file, incoming, partial(self.progress, self.entry.name, file.name)):
            incoming.replace(self._part(file))
            return self._commit(file, file.sha256)
        state = self._from_sources(file)
        self.mirror.keep(
            label, file, Path(state.path), partial(self.progress, self.entry.name, f"{file.name} (mirror)")
        )
        return state

    def _from_sources(self, file: ModelFile) -> FileState:
        """Bring one file to disk from the first source that has the right bytes; raise CatalogError with every source's reason."""
        failures: list[str] = []
        for number, source in enumerate(file.sources, start=1):
            try:
                return self._commit(file, self._bring_checked(source, file))
            except CatalogError as error:
                failures.append(str(error))
                if number < len(file.sources):
                    self.say(f"{error}; trying the next source")
        if len(failures) == 1:
            raise CatalogError(failures[0])
        raise CatalogError(f"{self.entry.name}/{file.name} could not be had: {'; '.join(failures)}")

    def _bring_checked(self, source: Source, file: ModelFile) -> str:
        """Return the hash of the bytes one source brought, once more from nothing if what was left of an earlier call spoils it."""
        had_remains = self._part(file).exists()
        self._bring(source, file)
        try:
            return self._check(file)
        except CatalogError as error:
            if not had_remains or not isinstance(source, HubSource):
                raise
            self.say(f"{error}; starting again from nothing")
        self._bring(source, file)
        return self._check(file)

    def _bring(self, source: Source, file: ModelFile) -> None:
        """Let one source fill the ``.part`` file; say where the bytes come from once the first have come."""
        has_begun = False

        def report(done: int, total: int) -> None:
            nonlocal has_begun
            if not has_begun:
                self.say(f"{self.entry.name}/{file.name}: from {source}")
                has_begun = True
            self.progress(self.entry.name, file.name, done, total)

        self.fetch(source, file, self._part(file), self.place / _WORK, report)

    def _check(self, file: ModelFile) -> str:
        """Return the hash of the fetched bytes; remove them and raise CatalogError if they are not the pinned ones."""
        part = self._part(file)
        size, digest = part.stat().st_size, _hash(part)
        if file.is_pinned and digest != file.sha256:
            part.unlink()
            shutil.rmtree(self.place / _WORK, ignore_errors=True)
            raise CatalogError(
                f"{self.entry.name}/{file.name}: SHA-256 of the {size} bytes fetched is {digest}, pinned is {file.sha256};"
                " they were removed: pull again, or from another mirror",
            )
        return digest

    def _commit(self, file: ModelFile, digest: str) -> FileState:
        """Give checked bytes their final name so that a crash leaves either nothing or all of them."""
        path, part = self.place / file.name, self._part(file)
        with part.open("rb+") as out:
            os.fsync(out.fileno())
        part.replace(path)
        folder = os.open(self.place, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        _stamp(path, digest)
        size = path.stat().st_size
        self.progress(self.entry.name, file.name, size, size)
        if file.is_pinned:
            self.say(f"{self.entry.name}/{file.name}: {size} bytes, SHA-256 as pinned")
        else:
            self.say(f'{self.entry.name}/{file.name} is not pinned; it is now size_bytes = {size}, sha256 = "{digest}"')
        return _state(self.entry, file, path, "ok" if file.is_pinned else "unpinned", sha256=digest)

    def _part(self, file: ModelFile) -> Path:
        return self.place / f"{file.name}.part"


def _look(entry: CatalogEntry, file: ModelFile, place: Path) -> FileState:
    """Return what is known of a file without reading it, unless it changed since its hash was taken."""
    path = place / file.name
    if not path.is_file():
        return _state(entry, file, path, "missing", detail=f"{path} is missing; {_mend(place)}")
    if not file.is_pinned:
        return _state(entry, file, path, "unpinned")
    found = path.stat()
    stamp = _stamps(place).get(file.name)
    if found.st_size == file.size_bytes and stamp == _Stamp(found.st_size, found.st_mtime_ns, file.sha256):
        return _state(entry, file, path, "ok", sha256=file.sha256)
    return _inspect(entry, file, place)


def _inspect(entry: CatalogEntry, file: ModelFile, place: Path, progress: Progress | None = None) -> FileState:
    """Return what a file holds, by reading all of it if its size is right."""
    path = place / file.name
    if not path.is_file():
        return _look(entry, file, place)
    mend = _mend(place)
    size = path.stat().st_size
    if file.is_pinned and size != file.size_bytes:
        return _state(
            entry, file, path, "corrupt", detail=f"{path} has {size} bytes, pinned are {file.size_bytes}; {mend}"
        )
    try:
        digest = _hash(path, partial(progress, entry.name, file.name) if progress else None)
    except OSError as error:
        return _state(entry, file, path, "corrupt", detail=f"{path} cannot be read: {error.strerror or error}")
    if file.is_pinned and digest != file.sha256:
        detail = f"{path} has SHA-256 {digest}, pinned is {file.sha256}; {mend}"
        return _state(entry, file, path, "corrupt", sha256=digest, detail=detail)
    with contextlib.suppress(OSError):
        _stamp(path, digest)
    return _state(entry, file, path, "ok" if file.is_pinned else "unpinned", sha256=digest)


def _mend(place: Path) -> str:
    """Return what to do about a model that belongs into ``place``."""
    elsewhere = "" if place.parent == default_root() else f" --root {place.parent}"
    return f"run: xiaozhi-fleet models pull {place.name}{elsewhere}"


def _state(
    entry: CatalogEntry,
    file: ModelFile,
    path: Path,
    state: Literal["ok", "missing", "corrupt", "unpinned"],
    *,
    sha256: str = "",
    detail: str = "",
) -> FileState:
    size = path.stat().st_size if path.is_file() else 0
    return FileState(
        model=entry.name, file=file.name, path=str(path), state=state, size_bytes=size, sha256=sha256, detail=detail
    )


def _hash(path: Path, report: Callable[[int, int], None] | None = None) -> str:
    """Return the SHA-256 of a file in lower-case hex."""
    digest, done, size = hashlib.sha256(), 0, path.stat().st_size
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            digest.update(chunk)
            done += len(chunk)
            if report:
                report(done, size)
    return digest.hexdigest()


def _stamps(place: Path) -> dict[str, _Stamp]:
    """Return what is remembered of hashes taken; nothing if it cannot be read."""
    try:
        return msgspec.json.decode((place / _STAMPS).read_bytes(), type=dict[str, _Stamp])
    except (OSError, msgspec.DecodeError):
        return {}


def _stamp(path: Path, digest: str) -> None:
    """Remember the hash of a file as it is now; raise OSError."""
    found = path.stat()
    stamps = _stamps(path.parent) | {path.name: _Stamp(found.st_size, found.st_mtime_ns, digest)}
    fresh = path.parent / f"{_STAMPS}.{os.getpid()}"
    fresh.write_bytes(msgspec.json.format(msgspec.json.encode(stamps)))
    fresh.replace(path.parent / _STAMPS)


@contextlib.contextmanager
def _locked(place: Path, name: str, say: Callable[[str], None]) -> Iterator[None]:
    """Hold the lock of a model's directory; the kernel frees it when the process ends."""
    with (place / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"{name}: another pull is at work; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield
