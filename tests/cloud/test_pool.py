from __future__ import annotations

import asyncio
from collections import Counter
from contextlib import aclosing

import pytest

from cloud.chat import PromptRefusedError
from cloud.ejection import EJECT_S, FAILURES
from cloud.pool import PROBE_S, SILENT_S, TRIES
from cloud.replica import FORGET_PACE_S, Replica, State
from cloud.vllm_metrics import Figures
from models.errors import CloudUnreachableError, CompletionError, DeadlineError, OverloadedError
from tests.cloud.servers import Server, pool_of, prompt, servers, text_of
from tests.virtual_time import run

AWAY = CloudUnreachableError("refused")
SILENT = DeadlineError("silent")
BROKEN = CompletionError("500")


def states(pool) -> dict[str, State]:
    return {load.name: load.state for load in pool.loads()}


# Choosing


def test_an_answer_comes_from_one_replica_whole() -> None:
    async def scenario() -> None:
        async with pool_of(servers(3)) as pool:
            async with aclosing(pool.complete(prompt())) as deltas:
                heard = [delta async for delta in deltas]
            name = heard[0].text
            assert [delta.text for delta in heard] == [name, name, name, ""]
            assert heard[-1].usage is not None

    run(scenario())


def test_a_device_goes_to_the_same_replica_and_devices_to_all() -> None:
    async def scenario() -> None:
        async with pool_of(servers(5)) as pool:
            first = [await text_of(pool, prompt(f"d{number}")) for number in range(40)]
            again = [await text_of(pool, prompt(f"d{number}")) for number in range(40)]
            assert first == again
            assert len(set(first)) == 5

    run(scenario())


def test_a_busy_favourite_yields() -> None:
    async def scenario() -> None:
        async with pool_of(servers(5)) as pool:
            together = await asyncio.gather(*(text_of(pool, prompt("d")) for _ in range(12)))
            counted = Counter(together)
            assert len(counted) > 1
            assert max(counted.values()) < 8, "it is not filled to the brim while others are idle"

    run(scenario())


def test_what_a_replica_says_of_itself_counts() -> None:
    async def scenario() -> None:
        busy, idle = many = servers(2)
        busy.figures = Figures(running=6, waiting=0)
        idle.figures = Figures(running=0, waiting=0)
        async with pool_of(many) as pool:
            assert await text_of(pool, prompt()) == idle.replica.name * 3
            assert {load.running for load in pool.loads()} == {0, 6}

    run(scenario())


def test_figures_that_are_old_are_not_trusted() -> None:
    async def scenario() -> None:
        busy, _ = many = servers(2)
        busy.figures = Figures(running=7, waiting=3)
        async with pool_of(many) as pool:
            busy.figures = None
            await asyncio.sleep(5)
            assert [load.running for load in pool.loads()] == [None, None]
            heard = {await text_of(pool, prompt()) for _ in range(20)}
            assert len(heard) == 2

    run(scenario())


# Bounds


def test_a_full_pool_refuses_at_once() -> None:
    async def scenario() -> None:
        many = servers(3)
        async with pool_of(many, per_replica=2) as pool:
            asking = [asyncio.create_task(text_of(pool, prompt())) for _ in range(6)]
            await asyncio.sleep(0.01)
            assert [server.running for server in many] == [2, 2, 2]
            with pytest.raises(OverloadedError, match="each of its replicas is"):
                await text_of(pool, prompt())
            assert pool.refused == 1
            await asyncio.gather(*asking)
            assert await text_of(pool, prompt())

    run(scenario())


def test_a_pool_s_own_bound_is_kept() -> None:
    async def scenario() -> None:
        async with pool_of(servers(3), at_once=2) as pool:
            asking = [asyncio.create_task(text_of(pool, prompt())) for _ in range(2)]
            await asyncio.sleep(0.01)
            with pytest.raises(OverloadedError, match="2 requests are under way"):
                await text_of(pool, prompt())
            await asyncio.gather(*asking)

    run(scenario())


def test_a_replica_that_says_it_is_full_is_left_alone_for_a_second_and_not_ejected() -> None:
    async def scenario() -> None:
        (full,) = many = servers(1)
        full.error = OverloadedError("429")
        async with pool_of(many) as pool:
            for _ in range(FAILURES + 1):
                with pytest.raises(OverloadedError):
                    await text_of(pool, prompt())
            assert full.asked == 1
            full.error = None
            await asyncio.sleep(1.0)
            assert await text_of(pool, prompt()) == "s00" * 3
            assert pool.loads()[0].ejections == 0

    run(scenario())


