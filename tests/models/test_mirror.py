from __future__ import annotations

import errno
import hashlib
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.catalog import ModelFile
from models.errors import CacheError
from models.mirror import MirrorRun, Report

GOOD = bytes(range(256)) * 8
DIGEST = hashlib.sha256(GOOD).hexdigest()
FILE = ModelFile(role="model", name="m.bin", size_bytes=len(GOOD), sha256=DIGEST, sources=[])


class Shelf:
    """A mirror in memory: what it holds, what it says it holds, and where it breaks."""

    name = "shelf"

    def __init__(self, held: bytes | None = GOOD, *, size_bytes: int | None = None) -> None:
        self.held = held
        self.told_bytes = size_bytes
        self.breaks_after: int | None = None
        self.error: BaseException = CacheError("broke off")
        self.is_away = False
        self.is_fixed = False
        self.calls: list[str] = []

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if self.is_fixed and name in {"keep", "drop"}:
            raise CacheError("AccessDenied")
        if self.is_away:
            raise CacheError("not reachable: refused")

    def size_bytes(self, digest: str) -> int | None:
        assert digest == DIGEST
        self._called("size")
        if self.held is None:
            return None
        return len(self.held) if self.told_bytes is None else self.told_bytes

    def read(self, digest: str) -> Generator[bytes]:
        assert digest == DIGEST
        self._called("read")
        assert self.held is not None
        for start in range(0, len(self.held), 100):
            if self.breaks_after is not None and start >= self.breaks_after:
                raise self.error
            yield self.held[start : start + 100]

    def keep(self, digest: str, path: Path, report: Report) -> None:
        assert digest == DIGEST
        self._called("keep")
        self.held = path.read_bytes()
        report(len(self.held), len(self.held))

    def drop(self, digest: str) -> None:
        assert digest == DIGEST
        self._called("drop")
        self.held = None


def fetched(shelf: Shelf, to: Path, now: Callable[[], float] = lambda: 0.0) -> tuple[bool, list[str], list[int]]:
    said: list[str] = []
    seen: list[int] = []
    run = MirrorRun(shelf, said.append, now=now)
    came = run.fetch("tiny/m.bin", FILE, to, lambda done, _total: seen.append(done))
    return came, said, seen


def test_the_pinned_bytes_come_with_progress(tmp_path: Path) -> None:
    came, said, seen = fetched(Shelf(), tmp_path / "m")
    assert came
    assert (tmp_path / "m").read_bytes() == GOOD
    assert said == ["tiny/m.bin: from shelf"]
    assert seen[0] == 100
    assert seen[-1] == len(GOOD)


@pytest.mark.parametrize(
    ("shelf", "told", "calls"),
    [
        (Shelf(None), "tiny/m.bin: not in shelf yet; going on with the usual sources", ["size"]),
        (Shelf(GOOD[:-1]), "tiny/m.bin: shelf holds 2047 bytes, pinned are 2048; removing it there", ["size", "drop"]),
        (Shelf(GOOD[::-1]), "tiny/m.bin: shelf holds bytes with SHA-256 ", ["size", "read", "drop"]),
        (
            Shelf(GOOD * 2, size_bytes=len(GOOD)),
            "tiny/m.bin: shelf holds bytes with SHA-256 ",
            ["size", "read", "drop"],
        ),
        (Shelf(GOOD[:500], size_bytes=len(GOOD)), "tiny/m.bin: shelf holds bytes with", ["size", "read", "drop"]),
    ],
    ids=["absent", "truncated", "wrong bytes", "longer than told", "shorter than told"],
)
def test_anything_but_the_pinned_bytes_is_refused_and_removed_there(
    tmp_path: Path, shelf: Shelf, told: str, calls: list[str]
) -> None:
    came, said, seen = fetched(shelf, tmp_path / "m")
    assert not came
    assert said[-1].startswith(told)
    assert said[-1].endswith("going on with the usual sources")
    assert shelf.calls == calls
    assert shelf.held is None
    assert max(seen, default=0) <= len(GOOD) + 100
    assert list(tmp_path.iterdir()) == []


