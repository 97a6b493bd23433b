from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from coordinator.cache.kinds import Kind
from coordinator.cache.model_mirror import PREFIX, ModelMirror, _Stoppable
from models.errors import CacheError, ConfigError

DIGEST = "a" * 64


def connected(url: str) -> ModelMirror:
    with ModelMirror.connect(url, "bucket", access_key="a", secret_key="b", timeout_s=0.2) as mirror:
        return mirror


@pytest.fixture
def deaf() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


CALLS: list[Callable[[ModelMirror, Path], object]] = [
    lambda mirror, _: mirror.size_bytes(DIGEST),
    lambda mirror, _: list(mirror.read(DIGEST)),
    lambda mirror, path: mirror.keep(DIGEST, path, lambda _done, _total: None),
    lambda mirror, _: mirror.drop(DIGEST),
]


@pytest.mark.parametrize("call", CALLS, ids=["size", "read", "keep", "drop"])
def test_a_store_that_is_away_or_never_answers_is_a_cache_error(
    tmp_path: Path, unused_tcp_port: int, deaf: str, call: Callable[[ModelMirror, Path], object]
) -> None:
    path = tmp_path / "m"
    path.write_bytes(b"bytes")
    for url in (f"http://127.0.0.1:{unused_tcp_port}", deaf):
        with pytest.raises(CacheError):
            call(connected(url), path)


@pytest.mark.parametrize("url", ["", "ftp://x", "http://host:1/path"])
def test_a_bad_address_names_itself(url: str) -> None:
    with pytest.raises(ConfigError, match="not an S3 address"):
        connected(url)


def test_an_object_that_ends_before_its_length_is_a_cache_error() -> None:
    class Truncates(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x" * 400)
            self.close_connection = True

        def log_message(self, *_arguments: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Truncates)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        mirror = connected(f"http://127.0.0.1:{server.server_address[1]}")
        mirror._client._region_map["bucket"] = "us-east-1"  # else it asks this server
        with pytest.raises(CacheError, match=r"IncompleteRead|ProtocolError"):
            list(mirror.read(DIGEST))
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_no_kind_of_value_shares_the_prefix() -> None:
    assert PREFIX.rstrip("/") not in set(Kind)


def test_a_stopped_file_reads_no_more(tmp_path: Path) -> None:
    path, seen = tmp_path / "m", list[tuple[int, int]]()
    path.write_bytes(b"0123456789")
    with path.open("rb") as stream:
        source = _Stoppable(stream, 10, lambda *at: seen.append(at))
        assert source.read(4) == b"0123"
        assert source.read(4) == b"4567"
        source.is_stopped = True
        with pytest.raises(OSError, match="interrupted"):
            source.read(4)
    assert seen == [(0, 10), (4, 10)]
