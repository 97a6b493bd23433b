from __future__ import annotations

import asyncio
import threading
import time

import pytest

from coordinator.cache.keys import key_of
from coordinator.cache.kinds import L2_TTL_S, L3_TTL_S, Kind, Terms, TierName
from coordinator.cache.ladder import ABSENT_S, LOOK_S, PATIENCE_S, UNSURE_S, Ladder
from coordinator.cache.memory import MemoryTier
from coordinator.cache.purges import Purges
from coordinator.cache.sealed import seal
from coordinator.cache.tiers import FarTier
from tests import real_time
from tests.coordinator.cache.tiers import FakeTier, LeasingTier
from tests.virtual_time import run

KEY, OTHER = key_of(Kind.ANSWER, "a"), key_of(Kind.ANSWER, "b")
NOW_S = 1_000_000.0
Seen = list[tuple[str, str]]


def sealed(value: bytes, key: str = KEY, *, made_at_s: float = NOW_S - 1) -> bytes:
    return seal(key, value, made_at_s=made_at_s, expires_at_s=NOW_S + 60)


def made(*far: FarTier, near: MemoryTier | None = None, terms: Terms | None = None, seen: Seen | None = None) -> Ladder:
    record = Seen() if seen is None else seen
    return Ladder(
        MemoryTier() if near is None else near,
        far,
        clock=lambda: NOW_S,
        observe=lambda _kind, tier, result: record.append((tier, result)),
        **({} if terms is None else {"terms": terms}),
    )


def test_a_hit_far_away_is_copied_into_the_nearer_tiers() -> None:
    async def scenario() -> None:
        middle, far, seen = FakeTier("redis"), FakeTier("object-store"), Seen()
        far.held[KEY] = sealed(b"v")
        async with made(middle, far, seen=seen).open() as ladder:
            assert await ladder.get(KEY) == b"v"
            assert seen[:3] == [("memory", "miss"), ("redis", "miss"), ("object-store", "hit")]
            assert ladder.near(KEY) == b"v"
        assert middle.ttl_s == {KEY: L2_TTL_S}
        async with made(middle).open() as another:
            assert await another.get(KEY) == b"v"

    run(scenario())


def test_what_is_put_is_here_at_once_and_everywhere_soon() -> None:
    async def scenario() -> None:
        redis, store = FakeTier("redis"), FakeTier("object-store")
        async with made(redis, store).open() as ladder:
            ladder.put(KEY, b"v")
            assert ladder.near(KEY) == b"v"
            assert not redis.held
        assert redis.ttl_s == {KEY: L2_TTL_S}
        assert store.ttl_s == {KEY: L3_TTL_S}

    run(scenario())


def test_a_late_tier_costs_one_turn_the_limit_and_the_next_ones_nothing() -> None:
    async def scenario() -> None:
        loop, slow, seen = asyncio.get_running_loop(), FakeTier("redis", slow_s=0.5), Seen()
        async with made(slow, seen=seen).open() as ladder:
            for key, expected_s in ((KEY, LOOK_S), (KEY, 0.0), (OTHER, 0.0)):
                began_s = loop.time()
                assert await ladder.get(key) is None
                assert loop.time() - began_s == pytest.approx(expected_s)
            assert seen[-1] == ("redis", "skipped")
            slow.slow_s = 0.001
            await asyncio.sleep(10)
            slow.held[KEY] = sealed(b"v")
            assert await ladder.get(KEY) == b"v"

    run(scenario())


def test_all_far_tiers_together_cost_no_more_than_the_limit() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        async with made(FakeTier("redis", slow_s=0.015), FakeTier("object-store", slow_s=0.5)).open() as ladder:
            began_s = loop.time()
            assert await ladder.get(KEY) is None
            assert loop.time() - began_s == pytest.approx(LOOK_S)

    run(scenario())


