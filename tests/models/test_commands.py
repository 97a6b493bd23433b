from __future__ import annotations

import contextlib
import hashlib
import http.server
import json
import os
import signal
import subprocess
import sys
import threading
import wave
from pathlib import Path

import pytest
from typer.testing import CliRunner

from models import commands, store
from models.catalog import Catalog, CatalogEntry, HubSource, ModelFile
from models.sources import HUBS_VARIABLE

GOOD = b"good bytes"
PROJECT = Path(commands.__file__).parents[1]


def make_entry(name: str, **changes) -> CatalogEntry:
    source = HubSource(hub="huggingface", repo=f"maker/{name}", path="m.bin")
    pinned = {"size_bytes": len(GOOD), "sha256": hashlib.sha256(GOOD).hexdigest()}
    file = ModelFile(role="model", name="m.bin", sources=[source], **pinned)
    fields = {
        "role": "voice",
        "stage": "starter",
        "upstream": "maker/m",
        "version": "1",
        "licence": "MIT",
        "commercial": True,
    }
    return CatalogEntry(**({"name": name, "languages": ["zh"], "note": "n", "files": [file]} | fields | changes))


CATALOG = Catalog(
    models=[
        make_entry("tiny"),
        make_entry("lost", fallback="tiny"),
        make_entry("gone"),
        make_entry("served", files=[], served_by="vLLM", commercial=False, licence="research"),
    ],
    sets={"starter": ["tiny"]},
)


