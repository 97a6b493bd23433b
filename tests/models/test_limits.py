from __future__ import annotations

import heapq
import random
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import DeadlineError, OverloadedError, RecognitionError, SynthesisError
from models.limits import AdaptiveLimit, FixedLimit, Intake, Limit

WORK_S = 0.3


@dataclass
class Stage:
    """A stage with ``servers`` engines in virtual time: calls come at random, wait in one line, and ask the limit at the door."""

    limit: Limit
    servers: int
    draw: Callable[[random.Random], float] = lambda _dice: WORK_S
    now_s: float = 0.0
    limits: list[int] = field(default_factory=list)
    _dice: random.Random = field(default_factory=lambda: random.Random(3))

    def __post_init__(self) -> None:
        self._free_s = [0.0] * self.servers
        self._inflight: list[tuple[float, float, int]] = []

    def run(self, load: float, seconds: float) -> Ran:
        """Offer ``load`` times what the servers can do."""
        ran, until_s = Ran(seconds * self.servers / WORK_S), self.now_s + seconds
        while self.now_s < until_s:
            self.now_s += self._dice.expovariate(load * self.servers / WORK_S)
            while self._inflight and self._inflight[0][0] <= self.now_s:
                self._end(ran)
            ran.offered += 1
            self.limits.append(self.limit.limit)
            if len(self._inflight) < self.limit.limit:
                begins_s = max(self.now_s, heapq.heappop(self._free_s))
                ends_s = begins_s + self.draw(self._dice)
                heapq.heappush(self._free_s, ends_s)
                heapq.heappush(self._inflight, (ends_s, self.now_s, len(self._inflight) + 1))
            else:
                ran.refused += 1
        return ran

    def _end(self, ran: Ran) -> None:
        ended_s, began_s, inflight = heapq.heappop(self._inflight)
        self.limit.observe(ended_s - began_s, inflight)
        ran.took_s.append(ended_s - began_s)


@dataclass
class Ran:
    capacity: float
    """Calls the servers could have done."""
    offered: int = 0
    refused: int = 0
    took_s: list[float] = field(default_factory=list)

    @property
    def goodput(self) -> float:
        return len(self.took_s) / self.capacity

    def slowness(self, share: float) -> float:
        """Return a quantile of the times, as a multiple of the work."""
        return sorted(self.took_s)[int(share * len(self.took_s))] / WORK_S


def exponential(dice: random.Random) -> float:
    return dice.expovariate(1 / WORK_S)


@pytest.mark.parametrize("servers", [1, 2, 4, 16])
@pytest.mark.parametrize("load", [2, 5])
@pytest.mark.parametrize(("draw", "p95"), [(lambda _dice: WORK_S, 4.5), (exponential, 10.0)])
def test_overload_costs_neither_goodput_nor_the_time_of_those_let_in(
    servers: int, load: float, draw: Callable[[random.Random], float], p95: float
) -> None:
    stage = Stage(AdaptiveLimit(), servers, draw)
    stage.run(0.5, 60)
    stage.run(load, 60)
    ran = stage.run(load, 600)
    assert ran.goodput >= 0.9
    assert ran.slowness(0.95) <= p95
    assert ran.refused / ran.offered == pytest.approx(1 - 1 / load, abs=0.06)


def test_without_the_limit_the_same_overload_makes_everybody_wait_for_ever() -> None:
    ran = Stage(FixedLimit(10_000), 4).run(2, 60)
    assert ran.slowness(0.95) > 50


@pytest.mark.parametrize("servers", [1, 4, 16, 100])
@pytest.mark.parametrize("load", [0.3, 0.5, 0.7])
def test_hardly_anybody_is_refused_below_capacity(servers: int, load: float) -> None:
    stage = Stage(AdaptiveLimit(initial=2 * servers + 8), servers)
    ran = stage.run(load, 300)
    assert ran.refused <= 0.02 * ran.offered


@pytest.mark.parametrize("servers", [1, 4, 16])
def test_after_an_overload_the_next_second_is_as_good_as_ever(servers: int) -> None:
    stage = Stage(AdaptiveLimit(), servers)
    stage.run(0.5, 30)
    stage.run(5, 60)
    stage.run(0.5, 5)
    ran = stage.run(0.5, 60)
    assert ran.refused <= 0.02 * ran.offered
    assert ran.slowness(0.5) < 1.3


def test_lasting_overload_does_not_raise_the_limit_little_by_little() -> None:
    stage = Stage(AdaptiveLimit(maximum=1000), 4)
    stage.run(5, 60)
    early = max(stage.limits[-1000:])
    ran = stage.run(5, 3600)
    assert max(stage.limits[-5000:]) <= early + 4
    assert ran.slowness(0.99) <= 4


def test_stage_that_met_its_first_calls_all_at_once_learns_what_calm_is() -> None:
    limit = AdaptiveLimit(initial=100)
    for _ in range(5000):
        inflight = limit.limit
        limit.observe(max(1.0, inflight / 4), inflight)
    assert limit.calm_s == pytest.approx(1.0, abs=0.2)
    assert limit.limit <= 12


@pytest.mark.parametrize(("factor", "direction"), [(3.0, 1), (1 / 3, -1)])
def test_engine_that_becomes_slower_or_faster_is_measured_anew(factor: float, direction: int) -> None:
    times = [WORK_S]
    stage = Stage(AdaptiveLimit(), 4, lambda _dice: times[-1])
    stage.run(2, 60)
    times.append(WORK_S * factor)
    stage.run(3, 600)
    ran = stage.run(3, 300)
    assert ran.goodput * factor >= 0.9
    assert isinstance(stage.limit, AdaptiveLimit)
    assert stage.limit.calm_s == pytest.approx(times[-1], rel=0.25)
    assert (stage.limit.calm_s - WORK_S) * direction > 0


