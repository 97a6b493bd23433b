from __future__ import annotations

import errno
import hashlib
import os
import threading
from pathlib import Path

import msgspec
import pytest

from models import store
from models.catalog import Catalog, CatalogEntry, HubSource, ModelFile, NpmSource, WheelSource
from models.errors import CacheError, CatalogError
from models.mirror import MirrorRun

GOOD = b"good bytes"
BAD = b"bad bytes!"
HUB = HubSource(hub="huggingface", repo="maker/m", path="m.bin")
WHEEL = WheelSource(package="m", version="1", member="m.bin")
NPM = NpmSource(package="m", version="1", member="m.bin")


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def make_entry(**changes) -> CatalogEntry:
    file = ModelFile(role="model", name="m.bin", size_bytes=len(GOOD), sha256=sha256(GOOD), sources=[HUB, WHEEL])
    fields = {
        "role": "vad",
        "stage": "starter",
        "upstream": "maker/m",
        "version": "1",
        "licence": "MIT",
        "commercial": True,
    }
    return CatalogEntry(**({"name": "tiny", "languages": ["*"], "note": "n", "files": [file]} | fields | changes))


def with_file(entry: CatalogEntry, **changes) -> CatalogEntry:
    return msgspec.structs.replace(entry, files=[msgspec.structs.replace(entry.files[0], **changes)])


class Sources:
    """Plays sources: what each brings, in order of the calls; an exception is raised."""

    def __init__(self, *outcomes: bytes | BaseException) -> None:
        self.outcomes = list(outcomes)
        self.asked: list[str] = []

    def fetch(self, source, file, part: Path, work: Path, progress, /) -> None:
        self.asked.append(str(source))
        outcome = self.outcomes.pop(0)
        if isinstance(outcome, BaseException):
            raise outcome
        have = part.read_bytes() if part.exists() and isinstance(source, HubSource) else b""
        part.write_bytes(have + outcome[len(have) :])
        work.mkdir(exist_ok=True)
        (work / "kept.whl").write_bytes(b"")
        progress(len(outcome), file.size_bytes)


def names(root: Path) -> list[str]:
    return sorted(path.name for path in (root / "tiny").iterdir() if path.name != ".lock")


@pytest.fixture
def catalog(monkeypatch):
    """Put entries into the catalogue that ``locate`` reads."""

    def put(*entries: CatalogEntry) -> None:
        made = Catalog(models=list(entries), sets={})
        monkeypatch.setattr(store, "load_catalog", lambda: made)

    put(make_entry())
    return put


# ------------------------------------------------------------------------------------------------ pull


def test_pulled_file_has_its_name_and_nothing_else_is_left(tmp_path):
    seen, said = [], []
    states = store.pull(
        make_entry(), tmp_path, fetch=Sources(GOOD).fetch, progress=lambda *event: seen.append(event), say=said.append
    )
    assert [state.state for state in states] == ["ok"]
    assert states[0].sha256 == sha256(GOOD)
    assert names(tmp_path) == ["m.bin", "verified.json"]
    assert (tmp_path / "tiny" / "m.bin").read_bytes() == GOOD
    assert seen[-1] == ("tiny", "m.bin", len(GOOD), len(GOOD))
    assert said == ["tiny/m.bin: from huggingface maker/m", "tiny/m.bin: 10 bytes, SHA-256 as pinned"]


def test_second_pull_fetches_nothing(tmp_path):
    store.pull(make_entry(), tmp_path, fetch=Sources(GOOD).fetch)
    sources = Sources()
    assert store.pull(make_entry(), tmp_path, fetch=sources.fetch)[0].state == "ok"
    assert sources.asked == []


def test_failed_source_is_told_and_the_next_tried(tmp_path):
    said: list[str] = []
    sources = Sources(CatalogError("hub is away"), GOOD)
    store.pull(make_entry(), tmp_path, fetch=sources.fetch, say=said.append)
    assert sources.asked == ["huggingface maker/m", "wheel m 1"]
    assert said[0] == "hub is away; trying the next source"


def test_wrong_bytes_name_the_file_and_both_hashes_and_are_removed(tmp_path):
    entry = with_file(make_entry(), sources=[WHEEL])
    with pytest.raises(CatalogError) as caught:
        store.pull(entry, tmp_path, fetch=Sources(BAD).fetch)
    message = str(caught.value)
    assert message.startswith("tiny/m.bin: SHA-256 of the 10 bytes fetched is ")
    assert sha256(BAD) in message
    assert sha256(GOOD) in message
    assert "pull again" in message
    assert "\n" not in message
    assert names(tmp_path) == []


