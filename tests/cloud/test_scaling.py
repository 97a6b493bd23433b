from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud import scaling
from cloud.hours import hours
from cloud.scaling import Decision, Load, Memory, Rules, desired, needed
from models.errors import ConfigError

RULES = Rules(max_replicas=8, max_running=32, closed=hours("23:00-06:30 Asia/Shanghai"))
NOON = datetime(2026, 11, 23, 4, tzinfo=UTC)
NIGHT = datetime(2026, 11, 23, 18, tzinfo=UTC)


def load(running: int = 0, waiting: int = 0, *, asked: int = 2, **more: Any) -> Load:
    return Load(asked=asked, running=running, waiting=waiting, **{"kv_used": 0.0} | more)


class Pool:
    """Asks for decisions every 5 s and, unless told not to, does what they say at once."""

    def __init__(self, rules: Rules = RULES, current: int = 2) -> None:
        self.rules = rules
        self.current = current
        self.now_s = 1000.0
        self.memory = Memory()

    def after(self, seconds: float, found: Load, *, moment: datetime = NOON, obeys: bool = True) -> list[Decision]:
        decisions = []
        for _ in range(round(seconds / 5)):
            self.now_s += 5
            decision = desired(self.rules, found, self.current, now_s=self.now_s, moment=moment, memory=self.memory)
            self.memory = decision.memory
            if obeys:
                self.current = decision.replicas
            decisions.append(decision)
        return decisions


@pytest.mark.parametrize(
    ("found", "use", "replicas", "reason"),
    [
        (load(), 0.75, 0, "work"),
        (load(24), 0.75, 1, "work"),
        (load(25), 0.75, 2, "work"),
        (load(24), 0.5, 2, "work"),
        (load(20, 4), 0.75, 2, "waiting"),  # 20 + 4 requests that wait * 4 s / 1 s = 36 of 32
        (load(64, 32), 0.75, 6, "waiting"),
        (load(2, kv_used=0.8), 0.75, 3, "memory"),  # 2 replicas * 0.8 / (0.9 * 0.75)
        (load(2, kv_used=0.6, asked=1), 0.75, 1, "memory"),
    ],
)
def test_work_waiting_and_memory_each_ask_for_replicas(found: Load, use: float, replicas: int, reason: str) -> None:
    assert needed(RULES, found, use) == (replicas, reason)


def test_more_come_only_after_a_sustained_need() -> None:
    pool = Pool()
    assert {each.reason for each in pool.after(30, load(60))} == {"unsure"}
    assert pool.after(5, load(60))[-1] == Decision(3, "work")


def test_a_short_peak_adds_nothing() -> None:
    pool = Pool()
    pool.after(60, load(30))
    pool.after(25, load(64, 40))
    pool.after(60, load(30))
    assert pool.current == 2


def test_steps_and_cooling_limit_how_fast_replicas_come() -> None:
    pool = Pool()
    decisions = pool.after(600, load(64, 200, asked=8))
    changes = [
        index * 5 for index, each in enumerate(decisions) if index and each.replicas != decisions[index - 1].replicas
    ]
    assert pool.current == 8
    assert next(each.replicas for each in decisions if each.replicas != 2) == 4
    assert all(later - earlier >= 120 for earlier, later in pairwise(changes))


def test_replicas_that_still_load_do_not_ask_for_more_of_themselves() -> None:
    pool = Pool()
    pool.after(300, load(60, asked=2))
    assert pool.current == 3


def test_fewer_do_only_after_a_long_calm_and_one_at_a_time() -> None:
    pool = Pool(current=4)
    before = pool.after(600, load(4, asked=4))
    assert {each.replicas for each in before} == {4}
    assert pool.after(5, load(4, asked=4)) == [Decision(3, "idle")]
    assert {each.replicas for each in pool.after(295, load(4, asked=3))} == {3}
    assert pool.after(10, load(4, asked=3))[-1].replicas == 2


def test_a_decision_to_shrink_stands_while_pods_are_drained() -> None:
    pool = Pool(current=4)
    pool.after(600, load(4, asked=4), obeys=False)
    assert {(each.replicas, each.reason) for each in pool.after(120, load(4, asked=4), obeys=False)} == {(3, "idle")}


def test_load_between_the_two_marks_changes_nothing() -> None:
    pool = Pool(current=2)  # room for 64: above 48 more are needed, below 32 / 2 one would do
    for running in (40, 44, 47, 33, 40) * 5:
        assert {each.replicas for each in pool.after(180, load(running))} == {2}


@pytest.mark.parametrize("reading", [load(0, asked=4, age_s=31.0), load(500, 500, asked=4, age_s=31.0)])
def test_old_readings_change_nothing(reading: Load) -> None:
    pool = Pool(current=4)
    pool.after(900, load(60, asked=4))
    assert {(each.replicas, each.reason) for each in pool.after(900, reading)} == {(4, "stale")}