@pytest.mark.parametrize("seconds", [0.0, 1e-6, 0.3, 20.0])
def test_constant_time_never_lowers_the_limit(seconds: float) -> None:
    limit = AdaptiveLimit(initial=20, maximum=60)
    seen = [limit.limit]
    for _ in range(5_000):
        limit.observe(seconds, limit.limit)
        seen.append(limit.limit)
    warm = seen[200:]
    assert min(warm) >= 20
    assert seen[-1] == 60


def test_limit_that_is_not_made_use_of_stays() -> None:
    limit = AdaptiveLimit(initial=20)
    for _ in range(1000):
        limit.observe(0.3, 3)
    assert limit.limit == 20


def test_calls_given_up_lower_the_limit_even_when_they_were_quick() -> None:
    limit = AdaptiveLimit(initial=20)
    for _ in range(200):
        limit.observe(0.3, 1)
    for _ in range(200):
        limit.observe(0.3, 15, dropped=True)
    assert limit.limit < 10


samples = st.lists(
    st.tuples(st.floats(0, 1e6, allow_nan=False), st.integers(1, 10_000), st.booleans()), min_size=1, max_size=60
)


@given(samples, st.integers(1, 50), st.integers(0, 100), st.integers(-5, 500))
def test_whatever_is_observed_the_limit_keeps_its_bounds(
    seen: list[tuple[float, int, bool]], minimum: int, room: int, initial: int
) -> None:
    limit = AdaptiveLimit(initial=initial, minimum=minimum, maximum=minimum + room)
    for seconds, inflight, dropped in seen * 40:
        limit.observe(seconds, inflight, dropped=dropped)
        assert minimum <= limit.limit <= minimum + room


def test_fixed_limit_learns_nothing() -> None:
    limit = FixedLimit(7)
    limit.observe(1e9, 7, dropped=True)
    assert limit.limit == 7


def test_limit_without_probes_is_never_lowered_to_find_the_calm_time() -> None:
    stage = Stage(AdaptiveLimit(probes=False), 4)
    stage.run(0.5, 60)
    stage.run(5, 60)
    stage.limits.clear()
    ran = stage.run(5, 600)
    assert ran.goodput >= 0.97
    assert min(stage.limits) >= 5


# Intake


class Notes:
    limit = 4

    def __init__(self) -> None:
        self.seen: list[tuple[float, int, bool]] = []

    def observe(self, seconds: float, inflight: int, *, dropped: bool = False) -> None:
        self.seen.append((seconds, inflight, dropped))


def test_calls_over_the_limit_are_refused_at_once_and_room_comes_back() -> None:
    intake = Intake("tts", FixedLimit(2), refusal=SynthesisError)
    with intake.call():
        with intake.call():
            assert intake.is_full
            with pytest.raises(SynthesisError, match="tts"), intake.call():
                raise AssertionError
        assert not intake.is_full
        with intake.call():
            assert intake.inflight == 2
    assert (intake.inflight, intake.refused, intake.limit) == (0, 1, 2)


def test_background_work_is_refused_from_half_the_limit_on() -> None:
    intake = Intake("asr", FixedLimit(4))
    with intake.call(), intake.call():
        with pytest.raises(OverloadedError), intake.call(background=True):
            pass
        with intake.call(), intake.call():
            assert intake.is_full


def test_limit_of_one_takes_background_work_when_idle() -> None:
    intake = Intake("asr", FixedLimit(1))
    with intake.call(background=True):
        assert intake.inflight == 1


def test_each_call_teaches_its_time_and_how_many_it_was_among() -> None:
    notes, clock = Notes(), iter([0.0, 1.0, 3.0, 10.0])
    intake = Intake("llm", notes, now=lambda: next(clock))
    with intake.call(), intake.call():
        pass
    assert notes.seen == [(2.0, 2, False), (10.0, 1, False)]


def test_leeway_serves_who_was_let_in_and_says_that_nobody_new_should_be() -> None:
    intake = Intake("tts", FixedLimit(2), leeway=2)
    with intake.call(), intake.call(), intake.call(), intake.call():
        assert intake.is_full
        with pytest.raises(OverloadedError), intake.call():
            pass
    with intake.call():
        assert not intake.is_full


def test_call_teaches_the_time_to_its_first_word_when_it_says_so() -> None:
    notes, clock = Notes(), iter([0.0, 2.0, 9.0])
    intake = Intake("llm", notes, now=lambda: next(clock))
    with intake.call() as first_word:
        first_word()
        first_word()
    assert notes.seen == [(2.0, 1, False)]


@pytest.mark.parametrize(
    ("error", "seen"),
    [(OverloadedError, [(2.0, 1, True)]), (DeadlineError, [(2.0, 1, True)]), (RecognitionError, []), (KeyError, [])],
)
def test_failed_call_teaches_only_when_it_was_late(error: type[Exception], seen: list[tuple[float, int, bool]]) -> None:
    notes, clock = Notes(), iter([0.0, 2.0])
    intake = Intake("llm", notes, now=lambda: next(clock))
    with pytest.raises(error), intake.call():
        raise error("x")
    assert notes.seen == seen
    assert intake.inflight == 0
