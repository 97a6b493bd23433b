from __future__ import annotations

import asyncio
import json
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.router_state import ROUTER_FILE, kept_state, read_state
from coordinator.routing.policy import Conditions, Policy
from coordinator.routing.router import Router
from coordinator.turns import Tier
from models.prompts import Message, Prompt
from tests.real_time import run

HARD = Prompt(
    turn_id="t",
    messages=(Message(role="user", text="think hard: prove that the square root of two is irrational, step by step"),),
)


def router(state: object = None) -> Router:
    kept = msgspec.convert(state, dict) if state else {}
    return Router(Policy(budget_per_day=100.0, router="complexity"), None, state=kept, now=lambda: 1_700_000_000.0)


def bought(by: Router) -> Router:
    decision = by.decide(HARD, Conditions())
    assert decision.tier is Tier.CLOUD
    by.charge(decision)
    return by


def test_spending_outlives_a_restart(tmp_path: Path) -> None:
    async def scenario() -> None:
        first = router()
        async with kept_state(first, tmp_path / "new"):
            bought(first)
        again = Router(
            Policy(budget_per_day=100.0, router="complexity"),
            None,
            state=read_state(tmp_path / "new"),
            now=lambda: 1_700_000_000.0,
        )
        (spent, kept) = (lane.budget for lane in (first.state[""], again.state[""]))
        assert spent is not None
        assert kept is not None
        assert (kept.day, kept.spent) == (spent.day, spent.spent)
        assert kept.spent > 0

    run(scenario())


def test_it_is_written_while_it_runs(tmp_path: Path) -> None:
    async def scenario() -> None:
        here = bought(router())
        async with kept_state(here, tmp_path, save_s=0.01):
            async with asyncio.timeout(60):
                while not (tmp_path / ROUTER_FILE).exists():  # noqa: ASYNC110 - a thread writes it
                    await asyncio.sleep(0.01)
            assert read_state(tmp_path) == here.state

    run(scenario())


def test_without_a_directory_nothing_is_written() -> None:
    async def scenario() -> None:
        async with kept_state(router(), None):
            pass

    run(scenario())
    assert read_state(None) == {}


def test_a_directory_that_cannot_be_written_does_not_end_the_service(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    async def scenario() -> None:
        async with kept_state(bought(router()), tmp_path / "file"):
            pass

    run(scenario())


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b'{"": 1}', b"\xff", b"[" * 5000, b'{"": {"budget": {"spent": "much"}}}']
)
def test_a_file_that_holds_something_else_is_passed_over(tmp_path: Path, content: bytes) -> None:
    (tmp_path / ROUTER_FILE).write_bytes(content)
    assert read_state(tmp_path) == {}


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    )
)
def test_no_json_breaks_it(tmp_path_factory: pytest.TempPathFactory, content: object) -> None:
    directory = tmp_path_factory.mktemp("state")
    (directory / ROUTER_FILE).write_text(json.dumps(content))
    read_state(directory)