@pytest.fixture
def hub(monkeypatch):
    """A hub on loopback that has ``tiny`` only."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path != "/maker/tiny/resolve/main/m.bin":
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(GOOD)))
            self.end_headers()
            self.wfile.write(GOOD)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv(HUBS_VARIABLE, f"modelscope=,huggingface=http://127.0.0.1:{server.server_address[1]}")
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def call(hub, tmp_path, monkeypatch):
    """Run ``models ...`` on the small catalogue, in a root of its own."""
    monkeypatch.setattr(commands, "load_catalog", lambda: CATALOG)
    monkeypatch.setattr(store, "load_catalog", lambda: CATALOG)
    monkeypatch.setenv(store.ROOT_VARIABLE, str(tmp_path))
    return lambda *arguments: CliRunner().invoke(commands.app, list(arguments))


def test_starter_set_is_pulled_by_default_and_then_verified(call, tmp_path):
    result = call("pull")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[:2] == [
        "tiny/m.bin: from huggingface maker/tiny",
        "tiny/m.bin: 10 bytes, SHA-256 as pinned",
    ]
    assert "1 files, 10 B, all there and checked" in result.stdout
    assert (tmp_path / "tiny" / "m.bin").read_bytes() == GOOD
    assert "ok       tiny/m.bin" in call("verify").stdout


def test_pull_prints_json_on_stdout_and_lines_on_stderr(call, tmp_path):
    result = call("pull", "tiny", "--json")
    document = json.loads(result.stdout)
    assert document["root"] == str(tmp_path)
    assert document["size_bytes"] == 10
    assert document["warnings"] == []
    assert [(file["model"], file["state"]) for file in document["files"]] == [("tiny", "ok")]
    assert "SHA-256 as pinned" in result.stderr


class Shelf:
    """A mirror in memory."""

    name = "shelf"

    def __init__(self):
        self.held = {}

    def size_bytes(self, digest):
        return len(self.held[digest]) if digest in self.held else None

    def read(self, digest):
        yield self.held[digest]

    def keep(self, digest, path, report):
        self.held[digest] = path.read_bytes()
        report(0, len(self.held[digest]))


def test_pull_fills_the_mirror_it_was_given_and_takes_from_it_unless_told_not_to(call, tmp_path, monkeypatch):
    shelf = Shelf()

    def pulled(*options):
        arguments = ["pull", "tiny", "--root", str(tmp_path / str(len(shelf.held))), *options]
        return CliRunner().invoke(commands.app, arguments, obj=lambda: contextlib.nullcontext(shelf))

    assert "shelf" not in pulled("--no-mirror").output
    assert shelf.held == {}
    (tmp_path / "0" / "tiny" / "m.bin").unlink()
    assert "tiny/m.bin: to shelf, for other nodes" in pulled().stdout
    monkeypatch.setenv(HUBS_VARIABLE, "none")
    result = pulled("--json")
    assert result.exit_code == 0, result.output
    assert "tiny/m.bin: from shelf" in result.stderr
    assert (tmp_path / "1" / "tiny" / "m.bin").read_bytes() == GOOD


def test_pull_into_another_root_leaves_the_default_alone(call, tmp_path):
    assert call("pull", "tiny", "--root", str(tmp_path / "other")).exit_code == 0
    assert (tmp_path / "other" / "tiny" / "m.bin").exists()
    assert not (tmp_path / "tiny").exists()


def test_fallback_is_pulled_with_a_warning(call, tmp_path):
    result = call("pull", "lost", "--json")
    assert result.exit_code == 0
    (warning,) = json.loads(result.stdout)["warnings"]
    assert "HTTP 404" in warning
    assert warning.endswith("; tiny takes the place of lost")
    assert f"warning: {warning}" in result.stderr
    assert (tmp_path / "tiny" / "m.bin").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["pull", "tinny"], "no model is called 'tinny'; did you mean tiny?"),
        (["pull", "--set", "startr"], "no set of models is called 'startr'; did you mean starter?"),
        (["pull", "gone"], "/maker/gone/resolve/main/m.bin answers HTTP 404"),
        (["pull", "served"], "served: nothing to pull, vLLM fetches maker/m itself"),
        (["verify", "gone", "tiny"], "2 of 2 files are missing or damaged; run: xiaozhi-fleet models pull gone tiny"),
    ],
)
def test_failure_is_one_line_and_status_one(call, arguments, said):
    result = call(*arguments)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert line.endswith(said)


def test_wrong_hub_setting_is_one_line_and_status_one(call, monkeypatch):
    monkeypatch.setenv(HUBS_VARIABLE, "somewhere")
    result = call("pull")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: XIAOZHI_FLEET_HUBS: 'somewhere' is not")


def test_verify_says_what_is_wrong_in_json_too(call, tmp_path):
    call("pull", "tiny")
    (tmp_path / "tiny" / "m.bin").write_bytes(b"bad bytes!")
    result = call("verify", "tiny", "--json")
    document = json.loads(result.stdout)
    assert result.exit_code == 1
    assert document["ok"] is False
    assert document["files"][0]["state"] == "corrupt"


def test_list_shows_state_and_licence(call):
    call("pull", "tiny")
    lines = call("list").stdout.splitlines()
    assert lines[0].split() == ["MODEL", "ROLE", "STAGE", "SIZE", "WHERE", "LANGUAGES", "LICENCE"]
    assert lines[1].split() == ["tiny", "voice", "starter", "10", "B", "here", "zh", "MIT"]
    assert lines[4].endswith("in vLLM  zh         research (!)")
    models = json.loads(call("list", "--json").stdout)["models"]
    assert [(model["name"], model["present"]) for model in models][:2] == [("tiny", True), ("lost", False)]


@pytest.mark.parametrize("command", ["list", "pull", "verify", "quantize"])
def test_help_teaches_by_example(command):
    result = CliRunner().invoke(commands.app, [command, "--help"])
    assert "Examples:" in result.stdout
    assert f"\n    xiaozhi-fleet models {command}" in result.stdout


def test_quantizing_what_is_not_there_or_not_known_is_one_line_and_status_one(call):
    for arguments, said in [
        (["tiny", "--to", "int8"], "tiny/m.bin is missing; run: xiaozhi-fleet models pull tiny"),
        (["tinny", "--to", "int8"], "no model is called 'tinny'; did you mean tiny?"),
    ]:
        result = call("quantize", *arguments)
        assert result.exit_code == 1
        (line,) = result.stderr.splitlines()
        assert line.endswith(said)


@pytest.mark.engine
def test_a_quantized_model_lies_beside_the_pulled_one_and_is_compared_on_recordings(tmp_path):
    source = store.locate("silero-vad")["model"]
    place = tmp_path / "silero-vad"
    place.mkdir()
    (place / source.name).write_bytes(source.read_bytes())
    with wave.open(str(tmp_path / "a.wav"), "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(16_000)
        out.writeframes(bytes(64_000))
    options = ["--to", "int8", "--root", str(tmp_path)]
    result = CliRunner().invoke(commands.app, ["quantize", "silero-vad", *options, "--data", str(tmp_path), "--json"])
    document = json.loads(result.stdout)
    assert document["path"] == str(place / f"{source.stem}.int8.onnx")
    assert document["agreement"]["windows"] == 62
    assert "wrote" in result.stderr
    assert f"int8: {commands._human(document['size_bytes'])}, pulled 2.8 MB" in (
        CliRunner().invoke(commands.app, ["quantize", "silero-vad", *options]).stdout
    )


@pytest.mark.parametrize(("size", "said"), [(0, "0 B"), (522_240, "522.2 kB"), (1_117_320_768, "1.1 GB")])
def test_sizes_are_told_in_decimal_units(size, said):
    assert commands._human(size) == said


def test_line_is_printed_once_and_long_transfers_report_now_and_then(capsys):
    clock_s = 0.0
    with commands._Display(now=lambda: clock_s) as display:
        display.say("hub is away")
        display.say("hub is away")
        for clock_s, done in ((0.0, 1000), (9.0, 2000), (11.0, 3000), (20.0, 4000), (22.0, 5000)):  # noqa: B007 - the clock reads it
            display.progress("m", "f", done, 10_000)
        display.progress("m", "unknown", 1, 0)
    assert capsys.readouterr().out.splitlines() == ["hub is away", "m/f: 3.0 kB of 10.0 kB", "m/f: 5.0 kB of 10.0 kB"]


def test_terminal_gets_a_bar_per_file(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "100")
    with commands._Display() as display:
        display.progress("m", "voice.bin", 1000, 2000)
        display.progress("m", "voice.bin", 2000, 2000)
    shown = capsys.readouterr().out
    assert "voice.bin" in shown
    assert "2.0/2.0 kB" in shown


INTERRUPTED = """
import os
from models import commands
from models.catalog import Catalog, CatalogEntry, HubSource, ModelFile
source = HubSource(hub="huggingface", repo="maker/slow", path="m.bin")
file = ModelFile(role="model", name="m.bin", size_bytes=1000, sha256="0" * 64, sources=[source])
entry = CatalogEntry(name="slow", role="vad", stage="starter", upstream="a/b", version="1", licence="MIT", commercial=True,
                     languages=[], note="", files=[file])
commands.load_catalog = lambda: Catalog(models=[entry], sets={})
commands.app(["pull", "slow"])
"""


def test_ctrl_c_keeps_what_came_and_says_so(hub, tmp_path):
    sent, done = threading.Event(), threading.Event()

    class Stalls(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x" * 400)
            self.wfile.flush()
            sent.set()
            done.wait(30)

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stalls)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    environment = os.environ | {
        HUBS_VARIABLE: f"huggingface=http://127.0.0.1:{server.server_address[1]}",
        store.ROOT_VARIABLE: str(tmp_path),
        "PYTHONUNBUFFERED": "1",
    }
    with subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED],
        cwd=PROJECT,
        env=environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        assert sent.wait(30)
        assert child.stdout is not None
        assert child.stdout.readline() == "slow/m.bin: from huggingface maker/slow\n", "the bytes have come"
        child.send_signal(signal.SIGINT)
        _, complaint = child.communicate(timeout=30)
    done.set()
    server.shutdown()
    server.server_close()
    thread.join()
    assert child.returncode == 130
    assert complaint == f"interrupted: what came is kept in {tmp_path}; the same command goes on from there\n"
    assert (tmp_path / "slow" / "m.bin.part").stat().st_size == 400
