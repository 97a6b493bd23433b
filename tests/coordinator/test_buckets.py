from __future__ import annotations

import asyncio
import random
from contextlib import aclosing

import pytest
import structlog.testing

from coordinator.buckets import REFUSED_S, RETRY_S, Bucket, Entry, JetStreamBucket, Keeping, MemoryBucket
from coordinator.jetstream import SILENCE_S, JetStream
from models.errors import ConfigError
from tests.coordinator.streams import HeaderMemoryBus, pushing, refusal, server
from tests.virtual_time import run


def ack(sequence: int) -> str:
    return f"$JS.ACK.S.c.1.{sequence}.1.1795421714010788000.0"


def bucket(bus: HeaderMemoryBus) -> JetStreamBucket:
    return JetStreamBucket(JetStream(bus, domain="hub"), "policy", rng=random.Random(1))


class Low(random.Random):
    """Always the shortest pause."""

    def random(self) -> float:
        return 0.0


# In memory


def test_values_are_numbered_and_the_newest_is_got() -> None:
    async def scenario() -> None:
        times = iter(range(100))
        values: Bucket = MemoryBucket(now=lambda: float(next(times)))
        assert await values.get("k") is None
        assert await values.history("k") == ()
        assert [await values.put("k", b"1"), await values.put("other", b"2"), await values.put("k", b"3")] == [1, 2, 3]
        newest = await values.get("k")
        assert newest is not None
        assert (newest.key, newest.value, newest.revision) == ("k", b"3", 3)
        assert [entry.value for entry in await values.history("k")] == [b"1", b"3"]

    run(scenario())


@pytest.mark.parametrize(("expected", "is_put"), [(None, True), (1, True), (0, False), (2, False)])
def test_a_value_made_from_another_revision_is_not_put(expected: int | None, *, is_put: bool) -> None:
    async def scenario() -> None:
        values = MemoryBucket()
        await values.put("k", b"1")
        assert await values.put("k", b"2", expected=expected) == (2 if is_put else None)
        newest = await values.get("k")
        assert newest is not None
        assert newest.value == (b"2" if is_put else b"1")

    run(scenario())


def test_the_first_value_may_be_asked_to_be_the_first() -> None:
    async def scenario() -> None:
        values = MemoryBucket()
        assert await values.put("k", b"1", expected=3) is None
        assert await values.put("k", b"1", expected=0) == 1

    run(scenario())


def test_old_values_give_way_by_number_and_by_age() -> None:
    async def scenario() -> None:
        clock = [0.0]
        values = MemoryBucket(Keeping(history=2, max_age_s=10), now=lambda: clock[0])
        for number in range(3):
            clock[0] = number
            await values.put("k", b"%d" % number)
        assert [entry.value for entry in await values.history("k")] == [b"1", b"2"]
        clock[0] = 11.5
        assert [entry.value for entry in await values.history("k")] == [b"2"]
        clock[0] = 13
        assert await values.get("k") is None

    run(scenario())


def test_a_watcher_sees_what_is_there_and_the_newest_of_what_comes() -> None:
    async def scenario() -> None:
        values = MemoryBucket()
        await values.put("k", b"1")
        async with aclosing(values.watch("k")) as entries:
            assert (await anext(entries)).value == b"1"
            coming = asyncio.ensure_future(anext(entries))
            await asyncio.sleep(0)
            await values.put("other", b"x")
            await asyncio.sleep(0)
            assert not coming.done()
            await values.put("k", b"2")
            assert (await coming).value == b"2"
            await values.put("k", b"3")
            await values.put("k", b"4")
            assert (await anext(entries)).value == b"4"

    run(scenario())


def test_two_watchers_see_the_same() -> None:
    async def scenario() -> None:
        values = MemoryBucket()
        async with aclosing(values.watch("k")) as one, aclosing(values.watch("k")) as two:
            both = asyncio.gather(anext(one), anext(two))
            await asyncio.sleep(0)
            await values.put("k", b"1")
            assert [entry.value for entry in await both] == [b"1", b"1"]

    run(scenario())


@pytest.mark.parametrize("key", ["", "a.b", "*", ">"])
def test_a_key_that_could_reach_another_is_refused(key: str) -> None:
    async def scenario() -> None:
        for values in (MemoryBucket(), bucket(HeaderMemoryBus())):
            with pytest.raises(ConfigError, match="NATS subject"):
                await values.get(key)
            with pytest.raises(ConfigError, match="NATS subject"):
                await values.put(key, b"x")

    run(scenario())