def test_no_replica_is_an_unreachable_cloud() -> None:
    async def scenario() -> None:
        async with pool_of([]) as pool:
            assert not pool.is_ready
            with pytest.raises(CloudUnreachableError, match="pool p has no replica"):
                await text_of(pool, prompt())

    run(scenario())


# Failing


def test_a_failure_before_the_first_word_goes_to_another() -> None:
    async def scenario() -> None:
        bad, good = many = servers(2)
        bad.error = BROKEN
        async with pool_of(many) as pool:
            heard = [await text_of(pool, prompt(f"d{number}")) for number in range(10)]
            assert set(heard) == {good.replica.name * 3}
            assert bad.asked > 0

    run(scenario())


def test_a_failure_after_the_first_word_is_told() -> None:
    async def scenario() -> None:
        many = servers(3)
        for server in many:
            server.breaks_with = AWAY
        async with pool_of(many) as pool:
            heard = ""
            with pytest.raises(CloudUnreachableError):  # noqa: PT012  # what came before it counts
                async with aclosing(pool.complete(prompt())) as deltas:
                    async for delta in deltas:
                        heard += delta.text
            assert len(heard) == 3
            assert sum(server.asked for server in many) == 1

    run(scenario())


@pytest.mark.parametrize(("retries", "asked"), [(True, TRIES), (False, 1)])
def test_tries_are_bounded_and_the_last_error_is_told(retries: bool, asked: int) -> None:
    async def scenario() -> None:
        many = servers(6)
        for server in many:
            server.error = BROKEN
        async with pool_of(many, retries=retries) as pool:
            with pytest.raises(CompletionError, match="500"):
                await text_of(pool, prompt())
            assert sum(server.asked for server in many) == asked
            assert max(server.asked for server in many) == 1

    run(scenario())


def refusal() -> CompletionError:
    error = CompletionError("400")
    error.__cause__ = PromptRefusedError()
    return error


@pytest.mark.parametrize("error", [refusal(), DeadlineError("over")])
def test_what_no_other_replica_could_mend_is_told_and_held_against_nobody(error: CompletionError) -> None:
    async def scenario() -> None:
        many = servers(4)
        for server in many:
            server.error = error
        async with pool_of(many) as pool:
            for _ in range(30):
                with pytest.raises(CompletionError):
                    await text_of(pool, prompt())
            assert sum(server.asked for server in many) == 30
            assert all((load.failures, load.ejections) == (0, 0) for load in pool.loads())

    run(scenario())


def test_a_failing_replica_is_ejected_and_comes_back_after_its_time() -> None:
    async def scenario() -> None:
        many = servers(4)
        many[0].error = BROKEN
        async with pool_of(many) as pool:
            for number in range(200):
                await text_of(pool, prompt(f"d{number}"))
                if State.EJECTED in states(pool).values():
                    break
            assert states(pool) == {"s00": State.EJECTED, "s01": State.READY, "s02": State.READY, "s03": State.READY}
            asked = many[0].asked
            assert asked == FAILURES
            many[0].error = None
            await asyncio.gather(*(text_of(pool, prompt(f"d{number}")) for number in range(20)))
            assert many[0].asked == asked
            await asyncio.sleep(EJECT_S)
            assert pool.loads()[0].ejections == 1
            await asyncio.gather(*(text_of(pool, prompt(f"d{number}")) for number in range(24)))
            assert many[0].asked > asked
            assert pool.loads()[0].failures == 0

    run(scenario())


def test_when_all_fail_only_three_tenths_are_left_out() -> None:
    async def scenario() -> None:
        many = servers(10)
        for server in many:
            server.error = BROKEN
        async with pool_of(many) as pool:
            for number in range(300):
                with pytest.raises(CompletionError):
                    await text_of(pool, prompt(f"d{number}"))
            assert Counter(states(pool).values()) == {State.EJECTED: 3, State.READY: 7}

    run(scenario())


def test_an_answer_given_up_in_silence_counts_against_its_replica_and_a_barge_in_does_not() -> None:
    async def scenario() -> None:
        (server,) = many = servers(1)
        server.hangs = True
        async with pool_of(many) as pool:
            for waits_s, failures in ((0.5, 0), (SILENT_S + 0.1, 1)):
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(waits_s):
                        await text_of(pool, prompt())
                assert pool.loads()[0].failures == failures

    run(scenario())


