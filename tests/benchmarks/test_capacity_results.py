from __future__ import annotations

from typing import Any

import pytest

from benchmarks.capacity_node import Measured
from benchmarks.capacity_results import (
    REAL_TARGETS,
    SCRIPTED_TARGETS,
    against_single,
    broken,
    cost_of_a_turn,
    devices_carried,
    figures,
    next_devices,
    promised_row,
    table_of_rows,
    tables_of,
)
from benchmarks.load import LoadResult
from benchmarks.load_device import TurnSample
from benchmarks.targets import Target, value_at


def turn(at_s: float, first_audio_ms: float, **more: Any) -> TurnSample:
    fields: dict[str, Any] = {
        "device": 0,
        "at_s": at_s,
        "transcript_ms": first_audio_ms / 2,
        "first_audio_ms": first_audio_ms,
        "packets": 51,
        "lost": 0,
        "stutters": 0,
        "longest_gap_ms": 60.0,
        "underruns": 0,
        "silence_ms": 0.0,
    }
    return TurnSample(**(fields | more))


def measured(*turns: TurnSample, faults: dict[str, int] | None = None, lag_ms: float = 1.0) -> Measured:
    load = LoadResult(
        turns=turns,
        faults=faults or {},
        told=(),
        full_s=5.0,
        over_s=15.0,
        cpu_cores=0.1,
        loop_lag_p99_ms=lag_ms,
        has_uvloop=True,
    )
    stages = {"vad": {0.05: 0.0, 0.1: 100.0, float("inf"): 100.0}}
    return Measured(
        load=load, wall_s=10.0, cpu_s=4.0, nats_cpu_s=0.1, others_cores=0.0, peak_rss_mib=100.0, stages=stages
    )


def test_only_turns_under_full_load_are_timed_and_gaps_of_all_are_counted() -> None:
    found = figures(measured(turn(1.0, 100.0, stutters=2), turn(6.0, 900.0, lost=1), turn(7.0, 1000.0)))
    assert found["turns"] == 2
    assert found["first_audio_ms"] == {"p50": 900.0, "p95": 1000.0, "max": 1000.0, "n": 2}
    assert (found["gaps_over_120ms"], found["packets_lost"]) == (2, 1)
    assert found["gaps_over_120ms_percent"] == pytest.approx(100 * 2 / 151, abs=0.001)
    assert (found["server_cpu_cores"], found["server_rss_mib"]) == (0.4, 100.0)
    assert found["stages"]["vad"]["p95"] == pytest.approx(97.5)


def test_a_run_in_which_nobody_was_answered_has_figures_too() -> None:
    found = figures(measured(faults={"no-answer": 3}))
    assert (found["errors"], found["first_audio_ms"]["p95"], found["gaps_over_120ms_percent"]) == (3, None, None)
    assert broken(found, found) == "3 errors"


def test_a_slow_generator_makes_its_figures_invalid() -> None:
    assert figures(measured(turn(6.0, 1.0), lag_ms=20.0))["generator"]["is_valid"]
    assert not figures(measured(turn(6.0, 1.0), lag_ms=20.1))["generator"]["is_valid"]


@pytest.mark.parametrize(
    ("row", "why"),
    [
        (turn(6.0, 1000.0), ""),
        (turn(6.0, 2000.0), ""),
        (turn(6.0, 2001.0), "first audio 2.001 x the single device's"),
        (turn(6.0, 1000.0, stutters=1), "1 gaps, 0 silences"),
        (turn(6.0, 1000.0, underruns=3), "0 gaps, 3 silences"),
        (None, "nobody was answered"),
    ],
)
def test_a_node_breaks_by_gaps_or_by_twice_the_single_devices_time(row: TurnSample | None, why: str) -> None:
    loaded = figures(measured(*([row] if row else [])))
    assert broken(loaded, figures(measured(turn(6.0, 1000.0)))) == why


def test_the_single_device_stands_beside_the_many() -> None:
    found = against_single(figures(measured(turn(6.0, 1150.0))), figures(measured(turn(6.0, 1000.0))))
    assert found["ratio_p95_over_single_p50"] == 1.15
    assert found["single_device"]["first_audio_ms"]["p50"] == 1000.0


def test_the_table_grows_by_half_beyond_its_rows() -> None:
    done: list[int] = []
    for _ in range(9):
        done.append(next_devices(done))
    assert done == [1, 20, 50, 100, 150, 300, 450, 675, 1012]


def test_the_promises_are_judged_on_their_own_row() -> None:
    assert promised_row([{"devices": 100}, {"devices": 150}]) == {"devices": 150}
    assert promised_row([{"devices": 50}]) == {}


@pytest.mark.parametrize("target", [*SCRIPTED_TARGETS, *REAL_TARGETS], ids=lambda target: target.key)
def test_every_target_names_a_result(target: Target) -> None:
    one = measured(turn(6.0, 1000.0))
    for stage in ("text", "tts"):
        one.stages[stage] = one.stages["vad"]  # type: ignore[index]  # a dict here
    results = against_single(figures(one), figures(one)) | {"audio": {"x_real_time_per_core": 400}}
    assert value_at(results, target.key) is not None


def test_devices_carried_follow_from_the_cost_of_turns_and_of_silence() -> None:
    # 12 turns an hour of 30 s leave 90 % of the hour silent; a turn costs 0.3 s, so 0.001 core; silence 0.0011 core.
    found = devices_carried(0.3, 30.0, 0.001 / 0.9)
    assert found["closed_between_turns"] == 1600
    assert found["always_streaming"] == pytest.approx(800, abs=1)


def test_nothing_measured_carries_nobody_knows_how_many() -> None:
    assert cost_of_a_turn(measured(turn(1.0, 1.0)), 10) is None
    assert devices_carried(0.0, 0.0, 0.0)["always_streaming"] is None


def test_the_cost_of_a_turn_is_shared_among_those_under_load() -> None:
    assert cost_of_a_turn(measured(turn(1.0, 1.0), turn(6.0, 1.0), turn(7.0, 1.0)), 3) == (2.0, 15.0)


def test_the_results_make_tables() -> None:
    one = figures(measured(turn(6.0, 1000.0)))
    assert len(tables_of({"devices": 150, **against_single(one, one)})) == 3
    row = {"devices": 1, "broken": "", **one}
    assert table_of_rows([row, {**row, "broken": "3 errors"}]).row_count == 2
