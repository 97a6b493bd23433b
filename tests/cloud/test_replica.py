from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from cloud.replica import AVOID_S, FORGET_PACE_S, FRESH_S, FULL_S, HEARD_S, MISSES, Member, Pace, Replica, State
from cloud.vllm_metrics import Figures
from models.errors import CloudUnreachableError, CompletionError, ConfigError, DeadlineError, OverloadedError
from tests.cloud.servers import prompt
from tests.virtual_time import run

AWAY = CloudUnreachableError("refused")
SILENT = DeadlineError("silent")


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


def with_member(test: Callable[[Member, Clock, Pace], None], *, limit: int = 8) -> None:
    async def scenario() -> None:
        clock, pace = Clock(), Pace()
        test(Member(Replica(name="a", url="http://a"), limit, pace, clock), clock, pace)

    run(scenario())


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("http://10.0.0.1:8000", "10.0.0.1:8000"),
        ("http://user:secret@h:8000/v1", "h:8000"),
        ("https://h", "h"),
        ("http://[::1]:8000", "[::1]:8000"),
    ],
)
def test_a_replica_at_an_address_is_named_by_its_host_and_port(url: str, name: str) -> None:
    assert Replica.at(url) == Replica(name=name, url=url)


@pytest.mark.parametrize("url", ["", "h:8000", "ftp://h", "http://", "http://h:port", "http://u:pa55@h:x"])
def test_an_address_that_is_none_is_a_config_error(url: str) -> None:
    with pytest.raises(ConfigError, match="write http://host:port") as caught:
        Replica.at(url)
    assert "pa55" not in str(caught.value)


def test_a_replica_is_new_until_it_answers_however_often_it_does_not() -> None:
    def test(member: Member, _clock: Clock, _pace: Pace) -> None:
        for _ in range(MISSES + 1):
            member.missed(AWAY)
            member.missed(SILENT)
        assert member.state is State.NEW
        member.answered(None)
        assert member.state is State.READY

    with_member(test)


def test_a_refused_probe_makes_it_away_and_silence_only_the_second_time() -> None:
    def test(member: Member, _clock: Clock, _pace: Pace) -> None:
        member.answered(None)
        member.missed(AWAY)
        assert member.state is State.AWAY
        member.answered(None)
        member.missed(SILENT)
        assert (member.state, member.has_missed) == (State.READY, True)
        member.missed(SILENT)
        assert (member.state, member.has_missed) == (State.AWAY, False)
        member.spoke()
        assert member.state is State.READY

    with_member(test)


def test_figures_are_trusted_while_they_are_fresh() -> None:
    def test(member: Member, clock: Clock, _pace: Pace) -> None:
        member.outstanding = 2
        member.answered(Figures(running=4, waiting=1, kv_usage=0.25))
        busy = member.pressure
        told = member.told()
        assert (told.running, told.waiting, told.kv_usage) == (4, 1, 0.25)
        assert busy == pytest.approx(1 + (2 + 3 + 1) / 8)
        member.outstanding = 3
        assert member.pressure == pytest.approx(busy + 1 / 8), "what we do after the reading counts at once"
        clock.now_s += FRESH_S + 0.01
        assert member.told().running is None
        assert member.pressure == pytest.approx(1 + 3 / 8)

    with_member(test)


def test_the_time_in_its_queue_is_that_between_two_readings() -> None:
    def test(member: Member, _clock: Clock, _pace: Pace) -> None:
        member.answered(Figures(running=0, waiting=0, queued_s=1.0, queued_count=10))
        assert member.told().queue_ms is None
        member.answered(Figures(running=0, waiting=0, queued_s=2.0, queued_count=14))
        assert member.told().queue_ms == 250.0

    with_member(test)


def test_a_failure_makes_it_look_busier_for_a_moment() -> None:
    def test(member: Member, clock: Clock, _pace: Pace) -> None:
        member.failed(CompletionError("500"), ejected=0, size=1)
        assert member.pressure == pytest.approx(1.25)
        assert member.nudge.is_set()
        clock.now_s += AVOID_S
        assert member.pressure == 1.0
        assert member.told().failures == 1

    with_member(test)


def test_one_that_says_it_is_full_is_believed_for_a_moment() -> None:
    def test(member: Member, clock: Clock, _pace: Pace) -> None:
        assert not member.is_full
        member.failed(OverloadedError("429"), ejected=0, size=1)
        assert member.is_full
        assert member.told().failures == 0
        clock.now_s += FULL_S
        assert not member.is_full

    with_member(test)


def test_slow_first_tokens_make_it_look_busier_until_they_are_forgotten() -> None:
    def test(member: Member, clock: Clock, pace: Pace) -> None:
        pace.usual_s = 0.2
        member.began(0.8)
        assert member.pressure == pytest.approx(4.0)
        member.began(0.2)
        assert member.first_s == pytest.approx(0.65)
        clock.now_s += FORGET_PACE_S + 0.01
        assert member.first_s is None
        assert member.pressure == 1.0
        member.began(0.1)
        assert member.first_s == pytest.approx(0.1)

    with_member(test)


def test_a_wait_without_a_first_token_counts_while_it_lasts() -> None:
    async def scenario() -> None:
        clock, pace = Clock(), Pace()
        member = Member(Replica(name="a", url="http://a"), 8, pace, clock)
        pace.usual_s = 0.2
        member.silent[asyncio.timeout(None)] = clock.now_s
        assert member.pressure == 1.0
        clock.now_s += 2.0
        assert member.first_s == pytest.approx(2.0)
        assert member.pressure == pytest.approx(10.0)

    run(scenario())


@pytest.mark.parametrize(
    ("usual_s", "after_s", "expected"), [(0.2, 1.2, 6.0), (0.2, 0.1, 1.0), (None, 1.2, 1.0), (0.2, 0.3, 1.0)]
)
def test_a_wait_given_up_is_news_when_it_was_longer_than_usual(
    usual_s: float | None, after_s: float, expected: float
) -> None:
    def test(member: Member, _clock: Clock, pace: Pace) -> None:
        pace.usual_s = usual_s
        member.given_up(after_s)
        assert member.pressure == pytest.approx(expected)

    with_member(test)


def test_a_silent_probe_of_a_replica_that_is_heard_means_nothing() -> None:
    def test(member: Member, clock: Clock, _pace: Pace) -> None:
        member.answered(None)
        member.heard_s = clock.now_s
        for _ in range(MISSES):
            member.missed(SILENT)
        assert member.state is State.READY
        clock.now_s += HEARD_S
        for _ in range(MISSES):
            member.missed(SILENT)
        assert member.state is State.AWAY

    with_member(test)


def test_ejections_are_counted_and_shown() -> None:
    def test(member: Member, clock: Clock, _pace: Pace) -> None:
        member.answered(None)
        for _ in range(5):
            member.failed(CompletionError("500"), ejected=0, size=10)
        assert (member.state, member.told().ejections) == (State.EJECTED, 1)
        clock.now_s = member.standing.until_s
        assert member.state is State.READY
        member.failed(CompletionError("500"), ejected=0, size=10)
        assert (member.state, member.told().ejections) == (State.EJECTED, 2)
        member.is_draining = True
        assert member.state is State.DRAINING

    with_member(test)


def test_before_it_is_connected_it_is_unreachable() -> None:
    async def scenario() -> None:
        member = Member(Replica(name="a", url="http://a"), 8, Pace(), Clock())
        with pytest.raises(CloudUnreachableError):
            await member.upstream.probe()
        with pytest.raises(CloudUnreachableError):
            await anext(member.upstream.complete(prompt()))

    run(scenario())