# On JetStream


MESSAGE = {"message": {"seq": 3, "time": "2026-11-23T08:00:00Z", "data": "eA=="}}
DELETED = {
    "message": {"seq": 3, "time": "2026-11-23T08:00:00Z", "hdrs": "TkFUUy8xLjANCktWLU9wZXJhdGlvbjogREVMDQoNCg=="}
}


@pytest.mark.parametrize(
    ("answer", "entry"),
    [
        (MESSAGE, Entry(key="k", value=b"x", revision=3, at_s=1795420800)),
        (DELETED, None),
        (refusal(404, 10059, ""), None),
    ],
)
def test_the_newest_value_is_got_and_a_deleted_one_is_none(answer: object, entry: Entry | None) -> None:
    async def scenario() -> None:
        bus = HeaderMemoryBus()
        async with server(bus, {"STREAM.MSG.GET.KV_policy": answer}):
            assert await bucket(bus).get("k") == entry

    run(scenario())


def test_the_history_of_a_bucket_that_is_not_made_is_empty() -> None:
    async def scenario() -> None:
        bus = HeaderMemoryBus()
        async with server(bus, {"STREAM.INFO.KV_policy": refusal(404, 10059, "stream not found")}):
            assert await bucket(bus).history("k") == ()
            assert not await bucket(bus).is_made()

    run(scenario())


def test_a_watcher_resyncs_after_silence_and_tells_each_revision_once() -> None:
    async def scenario() -> None:
        bus = HeaderMemoryBus()
        async with pushing(bus, "KV_policy") as there, aclosing(bucket(bus).watch("k")) as entries:
            coming = asyncio.ensure_future(anext(entries))
            inbox = await there.inboxes.get()
            await bus.publish(inbox, b"one", reply=ack(1))
            assert await coming == Entry(key="k", value=b"one", revision=1, at_s=1795421714.010788)
            coming = asyncio.ensure_future(anext(entries))
            again = await there.inboxes.get()
            assert asyncio.get_running_loop().time() == pytest.approx(SILENCE_S)
            await bus.publish(again, b"one", reply=ack(1))
            await bus.publish(again, b"", reply=ack(2))
            await bus.publish(again, b"three", reply=ack(3))
            assert (await coming).revision == 3, "neither the known nor the deleted one"

    run(scenario())


def test_a_bucket_that_is_away_is_asked_again_after_a_pause_and_told_once() -> None:
    async def scenario() -> None:
        bus, loop = HeaderMemoryBus(), asyncio.get_running_loop()
        values = JetStreamBucket(JetStream(bus, domain="hub"), "policy", rng=Low())
        async with aclosing(values.watch("k")) as entries:
            with structlog.testing.capture_logs() as logs:
                coming = asyncio.ensure_future(anext(entries))
                await asyncio.sleep(3.5 * RETRY_S)
            assert [entry["event"] for entry in logs] == ["bucket_away"]
            async with pushing(bus, "KV_policy") as there:
                inbox = await there.inboxes.get()
                assert loop.time() == pytest.approx(4 * RETRY_S)
                await bus.publish(inbox, b"one", reply=ack(1))
                assert (await coming).value == b"one"

    run(scenario())


def test_a_bucket_that_is_not_made_yet_is_asked_for_less_often() -> None:
    async def scenario() -> None:
        bus = HeaderMemoryBus()
        values = JetStreamBucket(JetStream(bus, domain="hub"), "policy", rng=Low())
        async with server(bus, {"CONSUMER.CREATE": refusal(404, 10059, "stream not found")}) as asked:
            async with aclosing(values.watch("k")) as entries:
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(entries), 2.5 * REFUSED_S)
            assert len(asked) == 3

    run(scenario())


def test_a_watcher_that_is_left_while_its_bucket_is_away_leaves_nothing_behind() -> None:
    async def scenario() -> None:
        async with aclosing(bucket(HeaderMemoryBus()).watch("k")) as entries:
            coming = asyncio.ensure_future(anext(entries))
            await asyncio.sleep(RETRY_S / 2)
            coming.cancel()
            await asyncio.wait([coming])
            assert coming.cancelled()

    run(scenario())