# Probing


def test_every_replica_is_probed_about_every_second() -> None:
    async def scenario() -> None:
        many = servers(3)
        async with pool_of(many):
            await asyncio.sleep(20)
            for server in many:
                gaps = [later - before for before, later in zip(server.probed_s, server.probed_s[1:], strict=False)]
                assert all(0.9 * PROBE_S <= gap <= 1.1 * PROBE_S for gap in gaps)
            assert len({tuple(server.probed_s) for server in many}) == 3, "not all at the same moments"

    run(scenario())


@pytest.mark.parametrize(("error", "within_s"), [(AWAY, 1.2), (SILENT, 1.4)])
def test_a_replica_that_stops_answering_is_left_out_until_it_answers(error: CompletionError, within_s: float) -> None:
    async def scenario() -> None:
        lost, _ = many = servers(2)
        async with pool_of(many) as pool:
            lost.probe_error = error
            lost.hangs = True
            await asyncio.sleep(within_s)
            assert states(pool) == {"s00": State.AWAY, "s01": State.READY}
            assert {await text_of(pool, prompt(f"d{number}")) for number in range(20)} == {"s01" * 3}
            lost.probe_error, lost.hangs = None, False
            await asyncio.sleep(1.2)
            assert states(pool)["s00"] is State.READY

    run(scenario())


def test_what_waits_for_a_first_word_of_a_lost_replica_goes_to_another() -> None:
    async def scenario() -> None:
        lost, good = many = servers(2)
        lost.hangs = True
        async with pool_of(many) as pool:
            asking = [asyncio.create_task(text_of(pool, prompt(f"d{number}"))) for number in range(10)]
            await asyncio.sleep(0.05)
            assert lost.running > 0
            lost.probe_error = AWAY
            async with asyncio.timeout(2.0):
                assert set(await asyncio.gather(*asking)) == {good.replica.name * 3}

    run(scenario())


def test_where_there_is_no_other_what_waits_goes_on_waiting() -> None:
    async def scenario() -> None:
        (server,) = many = servers(1, pause_s=4.0)
        async with pool_of(many) as pool:
            asking = asyncio.create_task(text_of(pool, prompt()))
            await asyncio.sleep(0.05)
            server.probe_error = AWAY
            await asyncio.sleep(2)
            assert states(pool) == {"s00": State.AWAY}
            assert await asking == "s00" * 3

    run(scenario())


def test_a_replica_whose_first_tokens_never_come_is_avoided_by_those_who_gave_up() -> None:
    async def scenario() -> None:
        many = servers(4)
        async with pool_of(many) as pool:
            for number in range(20):
                await text_of(pool, prompt(f"d{number}"))
            many[0].hangs, asked = True, many[0].asked
            lost = 0
            for number in range(200):
                try:
                    async with asyncio.timeout(1.2):
                        await text_of(pool, prompt(f"d{number}"))
                except TimeoutError:
                    lost += 1
            assert lost == many[0].asked - asked
            assert lost <= 2 + 60 / FORGET_PACE_S

    run(scenario())


def test_a_failed_request_has_its_replica_probed_at_once() -> None:
    async def scenario() -> None:
        (server,) = many = servers(1)
        async with pool_of(many) as pool:
            await asyncio.sleep(0.3)
            server.error = server.probe_error = AWAY
            with pytest.raises(CloudUnreachableError):
                await text_of(pool, prompt())
            await asyncio.sleep(0.01)
            assert states(pool) == {"s00": State.AWAY}

    run(scenario())


def test_failures_in_a_storm_do_not_make_a_storm_of_probes() -> None:
    async def scenario() -> None:
        (server,) = many = servers(1)
        server.error = BROKEN
        async with pool_of(many) as pool:
            for _ in range(1000):
                with pytest.raises(CompletionError):
                    await text_of(pool, prompt())
                await asyncio.sleep(0.001)
            assert len(server.probed_s) <= 7

    run(scenario())


def test_a_silent_probe_while_requests_are_answered_means_nothing() -> None:
    async def scenario() -> None:
        (server,) = many = servers(1)
        async with pool_of(many) as pool:
            server.probe_error = SILENT
            for _ in range(20):
                await text_of(pool, prompt())
            assert states(pool) == {"s00": State.READY}

    run(scenario())


