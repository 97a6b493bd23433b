from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import pytest

from benchmarks import routing_first_clause
from benchmarks.requests_zh.request import load_requests
from benchmarks.routing_first_clause import Tried, results_of, tables, try_all
from models.prompts import CompletionDelta, Prompt
from tests.virtual_time import run


class Parrot:
    def __init__(self, alone: str, begun: str) -> None:
        self._alone, self._begun = alone, begun

    async def complete(self, prompt: Prompt) -> AsyncGenerator[CompletionDelta, None]:
        is_begun = prompt.messages[-1].role == "assistant"
        yield CompletionDelta(text=self._begun if is_begun else self._alone)


def test_the_cloud_goes_on_from_what_the_edge_began(monkeypatch: pytest.MonkeyPatch) -> None:
    request = next(
        found for found in load_requests() if found.text.startswith("法国") and isinstance(found.gold, tuple)
    )
    models = {
        routing_first_clause.EDGE: Parrot("", "法国，"),
        routing_first_clause.CLOUD: Parrot("我不知道。", f"是{request.gold[0]}。"),
    }

    @asynccontextmanager
    async def local_model(name: str, **_options: object) -> AsyncGenerator[Parrot, None]:
        yield models[name]

    monkeypatch.setattr(routing_first_clause, "local_model", local_model)
    (tried,) = run(try_all([request], threads=1))
    assert (tried.clause, tried.alone, tried.begun) == ("说到法国，", False, True)


def test_shares_are_of_those_for_which_the_edge_spoke() -> None:
    tried = [
        Tried("说到法国，", 100.0, alone=True, begun=False),
        Tried("说到月亮，", 300.0, alone=False, begun=True),
        Tried("", 800.0, alone=True, begun=True),
    ]
    results = results_of(tried)
    assert (results["requests"], results["spoke_first"]) == (3, 0.6667)
    assert (results["turned_wrong"], results["turned_right"]) == (0.5, 0.5)
    assert results["draft_ms"] == {"p50": 100.0, "p95": 300.0}
    assert results["clauses"] == ["说到月亮，", "说到法国，"]
    assert len(tables(results)) == 1
    assert results_of([Tried("", 1.0, alone=True, begun=True)])["turned_wrong"] == 0.0