def test_wrong_bytes_of_one_source_are_replaced_by_the_next(tmp_path):
    said: list[str] = []
    store.pull(make_entry(), tmp_path, fetch=Sources(BAD, GOOD).fetch, say=said.append)
    assert (tmp_path / "tiny" / "m.bin").read_bytes() == GOOD
    assert any(sha256(BAD) in line and "trying the next source" in line for line in said)


def test_all_failures_are_told_when_no_source_works(tmp_path):
    with pytest.raises(CatalogError, match=r"^tiny/m.bin could not be had: away; no npm$"):
        store.pull(make_entry(), tmp_path, fetch=Sources(CatalogError("away"), CatalogError("no npm")).fetch)


def test_spoilt_remains_of_an_earlier_call_cost_one_more_try_not_the_source(tmp_path):
    part = tmp_path / "tiny" / "m.bin.part"
    part.parent.mkdir()
    part.write_bytes(b"bad")
    sources = Sources(GOOD, GOOD)
    store.pull(make_entry(), tmp_path, fetch=sources.fetch)
    assert sources.asked == ["huggingface maker/m"] * 2
    assert (tmp_path / "tiny" / "m.bin").read_bytes() == GOOD


def test_interrupted_pull_keeps_what_came(tmp_path):
    def interrupted(source, file, part, work, progress, /):
        part.write_bytes(GOOD[:4])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.pull(make_entry(), tmp_path, fetch=interrupted)
    assert (tmp_path / "tiny" / "m.bin.part").read_bytes() == GOOD[:4]
    assert store.pull(make_entry(), tmp_path, fetch=Sources(GOOD).fetch)[0].state == "ok"


def test_damaged_file_is_told_and_fetched_again(tmp_path):
    store.pull(make_entry(), tmp_path, fetch=Sources(GOOD).fetch)
    path = tmp_path / "tiny" / "m.bin"
    path.write_bytes(BAD)
    said: list[str] = []
    store.pull(make_entry(), tmp_path, fetch=Sources(GOOD).fetch, say=said.append)
    assert path.read_bytes() == GOOD
    assert sha256(BAD) in said[0]


def test_unpinned_file_is_refused_unless_asked_for(tmp_path):
    entry = with_file(make_entry(), size_bytes=0, sha256="")
    sources = Sources(GOOD)
    with pytest.raises(CatalogError, match=r"no SHA-256 is pinned for m.bin; add --unpinned"):
        store.pull(entry, tmp_path, fetch=sources.fetch)
    assert sources.asked == []
    said: list[str] = []
    states = store.pull(entry, tmp_path, fetch=sources.fetch, say=said.append, unpinned=True)
    assert [(state.state, state.sha256) for state in states] == [("unpinned", sha256(GOOD))]
    assert said[-1] == f'tiny/m.bin is not pinned; it is now size_bytes = 10, sha256 = "{sha256(GOOD)}"'


def test_unpinned_remains_are_never_continued(tmp_path):
    entry = with_file(make_entry(), size_bytes=0, sha256="")
    part = tmp_path / "tiny" / "m.bin.part"
    part.parent.mkdir()
    part.write_bytes(b"of another file")
    store.pull(entry, tmp_path, fetch=Sources(GOOD).fetch, unpinned=True)
    assert (tmp_path / "tiny" / "m.bin").read_bytes() == GOOD


def test_served_model_has_nothing_to_pull(tmp_path):
    with pytest.raises(CatalogError, match=r"tiny: nothing to pull, vLLM fetches maker/m itself"):
        store.pull(make_entry(files=[], served_by="vLLM"), tmp_path, fetch=Sources().fetch)


def test_root_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "tiny").write_text("a file in the way")
    with pytest.raises(CatalogError, match=rf"tiny: cannot write {tmp_path}/tiny: File exists"):
        store.pull(make_entry(), tmp_path, fetch=Sources().fetch)


def test_two_pulls_at_once_fetch_once_and_the_second_waits(tmp_path):
    fetching, waiting, said = threading.Event(), threading.Event(), []

    def slow(source, file, part, work, progress, /):
        fetching.set()
        assert waiting.wait(20)
        part.write_bytes(GOOD)

    def say(line: str) -> None:
        said.append(line)
        waiting.set()

    first = threading.Thread(target=store.pull, args=(make_entry(), tmp_path), kwargs={"fetch": slow})
    first.start()
    assert fetching.wait(20)
    second = Sources()
    states = store.pull(make_entry(), tmp_path, fetch=second.fetch, say=say)
    first.join()
    assert said == ["tiny: another pull is at work; waiting for it"]
    assert [state.state for state in states] == ["ok"]
    assert second.asked == []


# ------------------------------------------------------------------------------------------------ locate


def test_pulled_model_is_located_by_role(tmp_path, catalog):
    store.pull(make_entry(), tmp_path, fetch=Sources(GOOD).fetch)
    assert store.locate("tiny", tmp_path) == {"model": tmp_path / "tiny" / "m.bin"}