def test_after_a_gap_the_windows_begin_anew() -> None:
    pool = Pool(current=4)
    pool.after(900, load(60, asked=4))
    pool.after(60, load(0, asked=4, age_s=60))
    assert {each.replicas for each in pool.after(600, load(0, asked=4))} == {4}
    assert pool.after(10, load(0, asked=4))[-1].replicas == 3


def test_a_pause_of_the_scaler_itself_is_a_gap() -> None:
    pool = Pool(current=4)
    pool.after(900, load(0, asked=3))
    pool.now_s += 120
    assert {each.reason for each in pool.after(30, load(0, asked=4))} == {"unsure"}


def test_a_replica_that_says_nothing_keeps_the_others() -> None:
    pool = Pool(current=4)
    assert {each.reason for each in pool.after(1200, load(0, asked=3, silent=1))} == {"unsure"}


def test_replicas_that_start_keep_the_others_but_not_for_ever() -> None:
    pool = Pool(current=2)
    pool.after(900, load(60))
    assert pool.current == 3
    added_s, first_s = pool.memory.up_s, pool.now_s + 5
    waited = pool.after(1800, load(0))
    given_up_s = next(first_s + 5 * index for index, each in enumerate(waited) if each.reason == "idle")
    assert given_up_s == added_s + RULES.start_s
    assert pool.current < 3


@pytest.mark.parametrize(("current", "wanted"), [(12, 8), (9, 8)])
def test_what_lies_outside_the_limits_comes_inside_at_once(current: int, wanted: int) -> None:
    assert Pool(current=current).after(5, load(300, asked=current)) == [Decision(wanted, "limits")]


def test_a_pool_below_its_least_is_filled_at_once() -> None:
    rules = Rules(min_replicas=3)
    assert Pool(rules, current=1).after(5, load(asked=1)) == [Decision(3, "limits")]
    assert Pool(rules, current=0).after(5, load(asked=0)) == [Decision(3, "opening")]


def test_a_closed_hour_wants_none_and_its_end_brings_them_back_ahead() -> None:
    pool = Pool(current=3)
    assert pool.after(5, load(90, asked=3), moment=NIGHT) == [Decision(0, "closed")]
    assert pool.after(5, load(asked=0), moment=datetime(2026, 11, 23, 22, 14, tzinfo=UTC)) == [Decision(0, "closed")]
    assert pool.after(5, load(asked=0), moment=datetime(2026, 11, 23, 22, 15, tzinfo=UTC)) == [Decision(1, "opening")]


def test_a_closed_hour_needs_no_readings() -> None:
    assert Pool(current=3).after(5, load(asked=0, age_s=900), moment=NIGHT) == [Decision(0, "closed")]


def test_a_change_by_somebody_else_cools_as_well() -> None:
    pool = Pool(current=3)
    pool.after(900, load(40, asked=3))
    pool.current = 4
    decisions = pool.after(250, load(40, asked=4))
    assert {each.reason for each in decisions} == {"cooling"}


def test_memory_stays_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scaling, "MAX_SAMPLES", 50)
    pool = Pool()
    pool.after(3600, load(30))
    assert len(pool.memory.samples) == 50


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"min_replicas": 0}, "min_replicas 0"),
        ({"min_replicas": 9}, "min_replicas 9"),
        ({"up_use": 0.4}, "down_use 0.5"),
        ({"up_use": 1.2}, "at most 1"),
        ({"down_use": 0.0}, "down_use 0"),
        ({"up_step": 0}, "up_step"),
        ({"service_s": 0.0}, "service_s"),
        ({"max_running": 0}, "max_running"),
    ],
)
def test_rules_that_cannot_work_are_refused(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        Rules(**fields)


_loads = st.builds(
    Load,
    asked=st.integers(0, 10),
    running=st.integers(0, 400),
    waiting=st.integers(0, 400),
    kv_used=st.floats(0, 1),
    age_s=st.sampled_from([0.0, 29.0, 31.0]),
)


@settings(deadline=None)
@given(st.lists(st.tuples(_loads, st.integers(1, 60)), max_size=12), st.integers(0, 12), st.sampled_from([NOON, NIGHT]))
def test_limits_hold_and_what_runs_keeps_its_room(
    periods: list[tuple[Load, int]], current: int, moment: datetime
) -> None:
    pool = Pool(current=current)
    for found, ticks in periods:
        before = pool.current
        for decision in pool.after(5 * ticks, found, moment=moment):
            if moment is NIGHT:
                assert decision.replicas == 0
                continue
            assert RULES.min_replicas <= decision.replicas <= RULES.max_replicas
            if decision.replicas < before and decision.reason == "idle":
                assert decision.replicas * RULES.max_running >= found.running
                assert before - decision.replicas == 1
            before = decision.replicas