def test_a_tier_that_hangs_hides_the_next_one_for_a_moment_only_and_is_left_alone_afterwards() -> None:
    async def scenario() -> None:
        loop, hanging, store, seen = (
            asyncio.get_running_loop(),
            FakeTier("redis", slow_s=3600),
            FakeTier("object-store"),
            Seen(),
        )
        store.slow_s, store.held[KEY] = 0.003, sealed(b"v")
        async with made(hanging, store, near=MemoryTier(max_bytes=0), seen=seen).open() as ladder:
            for expected_s in (PATIENCE_S + 0.003, 0.003):
                began_s = loop.time()
                assert await ladder.get(KEY) == b"v"
                assert loop.time() - began_s == pytest.approx(expected_s)
                await asyncio.sleep(LOOK_S)
            assert ("redis", "error") in seen

    run(scenario())


def test_a_broken_tier_is_a_miss_and_the_next_one_answers() -> None:
    async def scenario() -> None:
        broken, store, seen = FakeTier("redis", broken=True), FakeTier("object-store"), Seen()
        async with made(broken, store, near=MemoryTier(max_bytes=0), seen=seen).open() as ladder:
            store.held[KEY] = sealed(b"v")
            for _ in range(6):
                assert await ladder.get(KEY) == b"v"
            assert broken.asked == ["get", "put", "get"], "each hit was also to be copied into it"
            assert ("redis", "skipped") in seen

    run(scenario())


@pytest.mark.parametrize("lie", [b"", b"half", sealed(b"v")[:-1], sealed(b"v", OTHER), sealed(b"w")[:-1] + b"v"])
def test_a_tier_that_lies_is_a_miss_and_what_it_said_is_deleted(lie: bytes) -> None:
    async def scenario() -> None:
        lying, seen = FakeTier("redis"), Seen()
        lying.held[KEY] = lie
        async with made(lying, seen=seen).open() as ladder:
            assert await ladder.get(KEY) is None
            assert ("redis", "damaged") in seen
        assert not lying.held

    run(scenario())


def test_all_who_want_the_same_ask_once() -> None:
    async def scenario() -> None:
        redis = FakeTier("redis", slow_s=0.01)
        redis.held[KEY] = sealed(b"v")
        async with made(redis).open() as ladder:
            assert set(await asyncio.gather(*(ladder.get(KEY) for _ in range(150)))) == {b"v"}
        assert redis.asked.count("get") == 1

    run(scenario())


def test_one_who_leaves_takes_nobody_with_him() -> None:
    async def scenario() -> None:
        redis = FakeTier("redis", slow_s=0.01)
        redis.held[KEY] = sealed(b"v")
        async with made(redis).open() as ladder:
            first, second = (asyncio.create_task(ladder.get(KEY)) for _ in range(2))
            await asyncio.sleep(0.005)
            first.cancel()
            assert await second == b"v"

    run(scenario())


def test_what_the_far_tiers_do_not_know_is_believed_for_a_moment_and_no_longer() -> None:
    async def scenario() -> None:
        redis = FakeTier("redis")
        async with made(redis).open() as ladder:
            assert await ladder.get(KEY) is None
            redis.held[KEY] = sealed(b"v")
            assert await ladder.get(KEY) is None
            assert await ladder.beyond(KEY, again=True) == b"v"
            assert await ladder.get(OTHER) is None
            redis.held[OTHER] = sealed(b"w", OTHER)
            await asyncio.sleep(ABSENT_S)
            assert await ladder.get(OTHER) == b"w"

    run(scenario())


def test_what_a_broken_tier_did_not_say_is_not_believed_to_be_absent() -> None:
    async def scenario() -> None:
        redis = FakeTier("redis", slow_s=1.0)
        async with made(redis).open() as ladder:
            assert await ladder.get(KEY) is None
            redis.slow_s = 0.0
            redis.held[KEY] = sealed(b"v")
            await asyncio.sleep(0.5)
            assert await ladder.get(KEY) == b"v"

    run(scenario())


def test_what_was_put_is_not_believed_to_be_absent() -> None:
    async def scenario() -> None:
        redis = FakeTier("redis")
        async with made(redis, near=MemoryTier(max_bytes=0)).open() as ladder:
            assert await ladder.get(KEY) is None
            ladder.put(KEY, b"v")
            await asyncio.sleep(0.01)
            assert await ladder.get(KEY) == b"v"

    run(scenario())