def test_when_nearly_all_are_away_all_are_used_and_an_answer_brings_one_back() -> None:
    async def scenario() -> None:
        many = servers(5)
        async with pool_of(many) as pool:
            for server in many:
                server.probe_error = AWAY
            await asyncio.sleep(1.2)
            assert not pool.is_ready
            assert await text_of(pool, prompt("d"))
            assert pool.is_ready
            assert Counter(states(pool).values()) == {State.AWAY: 4, State.READY: 1}

    run(scenario())


def test_replicas_that_load_their_model_get_no_work_and_make_no_panic() -> None:
    async def scenario() -> None:
        many = servers(12)
        for server in many[1:]:
            server.probe_error = server.error = AWAY
        async with pool_of(many) as pool:
            await asyncio.sleep(3)
            assert Counter(states(pool).values()) == {State.NEW: 11, State.READY: 1}
            assert {await text_of(pool, prompt(f"d{number}")) for number in range(20)} == {"s00" * 3}
            assert sum(server.asked for server in many[1:]) == 0

    run(scenario())


# Changing


def test_a_removed_replica_gets_nothing_new_ends_what_it_has_and_is_closed() -> None:
    async def scenario() -> None:
        old, new = many = servers(2)
        async with pool_of(many) as pool:
            pool.change([old.replica])
            await asyncio.sleep(0.3)
            asking = [asyncio.create_task(text_of(pool, prompt())) for _ in range(4)]
            await asyncio.sleep(0.01)
            pool.change([new.replica])
            assert states(pool) == {"s00": State.DRAINING, "s01": State.NEW}
            await asyncio.sleep(0.01)
            assert await text_of(pool, prompt()) == "s01" * 3
            assert await asyncio.gather(*asking) == ["s00" * 3] * 4
            await asyncio.sleep(0.25)
            assert states(pool) == {"s01": State.READY}
            assert not old.is_open

    run(scenario())


def test_a_change_that_changes_nothing_disturbs_nothing() -> None:
    async def scenario() -> None:
        many = servers(3)
        async with pool_of(many) as pool:
            before = len(many[0].probed_s)
            for _ in range(10):
                pool.change([Replica(name=server.replica.name, url=server.replica.url) for server in reversed(many)])
            await asyncio.sleep(0.01)
            assert len(many[0].probed_s) == before
            assert set(states(pool).values()) == {State.READY}

    run(scenario())


def test_a_replica_with_a_wrong_address_spoils_nothing() -> None:
    async def scenario() -> None:
        many = servers(2)
        async with pool_of(many) as pool:
            pool.change([server.replica for server in many] + [Replica(name="odd", url="x")])
            await asyncio.sleep(2)
            assert states(pool)["odd"] is State.NEW
            assert {await text_of(pool, prompt(f"d{number}")) for number in range(20)} == {"s00" * 3, "s01" * 3}
            pool.change([])
            await asyncio.sleep(0.5)
            assert states(pool) == {}

    run(scenario())


def test_nothing_changes_in_a_closed_pool() -> None:
    async def scenario() -> None:
        many = servers(1)
        async with pool_of(many) as pool:
            pass
        pool.change([Replica(name="late", url="http://late")])
        await asyncio.sleep(1)
        assert not many[0].is_open

    run(scenario())


# Closing


@pytest.mark.parametrize("after_pieces", [0, 1, 2])
def test_closing_an_answer_closes_the_replica_s_stream_at_once(after_pieces: int) -> None:
    async def scenario() -> None:
        (server,) = many = servers(1)
        async with pool_of(many) as pool:
            deltas = pool.complete(prompt())
            for _ in range(after_pieces):
                await anext(deltas)
            await deltas.aclose()
            assert (server.running, pool.outstanding) == (0, 0)

    run(scenario())


def test_cancelling_frees_the_place_before_it_returns() -> None:
    async def scenario() -> None:
        server = Server("s00", pause_s=1.0)
        async with pool_of([server]) as pool:
            for wait_s in (0.0, 0.5, 1.5):
                asking = asyncio.create_task(text_of(pool, prompt()))
                await asyncio.sleep(wait_s)
                asking.cancel()
                await asyncio.wait([asking])
                assert asking.cancelled()
                assert (server.running, pool.outstanding) == (0, 0)

    run(scenario())