@given(st.binary(max_size=300))
def test_whatever_a_mirror_holds_only_the_pinned_bytes_are_taken(
    tmp_path_factory: pytest.TempPathFactory, held: bytes
) -> None:
    to = tmp_path_factory.mktemp("m") / "m"
    came, _, _ = fetched(Shelf(held, size_bytes=len(GOOD)), to)
    assert not came
    assert not to.exists()


def test_a_mirror_that_is_away_is_asked_once_a_run(tmp_path: Path) -> None:
    shelf, said = Shelf(), list[str]()
    shelf.is_away = True
    run = MirrorRun(shelf, said.append)
    for _ in range(3):
        assert not run.fetch("tiny/m.bin", FILE, tmp_path / "m", lambda _done, _total: None)
        run.keep("tiny/m.bin", FILE, tmp_path / "m", lambda _done, _total: None)
    assert shelf.calls == ["size"]
    assert said == ["shelf: not reachable: refused; going on with the usual sources"]


def test_a_transfer_that_breaks_off_leaves_no_file_and_deletes_nothing_there(tmp_path: Path) -> None:
    shelf = Shelf()
    shelf.breaks_after = 500
    came, said, _ = fetched(shelf, tmp_path / "m")
    assert not came
    assert said[-1] == "shelf: broke off; going on with the usual sources"
    assert shelf.held == GOOD
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
def test_ctrl_c_and_a_full_disk_leave_no_partial_file(tmp_path: Path, error: BaseException) -> None:
    shelf = Shelf()
    shelf.breaks_after, shelf.error = 500, error
    with pytest.raises(type(error)):
        fetched(shelf, tmp_path / "m")
    assert shelf.held == GOOD
    assert list(tmp_path.iterdir()) == []


def test_a_mirror_that_only_drips_is_left(tmp_path: Path) -> None:
    clock_s = iter(range(0, 1000, 20))
    came, said, seen = fetched(Shelf(), tmp_path / "m", now=lambda: next(clock_s))
    assert not came
    assert seen == [100, 200]
    assert said[-1] == "shelf: too slow, 200 bytes in 40 s; going on with the usual sources"


def test_checked_bytes_are_put_there_and_unpinned_ones_never_touch_it(tmp_path: Path) -> None:
    path = tmp_path / "m.bin"
    path.write_bytes(GOOD)
    shelf, said = Shelf(None), list[str]()
    run = MirrorRun(shelf, said.append)
    loose = ModelFile(role="model", name="m.bin", sources=[])
    assert not run.fetch("tiny/m.bin", loose, tmp_path / "x", lambda _done, _total: None)
    run.keep("tiny/m.bin", loose, path, lambda _done, _total: None)
    assert (shelf.calls, said) == ([], [])
    run.keep("tiny/m.bin", FILE, path, lambda _done, _total: None)
    assert shelf.held == GOOD
    assert said == ["tiny/m.bin: to shelf, for other nodes"]


def test_a_mirror_that_will_not_keep_is_a_line(tmp_path: Path) -> None:
    shelf, said = Shelf(), list[str]()
    shelf.is_away = True
    MirrorRun(shelf, said.append).keep("tiny/m.bin", FILE, tmp_path / "m", lambda _done, _total: None)
    assert said[-1] == "shelf: not reachable: refused; other nodes have to fetch tiny/m.bin themselves"


def test_a_mirror_that_may_only_be_read_is_still_read(tmp_path: Path) -> None:
    shelf, said = Shelf(GOOD[::-1]), list[str]()
    shelf.is_fixed = True
    run = MirrorRun(shelf, said.append)
    assert not run.fetch("tiny/m.bin", FILE, tmp_path / "m", lambda _done, _total: None)
    assert said[-1] == "shelf: AccessDenied; tiny/m.bin is still wrong there: remove it by hand"
    run.keep("tiny/m.bin", FILE, tmp_path / "m", lambda _done, _total: None)
    shelf.held = GOOD
    assert run.fetch("tiny/m.bin", FILE, tmp_path / "m", lambda _done, _total: None)
    assert shelf.calls == ["size", "read", "drop", "size", "read"]