def test_missing_model_names_the_mend(tmp_path, catalog, monkeypatch):
    with pytest.raises(
        CatalogError, match=rf"m.bin is missing; run: xiaozhi-fleet models pull tiny --root {tmp_path}$"
    ):
        store.locate("tiny", tmp_path)
    monkeypatch.setenv(store.ROOT_VARIABLE, str(tmp_path))
    with pytest.raises(CatalogError, match=r"run: xiaozhi-fleet models pull tiny$"):
        store.locate("tiny")


def test_file_of_another_size_is_refused(tmp_path, catalog):
    store.pull(make_entry(), tmp_path, fetch=Sources(GOOD).fetch)
    (tmp_path / "tiny" / "m.bin").write_bytes(b"short")
    with pytest.raises(CatalogError, match="has 5 bytes, pinned are 10"):
        store.locate("tiny", tmp_path)


def test_file_changed_since_its_hash_is_read_again_and_refused(tmp_path, catalog):
    store.pull(make_entry(), tmp_path, fetch=Sources(GOOD).fetch)
    (tmp_path / "tiny" / "m.bin").write_bytes(BAD)
    with pytest.raises(CatalogError, match=f"has SHA-256 {sha256(BAD)}, pinned is {sha256(GOOD)}"):
        store.locate("tiny", tmp_path)


def test_unchanged_file_is_not_read(tmp_path, catalog, monkeypatch):
    store.pull(make_entry(), tmp_path, fetch=Sources(GOOD).fetch)
    monkeypatch.setattr(store, "_hash", None)
    store.locate("tiny", tmp_path)


@pytest.mark.parametrize("stamps", [None, b"{", b'{"m.bin": 3}'])
def test_lost_stamp_costs_one_reading(tmp_path, catalog, monkeypatch, stamps):
    store.pull(make_entry(), tmp_path, fetch=Sources(GOOD).fetch)
    path = tmp_path / "tiny" / "verified.json"
    path.unlink()
    if stamps is not None:
        path.write_bytes(stamps)
    store.locate("tiny", tmp_path)
    monkeypatch.setattr(store, "_hash", None)
    store.locate("tiny", tmp_path)


def test_fallback_is_located_when_only_it_was_pulled(tmp_path, catalog):
    main, spare = make_entry(fallback="spare"), make_entry(name="spare")
    catalog(main, spare)
    store.pull(spare, tmp_path, fetch=Sources(GOOD).fetch)
    assert store.locate("tiny", tmp_path) == {"model": tmp_path / "spare" / "m.bin"}
    store.pull(main, tmp_path, fetch=Sources(GOOD).fetch)
    assert store.locate("tiny", tmp_path) == {"model": tmp_path / "tiny" / "m.bin"}


def test_missing_fallback_leaves_the_first_choice_to_blame(tmp_path, catalog):
    catalog(make_entry(fallback="spare"), make_entry(name="spare"))
    with pytest.raises(CatalogError, match="models pull tiny"):
        store.locate("tiny", tmp_path)


def test_served_model_has_no_files_to_locate(tmp_path, catalog):
    catalog(make_entry(files=[], served_by="vLLM"))
    with pytest.raises(CatalogError, match="vLLM fetches maker/m itself"):
        store.locate("tiny", tmp_path)


def test_unpinned_model_is_located_once_there(tmp_path, catalog):
    entry = with_file(make_entry(), size_bytes=0, sha256="")
    catalog(entry)
    store.pull(entry, tmp_path, fetch=Sources(GOOD).fetch, unpinned=True)
    assert store.locate("tiny", tmp_path) == {"model": tmp_path / "tiny" / "m.bin"}


@pytest.mark.parametrize(
    ("value", "root"),
    [("", Path.home() / ".cache/xiaozhi-fleet/models"), ("/data/m", Path("/data/m")), ("~/m", Path.home() / "m")],
)
def test_default_root_follows_the_environment(value, root, monkeypatch):
    monkeypatch.setenv(store.ROOT_VARIABLE, value)
    assert store.default_root() == root


# ------------------------------------------------------------------------------------------------ verify


def damage_nothing(path: Path) -> None:
    pass


def damage_size(path: Path) -> None:
    path.write_bytes(b"")


def damage_bytes(path: Path) -> None:
    """Change content behind the stamp's back."""
    before = path.stat()
    path.write_bytes(BAD)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    ("damage", "state", "detail"),
    [
        (damage_nothing, "ok", ""),
        (Path.unlink, "missing", "is missing"),
        (damage_size, "corrupt", "has 0 bytes, pinned are 10"),
        (damage_bytes, "corrupt", f"has SHA-256 {sha256(BAD)}, pinned is {sha256(GOOD)}"),
    ],
)
def test_verify_finds_every_kind_of_damage(tmp_path, damage, state, detail):
    store.pull(make_entry(), tmp_path, fetch=Sources(GOOD).fetch)
    damage(tmp_path / "tiny" / "m.bin")
    seen = []
    found = store.verify(make_entry(), tmp_path, lambda *event: seen.append(event))
    assert [item.state for item in found] == [state]
    assert detail in found[0].detail
    assert seen in ([], [("tiny", "m.bin", 10, 10)])