def test_a_kind_is_kept_and_looked_for_only_where_the_terms_say() -> None:
    async def scenario() -> None:
        redis, store = FakeTier("redis"), FakeTier("object-store")
        terms = Terms(ttl_s={TierName.REDIS: {Kind.ANSWER: 5.0}, TierName.OBJECT_STORE: {Kind.SPEECH: 7.0}})
        speech = key_of(Kind.SPEECH, "a")
        async with made(redis, store, terms=terms).open() as ladder:
            for key in (KEY, speech):
                ladder.put(key, b"v")
                assert ladder.near(key) is None
            await asyncio.sleep(0.01)
            assert await ladder.get(KEY) == await ladder.get(speech) == b"v"
        assert redis.ttl_s == {KEY: 5.0}
        assert store.ttl_s == {speech: 7.0}
        assert (redis.asked.count("get"), store.asked.count("get")) == (1, 1)

    run(scenario())


def test_what_was_made_before_a_purge_is_a_miss_everywhere() -> None:
    async def scenario() -> None:
        redis = FakeTier("redis")
        speech = key_of(Kind.SPEECH, "a")
        for key in (KEY, OTHER, speech):
            redis.held[key] = sealed(b"v", key, made_at_s=NOW_S - 10)
        async with made(redis).open() as ladder:
            assert await ladder.get(KEY) == await ladder.get(speech) == b"v"
            ladder.purge(Purges().marked("answer:", NOW_S - 5))
            assert await ladder.get(KEY) is None
            assert await ladder.get(OTHER) is None
            assert await ladder.get(speech) == b"v"
            redis.held[OTHER] = sealed(b"new", OTHER, made_at_s=NOW_S - 1)
            assert await ladder.beyond(OTHER, again=True) == b"new"

    run(scenario())


def test_a_drop_reaches_every_tier() -> None:
    async def scenario() -> None:
        redis = FakeTier("redis")
        async with made(redis).open() as ladder:
            ladder.put(KEY, b"v")
            await asyncio.sleep(0.01)
            ladder.drop(KEY)
            assert ladder.near(KEY) is None
        assert not redis.held

    run(scenario())


def test_leaving_waits_for_the_writes_but_not_for_ever() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        async with made(FakeTier("redis", slow_s=60)).open() as ladder:
            for number in range(10):
                ladder.put(key_of(Kind.ANSWER, str(number)), b"v")
            began_s = loop.time()
        assert loop.time() - began_s <= 3

    run(scenario())


def test_one_node_at_a_time_holds_a_lease_and_gives_it_back() -> None:
    async def scenario() -> None:
        redis = LeasingTier("redis")
        async with made(redis).open() as one, made(redis).open() as other:
            async with one.leased(KEY, 5.0) as is_ours:
                assert is_ours
                async with other.leased(KEY, 5.0) as is_theirs, other.leased(OTHER, 5.0) as is_another:
                    assert not is_theirs
                    assert is_another
                assert KEY in redis.leases
            assert not redis.leases
            async with other.leased(KEY, 5.0) as is_theirs:
                assert is_theirs

    run(scenario())


@pytest.mark.parametrize("redis", [LeasingTier(broken=True), LeasingTier(slow_s=1.0), FakeTier(), None])
def test_where_nobody_can_say_who_makes_a_value_everybody_may(redis: FakeTier | None) -> None:
    async def scenario() -> None:
        async with made(*([redis] if redis else [])).open() as ladder:
            for _ in range(5):
                async with ladder.leased(KEY, 5.0) as is_ours:
                    assert is_ours

    run(scenario())


def test_a_ladder_without_tiers_says_so() -> None:
    assert Ladder().is_empty
    assert not Ladder(MemoryTier()).is_empty
    assert Ladder().near(KEY) is None


# While this process stands still


class Answering(FakeTier):
    """Answers when told to from another thread, as a network does."""

    def __init__(self, after_s: float) -> None:
        super().__init__("redis")
        self._after_s = after_s

    async def get(self, key: str) -> bytes | None:
        loop, came = asyncio.get_running_loop(), asyncio.Event()
        threading.Timer(self._after_s, lambda: loop.call_soon_threadsafe(came.set)).start()
        loop.call_soon(time.sleep, 5 * LOOK_S)
        await came.wait()
        return await super().get(key)


