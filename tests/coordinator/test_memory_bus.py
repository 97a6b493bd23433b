from __future__ import annotations

import asyncio

import pytest
import structlog.testing

from coordinator.bus import BusMessage, Subscription
from coordinator.memory_bus import MemoryBus
from coordinator.wire import MAX_PAYLOAD_BYTES
from models.errors import CloudUnreachableError
from tests.virtual_time import DeadlockError, run


async def read(line: Subscription, count: int) -> list[bytes]:
    messages = aiter(line)
    return [(await anext(messages)).payload for _ in range(count)]


async def rest(line: Subscription) -> list[bytes]:
    return [message.payload async for message in line]


def test_every_plain_listener_gets_every_message_in_order() -> None:
    async def scenario() -> None:
        bus = MemoryBus()
        assert bus.is_connected
        async with bus.subscribe("a.*") as first, bus.subscribe("a.>") as second, bus.subscribe("b") as other:
            for payload in (b"1", b"2"):
                await bus.publish("a.x", payload, reply="r")
            assert await read(first, 2) == await read(second, 2) == [b"1", b"2"]
            await bus.publish("b", b"3")
            assert await anext(aiter(other)) == BusMessage(subject="b", payload=b"3")

    run(scenario())


def test_the_reply_subject_travels_along() -> None:
    async def scenario() -> None:
        bus = MemoryBus()
        async with bus.subscribe("a") as line:
            await bus.publish("a", b"", reply="r")
            assert await anext(aiter(line)) == BusMessage(subject="a", payload=b"", reply="r")

    run(scenario())


def test_the_members_of_a_queue_take_turns_and_others_hear_all() -> None:
    async def scenario() -> None:
        bus = MemoryBus()
        async with (
            bus.subscribe("a", queue="q") as one,
            bus.subscribe("a", queue="q") as two,
            bus.subscribe("a", queue="other") as other,
            bus.subscribe("a") as all_of_it,
        ):
            for number in range(4):
                await bus.publish("a", b"%d" % number)
            assert await read(one, 2) == [b"0", b"2"]
            assert await read(two, 2) == [b"1", b"3"]
            assert len(await read(other, 4)) == len(await read(all_of_it, 4)) == 4

    run(scenario())


def test_a_member_that_left_its_queue_gets_nothing_more() -> None:
    async def scenario() -> None:
        bus = MemoryBus()
        async with bus.subscribe("a", queue="q") as stays:
            async with bus.subscribe("a", queue="q"):
                pass
            for payload in (b"1", b"2", b"3"):
                await bus.publish("a", payload)
            assert await read(stays, 3) == [b"1", b"2", b"3"]

    run(scenario())


def test_a_request_nobody_listens_to_is_told_so() -> None:
    async def scenario() -> None:
        bus = MemoryBus()
        async with bus.subscribe("inbox.1") as answers:
            await bus.publish("nobody", b"x", reply="inbox.1")
            assert await anext(aiter(answers)) == BusMessage(subject="inbox.1", payload=b"", no_responders=True)
            await bus.publish("nobody", b"without a reply subject")

    run(scenario())


def test_a_request_somebody_listens_to_is_not() -> None:
    async def scenario() -> None:
        bus = MemoryBus()
        async with bus.subscribe("inbox.1") as answers, bus.subscribe("service", queue="q", max_pending=1):
            await bus.publish("service", b"x", reply="inbox.1")
            await bus.publish("service", b"dropped, which is not nobody", reply="inbox.1")
        assert await rest(answers) == []

    run(scenario())


def test_a_full_line_drops_the_newest_and_counts() -> None:
    async def scenario() -> None:
        drops: list[None] = []
        bus = MemoryBus(on_drop=lambda: drops.append(None))
        async with bus.subscribe("a", max_pending=2) as line:
            with structlog.testing.capture_logs() as logs:
                for payload in (b"1", b"2", b"3", b"4"):
                    await bus.publish("a", payload)
            assert line.dropped == len(drops) == 2
            assert [entry["event"] for entry in logs] == ["bus_line_full"], "once a line"
            assert await read(line, 2) == [b"1", b"2"]
            await bus.publish("a", b"5")
            assert await read(line, 1) == [b"5"]
            assert line.dropped == 2

    run(scenario())


def test_leaving_the_subscription_ends_its_readers_after_what_waits() -> None:
    async def scenario() -> None:
        bus = MemoryBus()
        async with bus.subscribe("a") as line:
            reading = asyncio.create_task(rest(line))
            await asyncio.sleep(0)
            await bus.publish("a", b"1")
        assert await reading == [b"1"]
        assert await rest(line) == [], "and stays ended"
        await bus.publish("a", b"2")
        assert await rest(line) == []

    run(scenario())


def test_a_full_line_ends_as_well() -> None:
    async def scenario() -> None:
        bus = MemoryBus()
        async with bus.subscribe("a", max_pending=1) as line:
            await bus.publish("a", b"1")
        assert await rest(line) == [b"1"]

    run(scenario())


def test_leaving_a_reader_in_the_middle_leaves_no_task_behind() -> None:
    async def scenario() -> None:
        bus = MemoryBus()
        async with bus.subscribe("a") as line:
            await bus.publish("a", b"1")
            async for _ in line:
                break
        await asyncio.sleep(0)

    run(scenario())


def test_a_cancelled_reader_loses_no_message() -> None:
    async def scenario() -> None:
        bus = MemoryBus()
        async with bus.subscribe("a") as line:
            reading = asyncio.ensure_future(anext(aiter(line)))
            await asyncio.sleep(0)
            await bus.publish("a", b"1")
            reading.cancel()
            await asyncio.wait([reading])
            assert reading.cancelled()
            assert await read(line, 1) == [b"1"]

    run(scenario())


def test_a_message_over_the_limit_is_refused_by_name_and_size() -> None:
    async def scenario() -> None:
        bus = MemoryBus()
        async with bus.subscribe("a") as line:
            with pytest.raises(CloudUnreachableError, match=f"a: {MAX_PAYLOAD_BYTES + 1} bytes"):
                await bus.publish("a", b"x" * (MAX_PAYLOAD_BYTES + 1))
            await bus.publish("a", b"x" * MAX_PAYLOAD_BYTES)
            assert len((await read(line, 1))[0]) == MAX_PAYLOAD_BYTES

    run(scenario())


def test_a_line_nobody_writes_to_is_waited_for() -> None:
    async def scenario() -> None:
        async with MemoryBus().subscribe("a") as line:
            await anext(aiter(line))

    with pytest.raises(DeadlockError):
        run(scenario())