def test_file_that_cannot_be_read_is_named(tmp_path, monkeypatch, catalog):
    def refuse(path, report=None):
        raise PermissionError(13, "Permission denied")

    store.pull(make_entry(), tmp_path, fetch=Sources(GOOD).fetch)
    (tmp_path / "tiny" / "verified.json").unlink()
    monkeypatch.setattr(store, "_hash", refuse)
    with pytest.raises(CatalogError, match=r"m.bin cannot be read: Permission denied"):
        store.locate("tiny", tmp_path)


def test_verify_reports_unpinned_with_its_hash(tmp_path):
    entry = with_file(make_entry(), size_bytes=0, sha256="")
    store.pull(entry, tmp_path, fetch=Sources(GOOD).fetch, unpinned=True)
    assert [(item.state, item.sha256) for item in store.verify(entry, tmp_path)] == [("unpinned", sha256(GOOD))]


def test_presence_goes_by_name_only(tmp_path):
    assert not store.is_present(make_entry(), tmp_path)
    store.pull(make_entry(), tmp_path, fetch=Sources(GOOD).fetch)
    assert store.is_present(make_entry(), tmp_path)
    assert not store.is_present(make_entry(files=[], served_by="vLLM"), tmp_path)


# ---------------------------------------------------------------------------------------------- mirror


class Shelf:
    """A mirror in memory; an exception is raised in the middle of what it sends."""

    name = "shelf"

    def __init__(self, held: bytes | None, error: BaseException | None = None) -> None:
        self.held = held
        self.error = error

    def size_bytes(self, _digest):
        return None if self.held is None else len(GOOD)

    def read(self, _digest):
        yield self.held[:4]
        if self.error:
            raise self.error
        yield self.held[4:]

    def keep(self, _digest, path, _report):
        self.held = path.read_bytes()

    def drop(self, _digest):
        self.held = None


def pull_with(shelf: Shelf, root: Path, sources: Sources) -> list[str]:
    said: list[str] = []
    store.pull(make_entry(), root, fetch=sources.fetch, say=said.append, mirror=MirrorRun(shelf, said.append))
    assert (root / "tiny" / "m.bin").read_bytes() == GOOD
    assert names(root) == ["m.bin", "verified.json"]
    return said


def test_what_the_mirror_has_is_asked_of_no_source(tmp_path):
    sources = Sources()
    assert pull_with(Shelf(GOOD), tmp_path, sources) == [
        "tiny/m.bin: from shelf",
        "tiny/m.bin: 10 bytes, SHA-256 as pinned",
    ]
    assert sources.asked == []
    assert pull_with(Shelf(None), tmp_path, sources) == [], "what is here already is nobody's business"


@pytest.mark.parametrize("held", [None, BAD])
def test_what_the_mirror_lacks_or_has_wrong_is_fetched_and_put_there(tmp_path, held):
    shelf, sources = Shelf(held), Sources(GOOD)
    said = pull_with(shelf, tmp_path, sources)
    assert sources.asked == ["huggingface maker/m"]
    assert shelf.held == GOOD
    assert said[-1] == "tiny/m.bin: to shelf, for other nodes"


def test_a_mirror_that_breaks_off_does_not_spoil_what_a_hub_left(tmp_path):
    part = tmp_path / "tiny" / "m.bin.part"
    part.parent.mkdir()
    part.write_bytes(GOOD[:6])
    pull_with(Shelf(BAD, CacheError("broke off")), tmp_path, Sources(GOOD))


def test_a_full_disk_is_one_clear_line_and_no_partial_file(tmp_path):
    full = OSError(errno.ENOSPC, "No space left on device")
    run = MirrorRun(Shelf(GOOD, full), lambda _line: None)
    with pytest.raises(CatalogError, match=r"^tiny: cannot write .*tiny: No space left on device$"):
        store.pull(make_entry(), tmp_path, fetch=Sources().fetch, mirror=run)
    assert names(tmp_path) == []


def test_ctrl_c_in_a_transfer_from_the_mirror_leaves_no_partial_file(tmp_path):
    run = MirrorRun(Shelf(GOOD, KeyboardInterrupt()), lambda _line: None)
    with pytest.raises(KeyboardInterrupt):
        store.pull(make_entry(), tmp_path, fetch=Sources().fetch, mirror=run)
    assert names(tmp_path) == []
