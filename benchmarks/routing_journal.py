"""What a run of both models has graded so far, on disk at once, and the outcomes it becomes in the end."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

import msgspec

from benchmarks.requests_zh.request import Request
from models.errors import ConfigError

Side = Literal["edge", "cloud"]


class Graded(msgspec.Struct, frozen=True, kw_only=True):
    """What one model made of one request."""

    id: str
    side: Side
    right: int
    tokens: int
    logprob: float | None = None
    """Mean natural log-probability of the first tokens, None when the engine tells none."""


class About(msgspec.Struct, frozen=True, kw_only=True):
    """How outcomes were made."""

    command: str
    commit: str
    date: str
    edge: str
    edge_sha256: str
    cloud: str
    cloud_sha256: str
    edge_tokens: int
    """Longest answer; so for the cloud's."""
    cloud_tokens: int
    requests_sha256: str

    @property
    def made_by(self) -> tuple[object, ...]:
        """What must be the same for outcomes to be put together."""
        return (self.edge_sha256, self.cloud_sha256, self.edge_tokens, self.cloud_tokens, self.requests_sha256)


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One outcome as ``coordinator.routing.outcomes`` reads it, and what else was seen."""

    id: str
    text: str
    kind: str
    group: str
    edge: int
    cloud: int
    edge_logprob: float | None
    edge_answer_tokens: int
    cloud_answer_tokens: int
    edge_model: str
    cloud_model: str


class _Head(msgspec.Struct, frozen=True):
    about: About


class Journal:
    """The lines of a run so far, in a file that outlives an interrupted one; a context manager."""

    def __init__(self, path: Path, about: About, *, resume: bool) -> None:
        """Open the file; raise ConfigError when it cannot be, is another run's, or is there and ``resume`` is not wanted."""
        self.path = path
        self.graded: dict[tuple[Side, str], Graded] = {}
        kept: list[bytes] = []
        if path.exists():
            if not resume:
                raise ConfigError(f"{path} holds an interrupted run; go on with --resume or delete it")
            kept = _whole_lines(path)
            self._take(kept, about)
        try:
            path.write_bytes(b"".join(kept) or line_of(_Head(about)))
            self._file = path.open("ab")
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error

    def __enter__(self) -> Journal:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file and leave it there."""
        self._file.close()

    def add(self, graded: Graded) -> None:
        """Keep one more; it is on disk when this returns."""
        self.graded[graded.side, graded.id] = graded
        self._file.write(line_of(graded))
        self._file.flush()

    def _take(self, lines: list[bytes], about: About) -> None:
        try:
            head = msgspec.json.decode(lines[0], type=_Head) if lines else _Head(about)
            found = [msgspec.json.decode(line, type=Graded) for line in lines[1:]]
        except msgspec.DecodeError as error:
            raise ConfigError(f"{self.path} is no interrupted run: {error}; delete it") from error
        if head.about.made_by != about.made_by:
            raise ConfigError(f"{self.path} was made with other models, limits or requests; delete it or ask as it did")
        self.graded = {(each.side, each.id): each for each in found}


def _whole_lines(path: Path) -> list[bytes]:
    """Return the lines of the file without a last one cut short."""
    return [line for line in path.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]


def line_of(value: msgspec.Struct) -> bytes:
    """Return a value as one line of JSON."""
    return msgspec.json.encode(value) + b"\n"


def lines_of(requests: Iterable[Request], journal: Journal, about: About) -> Iterator[Line]:
    """Return an outcome for each request that both sides answered."""
    for request in requests:
        edge, cloud = journal.graded.get(("edge", request.id)), journal.graded.get(("cloud", request.id))
        if edge is None or cloud is None:
            continue
        yield Line(
            id=request.id,
            text=request.text,
            kind=request.kind,
            group=request.group,
            edge=edge.right,
            cloud=cloud.right,
            edge_logprob=edge.logprob,
            edge_answer_tokens=edge.tokens,
            cloud_answer_tokens=cloud.tokens,
            edge_model=about.edge,
            cloud_model=about.cloud,
        )


def write_lines(out: Path, about: About, lines: Iterable[Line]) -> None:
    """Write how the outcomes were made and the outcomes; raise ConfigError naming the file when it cannot be written."""
    try:
        out.write_bytes(b"".join([line_of(_Head(about)), *(line_of(line) for line in lines)]))
    except OSError as error:
        raise ConfigError(f"{out} cannot be written: {error.strerror or error}") from error
