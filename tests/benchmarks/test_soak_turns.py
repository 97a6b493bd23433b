from __future__ import annotations

import pytest

from benchmarks.load import LoadResult
from benchmarks.load_device import TurnSample
from benchmarks.soak_node import Counts
from benchmarks.soak_turns import QUESTION_MS, Held, NodeProcess, question_sound
from models.errors import ConfigError
from tests.virtual_time import run


def counts(answered: int, rss_mib: float, *, sessions: int = 0, tasks: int = 8, fds: int = 9) -> Counts:
    return Counts(answered=answered, other=0, sessions=sessions, rss_mib=rss_mib, tasks=tasks, fds=fds)


def turn(lost: int = 0) -> TurnSample:
    return TurnSample(
        device=0,
        at_s=1.0,
        transcript_ms=1.0,
        first_audio_ms=2.0,
        packets=3,
        lost=lost,
        stutters=0,
        longest_gap_ms=0.0,
        underruns=0,
        silence_ms=0.0,
    )


def held(samples: list[Counts], left: Counts, faults: dict[str, int] | None = None) -> Held:
    load = LoadResult(
        turns=(turn(), turn(lost=2)),
        faults=faults or {},
        told=(),
        full_s=0.0,
        over_s=1.0,
        cpu_cores=0.1,
        loop_lag_p99_ms=1.0,
        has_uvloop=True,
    )
    return Held(load, counts(0, 60.0), tuple(samples), left, 2.0)


def test_a_node_that_leaks_has_a_slope_and_what_it_left_is_counted() -> None:
    leaking = [counts(done, 60.0 + done / 1000) for done in range(0, 4000, 100)]
    found = held(leaking, counts(4000, 64.0, tasks=10, fds=12), {"no-answer": 3}).results()
    assert found["rss_slope_mib_per_1000_turns"] == pytest.approx(1.0)
    assert (found["tasks_left"], found["fds_left"], found["failed"]) == (2, 3, 3)
    assert (found["answered"], found["lost_packets"], found["turns_per_second"]) == (2, 2, 1.0)
    assert (found["rss_mib_start"], found["rss_mib_end"]) == (60.0, 64.0)


def test_a_node_that_only_filled_its_caches_is_flat() -> None:
    flat = [counts(done, 60.0 + min(done, 1500) / 100) for done in range(0, 4000, 100)]
    found = held(flat, counts(4000, 75.0)).results()
    assert found["rss_slope_mib_per_1000_turns"] == pytest.approx(0.0)
    assert (found["tasks_left"], found["fds_left"], found["failed"]) == (0, 0, 0)


def test_a_question_is_audible_from_its_first_packet_and_ends() -> None:
    sound = question_sound()
    assert sound.lead == ()
    assert sound.voiced_packets == QUESTION_MS // 60


def test_a_node_that_is_gone_is_told_of_at_once() -> None:
    async def work() -> None:
        here = NodeProcess("ws://x", [counts(0, 60.0)])
        here.is_gone = True
        with pytest.raises(ConfigError, match="ended by itself"):
            await here.next()

    run(work())


def test_a_node_that_never_falls_idle_is_looked_at_in_the_end() -> None:
    async def work() -> None:
        here = NodeProcess("ws://x", [counts(0, 60.0), counts(9, 70.0, sessions=1)])
        assert await here.until_idle(here.samples[0], within_s=1.0) is here.samples[1]

    run(work())
