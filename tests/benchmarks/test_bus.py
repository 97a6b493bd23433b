from __future__ import annotations

import asyncio
from io import StringIO
from typing import Any

import pytest
from rich.console import Console

from benchmarks.bus import TARGETS, hierarchy, tables_of
from benchmarks.bus_load import prompt_of
from benchmarks.bus_site import EDGE, POOL
from coordinator.memory_bus import MemoryBus
from coordinator.remote import RemoteCompleter
from tests.virtual_time import run

RATE = {"per_s": 1600.0, "cpu_us": {"edge": 100.0, "worker-1": 300.0}, "cores": 1.5, "failed": 0}


def results(**changed: Any) -> dict[str, Any]:
    return {
        "requests_per_s": 1600.0,
        "frames_per_s": 70_000.0,
        "added_ms": {"p50": 1.5, "p99": 9.0},
        "cancel_ms": {"p50": 2.0, "p95": 8.0},
        "tokens_after_cancel": 0.01,
        "rates": {"requests": RATE},
    } | changed


def text_of(results: dict[str, Any]) -> str:
    console = Console(width=160, record=True, file=StringIO())
    for table in tables_of(results):
        console.print(table)
    return console.export_text()


@pytest.mark.parametrize(
    ("changed", "kept"),
    [
        ({}, 4),
        ({"requests_per_s": 1499.0}, 3),
        ({"added_ms": {"p50": 2.1, "p99": 9.0}}, 3),
        ({"cancel_ms": {"p50": None, "p95": None}}, 3),
        ({"tokens_after_cancel": 0.03}, 3),
    ],
)
def test_a_promise_is_kept_only_when_it_was_measured(changed: dict[str, Any], kept: int) -> None:
    text = text_of(results(**changed))
    assert text.count("yes") == kept
    assert len(TARGETS) == 4


def test_rates_come_with_what_they_cost_each_process() -> None:
    text = text_of(results())
    assert "worker-1" in text
    assert "300" in text
    assert "70000" in text


def test_the_edge_s_hierarchy_asks_the_road() -> None:
    async def scenario() -> None:
        road = RemoteCompleter(MemoryBus(), POOL, EDGE, now=asyncio.get_running_loop().time)
        decision = hierarchy(road)._decide(prompt_of("8 0 0 -"))
        assert decision.pool == POOL

    run(scenario())
