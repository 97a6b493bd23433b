from __future__ import annotations

import json
import time
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from coordinator.preloading.foreseen import Content, Foreseen
from edge.preloading import command
from edge.preloading.preparing import HOUR_S
from tests.coordinator.preloading.test_reports import content
from xiaozhi_fleet import app

CONTENTS = (
    Content(content("a"), 0.95, 0.99, 3.0, "zh 猫怕水吗"),
    Content(content("b"), 0.6, 0.7, 0.9, "zh 狗怕水吗"),
    Content(content("c"), 0.9, 0.95, 2.0),
)


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("EDGE_REDIS_URL", "EDGE_S3_URL", "EDGE_REGION"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def foretold(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hub has a forecast of this hour; what is read is listed."""
    asked: list[str] = []

    async def foreseen(_streams: object, group: str) -> Foreseen:
        asked.append(group)
        return Foreseen(group=group, hour=int(time.time() // HOUR_S), contents=CONTENTS)

    def ask(_hub: object, work: Any) -> Foreseen:
        import asyncio

        return asyncio.run(work(None))

    monkeypatch.setattr(command, "_foreseen", foreseen)
    monkeypatch.setattr(command, "ask", ask)
    return asked


def said(*arguments: str, **env: str) -> Result:
    return CliRunner().invoke(app, ["preload", *arguments], env=env)


def test_what_would_be_made_and_what_not_is_shown_with_reasons(foretold: list[str]) -> None:
    shown = said("--dry-run", "--region", "north", COLUMNS="200")
    assert shown.exit_code == 0, shown.output
    assert foretold == ["north"]
    assert "3 contents foretold, 0 in Redis or S3" in shown.stdout
    assert "make 1" in shown.stdout
    assert "猫怕水吗" in shown.stdout
    assert "not sure enough" in shown.stdout


def test_machines_get_everything(foretold: list[str]) -> None:
    told = json.loads(said("--dry-run", "--json").stdout)
    assert foretold == ["everywhere"]
    assert [choice["content"] for choice in told["make"]] == [content("a")]
    assert [choice["content"] for choice in told["refused"]] == [content("b")]
    assert told["texts"][content("a")] == "zh 猫怕水吗"
    assert (told["stored"], told["in_redis"]) == (0, 0)


@pytest.mark.usefixtures("foretold")
def test_copying_needs_both_tiers() -> None:
    refused = said(EDGE_REDIS_URL="redis://127.0.0.1:1/0")
    assert refused.exit_code == 1
    assert "set EDGE_REDIS_URL and EDGE_S3_URL" in refused.stderr


def test_a_hub_that_is_away_is_named(unused_tcp_port: int) -> None:
    refused = said("--dry-run", "--nats-url", f"nats://127.0.0.1:{unused_tcp_port}")
    assert refused.exit_code == 1
    assert str(unused_tcp_port) in refused.stderr
    assert refused.stderr.count("\n") == 1
