"""A soak in small, on real processes and sockets, and what it says of a node that is broken."""

from __future__ import annotations

import io
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from rich.console import Console

from benchmarks import soak, soak_barge
from benchmarks.soak_barge import barge_in
from benchmarks.soak_engines import NumberCompleter, engines
from benchmarks.soak_node import node
from edge.gateway import device_protocol
from edge.gateway.session import DeviceSession
from models.prompts import CompletionDelta, Prompt
from tests.real_time import run

TURN_S = 1.9


def test_a_small_soak_of_every_kind_finds_nothing_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    async def usual_turn_s(_url: str) -> float:
        return TURN_S

    monkeypatch.setattr(soak_barge, "_usual_turn_s", usual_turn_s)
    options = soak.Options(frames=1_000, messages=500, turns=12, barge_ins=12, seed=1)
    results, errors = soak.soaked(options, Console(file=io.StringIO()))
    assert errors == []
    for kind, count in (("frames", 1_000), ("messages", 500)):
        assert (results[kind]["sent"], results[kind]["crashes"], results[kind]["unexpected_errors"]) == (count, 0, 0)
    turns, barge_ins = results["turns"], results["barge_ins"]
    assert turns["answered"] >= 12
    assert (turns["failed"], turns["tasks_left"], turns["fds_left"]) == (0, 0, 0)
    assert (barge_ins["tried"], barge_ins["stuck"], barge_ins["stale_packets"]) == (12, 0, 0)
    assert (barge_ins["tasks_left"], barge_ins["sessions_left"]) == (0, 0)
    assert barge_ins["stop_ms"]["n"] > 0


class FallsSilent(NumberCompleter):
    """A completer that says nothing to whoever was interrupted before."""

    async def complete(self, prompt: Prompt) -> AsyncGenerator[CompletionDelta, None]:
        if sum(message.role == "user" for message in prompt.messages) > 1:
            return
        async for delta in super().complete(prompt):
            yield delta


def test_a_node_that_does_not_answer_after_an_interruption_is_stuck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(soak_barge, "ANSWER_S", 1.5)

    async def work() -> soak_barge.Barged:
        parts = engines()
        broken = type(parts)(parts.detector, parts.recognizer, FallsSilent(), parts.synthesizer)
        async with node(8, broken) as here:
            return await barge_in(here.url, 6, 1, devices=6, turn_s=TURN_S)

    found = run(work())
    assert found.stuck > 0
    assert any("no answer" in line for line in found.told)


def test_a_gateway_that_goes_on_speaking_after_an_abort_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    async def deaf(self: Any, event: device_protocol.Abort) -> None:
        self._say(self._protocol.tts_stop())

    monkeypatch.setattr(DeviceSession, "_abort", deaf)
    monkeypatch.setattr(soak_barge, "ANSWER_S", 1.5)
    monkeypatch.setattr(soak_barge, "WAYS", {"auto": ("button",), "realtime": ("button",)})

    async def work() -> soak_barge.Barged:
        async with node(8, engines()) as here:
            return await barge_in(here.url, 6, 1, devices=6, turn_s=TURN_S)

    found = run(work())
    assert found.stale > 0
    assert any("interrupted turn were heard" in line for line in found.told)
