from __future__ import annotations

import pytest
from click.testing import Result
from typer.testing import CliRunner

from edge.cache_commands import app


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EDGE_REDIS_URL", "EDGE_S3_URL"):
        monkeypatch.delenv(name, raising=False)


def said(*arguments: str, redis: str = "") -> Result:
    return CliRunner().invoke(app, list(arguments), env={"EDGE_REDIS_URL": redis} if redis else {})


@pytest.mark.parametrize("command", [["stats"], ["get", "水的沸点是多少度"], ["purge", "--scope", "all", "--dry-run"]])
def test_without_a_tier_it_is_said_what_to_set(command: list[str]) -> None:
    refused = said(*command)
    assert refused.exit_code == 1
    assert "set EDGE_REDIS_URL" in refused.stderr
    assert refused.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["purge"], "say what"),
        (["purge", "--scope", "all", "--question", "水的沸点是多少度"], "say what"),
        (["get", "现在几点了"], "never remembered"),
        (["purge", "--question", "把灯打开"], "never remembered"),
    ],
)
def test_what_cannot_be_asked_for_is_refused_before_anybody_is_asked(command: list[str], told: str) -> None:
    refused = said(*command, redis="redis://127.0.0.1:1/0")
    assert refused.exit_code == 1
    assert told in refused.stderr


def test_a_scope_that_is_none_is_refused_with_those_there_are() -> None:
    refused = said("purge", "--scope", "everything", redis="redis://127.0.0.1:1/0")
    assert refused.exit_code == 2
    assert "transcripts" in refused.output


@pytest.mark.parametrize("command", [["get", "水的沸点是多少度"], ["purge", "--scope", "all", "--dry-run"]])
def test_a_redis_that_is_away_is_named(command: list[str], unused_tcp_port: int) -> None:
    refused = said(*command, redis=f"redis://127.0.0.1:{unused_tcp_port}/0")
    assert refused.exit_code == 1
    assert "redis" in refused.stderr


def test_a_tier_that_is_away_is_told_among_the_figures(unused_tcp_port: int) -> None:
    shown = said("stats", redis=f"redis://127.0.0.1:{unused_tcp_port}/0")
    assert shown.exit_code == 0
    assert shown.stdout.startswith("redis: redis: ConnectionError")