def test_what_came_while_the_process_stood_still_is_taken() -> None:
    async def scenario() -> None:
        redis, seen = Answering(after_s=LOOK_S), Seen()
        redis.held[KEY] = sealed(b"v")
        async with made(redis, seen=seen).open() as ladder:
            assert await ladder.get(KEY) == b"v"
        assert ("redis", "hit") in seen

    real_time.run(scenario())


def test_a_tier_is_not_blamed_for_what_the_process_may_have_missed() -> None:
    async def scenario() -> None:
        redis, seen = Answering(after_s=8 * LOOK_S), Seen()
        async with made(redis, seen=seen).open() as ladder:
            assert await ladder.get(KEY) is None
            assert ("redis", "error") in seen
            assert not any(guard.is_open for guard in ladder._guards.values())
            await asyncio.sleep(10 * LOOK_S)

    real_time.run(scenario())


def test_what_is_fetched_is_near_afterwards_and_counted_nowhere() -> None:
    async def scenario() -> None:
        seen: Seen = []
        redis, store = FakeTier("redis"), FakeTier("object-store")
        async with Ladder(None, [store]).open() as others:
            others.put(KEY, b"value")
        ladder = Ladder(MemoryTier(), [redis, store], observe=lambda _kind, tier, result: seen.append((tier, result)))
        async with ladder.open():
            assert not await ladder.fetch(OTHER)
            assert await ladder.fetch(KEY, keep=False)
            assert (ladder.near(KEY), redis.held) == (None, {})
            seen.clear()
            assert await ladder.fetch(KEY)
            assert seen == []
            assert ladder.near(KEY) == b"value"
        assert set(redis.held) == {KEY}

    run(scenario())


def test_what_is_broken_damaged_or_purged_is_not_fetched() -> None:
    async def scenario() -> None:
        redis, store = FakeTier("redis", broken=True), FakeTier("object-store")
        async with Ladder(MemoryTier(), [redis, store]).open() as ladder:
            assert await ladder.steady(0.0)
            store.held[KEY] = b"damaged"
            assert await ladder.fetch(KEY) is None, "Redis may have it"
            store.held[OTHER] = seal(OTHER, b"v", made_at_s=time.time() - 9, expires_at_s=time.time() + 99)
            assert await ladder.fetch(OTHER, keep=False)
            ladder.purge(Purges(marks={OTHER: time.time()}))
            assert await ladder.fetch(OTHER) is None
            assert not await ladder.steady(1.0), "it failed three times and is left alone"
            redis.broken = False
            assert await ladder.steady(60.0)
            assert await ladder.fetch(OTHER) is False
        assert KEY not in store.held

    run(scenario())


def test_who_has_less_time_leaves_earlier_and_the_look_goes_on() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        redis = FakeTier("redis", slow_s=0.008)
        async with Ladder(MemoryTier(), [redis]).open() as ladder:
            redis.held[KEY] = seal(KEY, b"v", made_at_s=time.time(), expires_at_s=time.time() + 99)
            began_s = loop.time()
            assert await ladder.beyond(KEY, within_s=0.005) is None
            assert loop.time() - began_s < 0.006
            assert await ladder.beyond(KEY) == b"v"
            assert redis.asked == ["get"], "the same look"
            assert ladder.near(KEY) == b"v"
            assert await ladder.beyond(KEY, within_s=0.0) is None

    run(scenario())


def test_what_a_tier_did_not_tell_is_not_asked_again_in_the_same_turn() -> None:
    async def scenario() -> None:
        redis, store = FakeTier("redis", broken=True), FakeTier("object-store")
        async with Ladder(MemoryTier(), [redis, store]).open() as ladder:
            assert await ladder.get(KEY) is None
            assert await ladder.get(KEY) is None
            assert (redis.asked, store.asked) == (["get"], ["get"])
            await asyncio.sleep(UNSURE_S)
            assert await ladder.get(KEY) is None
            assert store.asked == ["get", "get"]

    run(scenario())
