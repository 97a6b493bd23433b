from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from coordinator.key_commands import app


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def said(*arguments: str, status: int = 0) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == status, done.output
    return done.output


def test_keys_are_made_listed_and_taken_away(tmp_path: Path) -> None:
    assert "HUB_SEED" in said("new", "edge", "edge-1")
    assert "CLOUD_NATS_NKEY_SEED_FILE" in said("new", "cloud", "pool-a", "--seed", "a.nk")
    assert "--nkey-seed-file" in said("new", "operator", "alice")
    assert {path.name for path in tmp_path.iterdir()} == {"users.conf", "edge-1.nk", "a.nk", "alice.nk"}
    listed = json.loads(said("list", "--json"))
    assert [(user["role"], user["name"]) for user in listed] == [
        ("edge", "edge-1"),
        ("cloud", "pool-a"),
        ("operator", "alice"),
    ]
    assert "edge-1" in said("list")
    assert "restart" in said("revoke", "edge-1")
    assert "edge-1" not in said("list")


def test_what_cannot_be_done_is_one_line() -> None:
    said("new", "edge", "edge-1")
    for wrong in (("new", "edge", "edge-1"), ("new", "edge", "a.b"), ("revoke", "nobody")):
        assert said(*wrong, status=1).startswith("error: ")


def test_a_name_taken_leaves_no_seed_behind(tmp_path: Path) -> None:
    said("new", "edge", "edge-1")
    said("new", "edge", "edge-1", "--seed", "other.nk", status=1)
    assert not (tmp_path / "other.nk").exists()


def test_nobody_is_told_how_to_begin() -> None:
    assert "keys new" in said("list")
