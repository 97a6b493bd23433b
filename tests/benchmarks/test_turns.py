from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from benchmarks.__main__ import NAMES, main, usage
from benchmarks.turns import SENTENCES, Case, Measured, Records, cases, errors_of, results_of, rss_mib, tables_of
from coordinator import wire
from coordinator.cache.keys import is_memorable
from coordinator.memory_bus import MemoryBus
from coordinator.routing.complexity import THRESHOLD, complexity
from coordinator.turns import Marks, RoutingDecision, Tier, TurnRecord
from edge.simulator.turn import TurnResult
from models.prompts import Message, Prompt
from tests.virtual_time import run


def prompt(text: str) -> Prompt:
    return Prompt(turn_id="t", messages=(Message(role="user", text=text),))


@pytest.mark.parametrize(("tier", "text"), [(tier, text) for tier in SENTENCES for _, text in SENTENCES[tier]])
def test_every_sentence_belongs_to_its_class(tier: Tier, text: str) -> None:
    assert (complexity(prompt(text)) >= THRESHOLD) is (tier is Tier.CLOUD)
    assert is_memorable(prompt(text)) is (tier is Tier.CACHE)


def test_classes_and_languages_take_turns_after_the_first_askings() -> None:
    plan = cases(4)
    first, measured = plan[:4], plan[4:]
    assert [(case.tier, case.is_measured) for case in first] == [(Tier.CACHE, False)] * 4
    assert [case.tier for case in measured] == [Tier.EDGE, Tier.CLOUD, Tier.CACHE] * 4
    assert [case.language for case in measured[::3]] == ["zh", "en", "zh", "en"]
    assert len({case.device_id for case in plan}) == len(plan)


def test_only_sentences_that_will_be_repeated_are_asked_beforehand() -> None:
    assert [case.is_measured for case in cases(1)] == [False, True, True, True]


def held(tier: Tier, route: Tier | None, *, number: int = 0, first_audio_ms: float = 1000.0, **turn: Any) -> Measured:
    case = Case(tier=tier, language="zh", text="", device_id=f"d{number}")
    fields: dict[str, Any] = {"mode": "auto", "outcome": "answered", "first_audio_ms": first_audio_ms} | turn
    record = None
    if route is not None:
        record = TurnRecord(
            turn_id="t",
            session_id="s",
            device_id=case.device_id,
            edge_id="e",
            outcome="answered",
            decisions=(RoutingDecision(turn_id="t", tier=route, reason="x"),),
            marks=Marks(endpoint_wait_ms=500, transcript_ms=100, first_token_ms=200, first_audio_ms=400),
        )
    return Measured(case=case, turn=TurnResult(**fields), record=record)


def test_each_class_gets_its_percentiles_and_stages() -> None:
    measured = [held(Tier.EDGE, Tier.EDGE, first_audio_ms=ms) for ms in (900.0, 1100.0, 2000.0)]
    results = results_of([*measured, held(Tier.CLOUD, Tier.CLOUD, first_audio_ms=3000.0)], 1234.5)
    assert results["edge"]["first_audio_ms"] == {"p50": 1100.0, "p95": 2000.0, "max": 2000.0, "n": 3}
    assert results["cloud"]["first_audio_ms"]["p50"] == 3000.0
    assert results["cache"]["first_audio_ms"]["n"] == 0
    assert results["stages"]["endpoint_wait"] == {"p50": 500.0, "p95": 500.0, "max": 500.0, "n": 4}
    assert results["stages"]["first_sentence"]["n"] == 0
    assert results["errors"] == 0
    assert results["edge_rss_mib"] == 1234
    assert tables_of(results)


def test_a_turn_another_tier_answered_is_counted_and_not_measured() -> None:
    results = results_of([held(Tier.CLOUD, Tier.EDGE), held(Tier.CLOUD, Tier.CLOUD), held(Tier.EDGE, Tier.EDGE)], None)
    assert results["cloud"]["first_audio_ms"]["n"] == 1
    assert results["edge"]["first_audio_ms"]["n"] == 1
    assert results["routes"] == {"expected": 2, "unknown": 0, "other": {"edge": 0, "cloud": 1, "cache": 0}}
    assert results["errors"] == 0


def test_an_unknown_route_is_measured_as_expected_and_counted() -> None:
    results = results_of([held(Tier.EDGE, None)], None)
    assert results["edge"]["first_audio_ms"]["n"] == 1
    assert results["routes"]["unknown"] == 1
    assert results["stages"]["transcript"]["n"] == 0


def test_failed_turns_are_errors_and_not_measured() -> None:
    measured = [
        held(Tier.EDGE, Tier.EDGE, outcome="unanswered"),
        held(Tier.EDGE, Tier.EDGE, unheard_ms=480.0),
        Measured(case=Case(tier=Tier.CLOUD, language="en", text="", device_id="d"), error="cannot reach it"),
        held(Tier.EDGE, Tier.EDGE),
    ]
    results = results_of(measured, None)
    assert results["errors"] == 3
    assert results["edge"]["first_audio_ms"]["n"] == 1
    assert errors_of(measured) == [
        "edge zh d0: unanswered",
        "edge zh d0: answered 480 ms before the end of the sentence",
        "cloud en d: cannot reach it",
    ]


def test_gaps_are_counted_over_all_turns() -> None:
    results = results_of([held(Tier.EDGE, Tier.EDGE, gaps_ms=(40.0, 180.04)), held(Tier.CACHE, Tier.CACHE)], None)
    assert results["gaps"] == {"count": 2, "stutters": 1, "longest_ms": 180.0}


def test_first_askings_are_not_measured() -> None:
    first = held(Tier.CACHE, Tier.EDGE)
    first = Measured(
        case=Case(tier=Tier.CACHE, language="zh", text="", device_id="d", is_measured=False), turn=first.turn
    )
    assert results_of([first], None)["cache"]["first_audio_ms"]["n"] == 0


def test_records_are_found_by_device_and_waited_for() -> None:
    async def work() -> None:
        bus, records, ready = MemoryBus(), Records(), asyncio.Event()
        record = held(Tier.EDGE, Tier.EDGE, number=7).record
        assert record is not None
        async with asyncio.TaskGroup() as tasks:
            listener = tasks.create_task(records.collect(bus, ready))
            await ready.wait()
            waiting = tasks.create_task(records.of("d7"))
            await asyncio.sleep(1)
            await bus.publish(wire.turn_subject("e"), b"nonsense")
            await bus.publish(wire.turn_subject("e"), wire.encode(record))
            assert await waiting == record
            assert await records.of("nobody") is None
            listener.cancel()

    run(work())


def test_memory_is_summed_over_processes_that_live() -> None:
    mine = rss_mib([os.getpid()])
    assert mine > 10
    assert rss_mib([os.getpid(), 2**22 + 1]) == pytest.approx(mine, rel=0.5)
    assert rss_mib([]) == 0


def test_help_lists_every_benchmark(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(name in said for name in NAMES)


@pytest.mark.parametrize("arguments", [[], ["nonsense"]])
def test_an_unknown_benchmark_is_a_usage_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert usage() in captured.out + captured.err


def test_a_benchmark_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["turns", "--help"])
    assert ended.value.code == 0
    assert "--json" in capsys.readouterr().out
