from __future__ import annotations

import asyncio
import re

import pytest
import structlog.testing
from hypothesis import given
from hypothesis import strategies as st

from coordinator.bus import BusMessage, MemoryBus, NatsBus, Subscription, matches, without_password
from coordinator.wire import MAX_PAYLOAD_BYTES
from models.errors import CloudUnreachableError, ConfigError
from tests import real_time
from tests.virtual_time import DeadlockError, run

TOKENS = st.text("ab1-_", min_size=1, max_size=3)
SUBJECTS = st.lists(TOKENS, min_size=1, max_size=4).map(".".join)
PATTERNS = st.tuples(
    st.lists(st.one_of(TOKENS, st.just("*")), min_size=1, max_size=4), st.sampled_from([[], [">"]])
).map(lambda parts: ".".join(parts[0] + parts[1]))


async def read(line: Subscription, count: int) -> list[bytes]:
    messages = aiter(line)
    return [(await anext(messages)).payload for _ in range(count)]


async def rest(line: Subscription) -> list[bytes]:
    return [message.payload async for message in line]


# Which subject falls under which pattern


@pytest.mark.parametrize(
    ("pattern", "subject", "expected"),
    [
        ("a.b", "a.b", True),
        ("a.b", "a.c", False),
        ("a.b", "a", False),
        ("a.b", "a.b.c", False),
        ("a.*", "a.b", True),
        ("a.*", "a", False),
        ("a.*", "a.b.c", False),
        ("*.b", "a.b", True),
        ("a.*.c", "a.b.c", True),
        ("a.*.c", "a.b.d", False),
        (">", "a", True),
        (">", "a.b.c", True),
        ("a.>", "a.b", True),
        ("a.>", "a.b.c", True),
        ("a.>", "a", False),
        ("a.>", "b.c", False),
        ("a.*.>", "a.b", False),
        ("a.*.>", "a.b.c", True),
        ("a.>.c", "a.b.c", False),
        ("voice.beat.edge.*", "voice.beat.edge.edge-1", True),
        ("voice.beat.edge.*", "voice.beat.pool.p.w", False),
        ("a", "A", False),
    ],
)
def test_wildcards_match_as_on_nats(pattern: str, subject: str, expected: bool) -> None:
    assert matches(pattern, subject) is expected


@given(PATTERNS, SUBJECTS)
def test_matching_agrees_with_a_regular_expression(pattern: str, subject: str) -> None:
    body, tail = (pattern[:-2], r"(\..+)") if pattern.endswith(".>") else (pattern, "")
    expression = r"\.".join(r"[^.]+" if part == "*" else re.escape(part) for part in body.split(".")) + tail
    assert matches(pattern, subject) is bool(re.fullmatch(expression, subject))


@given(SUBJECTS, st.data())
def test_a_subject_falls_under_every_pattern_made_of_it(subject: str, data: st.DataObject) -> None:
    tokens = subject.split(".")
    cut = data.draw(st.integers(0, len(tokens) - 1))
    starred = [part if data.draw(st.booleans()) else "*" for part in tokens]
    assert matches(subject, subject)
    assert matches(".".join(starred), subject)
    assert matches(".".join([*starred[:cut], ">"]), subject)
    assert not matches(".".join([*starred, ">"]), subject)


# In memory


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


# What can be said of NATS without a server


@pytest.mark.parametrize("connect_s", [0.05, 0.5])
def test_a_server_that_is_away_is_named_and_nothing_is_left(unused_tcp_port: int, connect_s: float) -> None:
    heard: list[bool] = []

    async def scenario() -> None:
        url = f"nats://somebody:secret@127.0.0.1:{unused_tcp_port}"
        with pytest.raises(ConfigError, match=rf"nats://\*\*\*@127.0.0.1:{unused_tcp_port}: .*nats-server") as caught:
            async with NatsBus.connect(url, name="x", connect_s=connect_s, on_state=heard.append):
                pass
        assert "secret" not in str(caught.value)
        assert "\n" not in str(caught.value)

    real_time.run(scenario())
    assert heard == []


def test_a_process_that_is_stopped_while_it_connects_ends_at_once(unused_tcp_port: int) -> None:
    async def connecting() -> None:
        async with NatsBus.connect(f"nats://127.0.0.1:{unused_tcp_port}", name="x", connect_s=60):
            pass

    async def scenario() -> None:
        for turns in range(30):
            task = asyncio.create_task(connecting())
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task], timeout=10)
            assert task.cancelled(), f"after {turns} turns of the loop"

    real_time.run(scenario())


def test_something_else_on_the_port_is_a_config_error() -> None:
    async def scenario() -> None:
        async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            writer.close()

        async with await asyncio.start_server(hang_up, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            with pytest.raises(ConfigError, match="INFO"):
                async with NatsBus.connect(f"nats://127.0.0.1:{port}", name="x", connect_s=0.3):
                    pass

    real_time.run(scenario())


@pytest.mark.parametrize("url", ["", "nats://", "nats://h:notaport", "nats://h:99999999"])
def test_an_address_that_is_none_is_a_config_error(url: str) -> None:
    async def scenario() -> None:
        with pytest.raises(ConfigError, match="nats://host:port"):
            async with NatsBus.connect(url, name="x", connect_s=5):
                pass

    real_time.run(scenario())


@pytest.mark.parametrize("seed", ["nonsense", "SUAAAA", "S" * 58, "十" * 58, "SU\nAA"])
def test_a_seed_that_is_none_is_refused_without_being_repeated(seed: str) -> None:
    async def scenario() -> None:
        with pytest.raises(ConfigError, match="NKey seed") as caught:
            async with NatsBus.connect("nats://127.0.0.1:1", name="x", nkey_seed=seed):
                pass
        assert seed not in str(caught.value)

    real_time.run(scenario())


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("nats://127.0.0.1:4222", "nats://127.0.0.1:4222"),
        ("nats://user:pa55@h:4222", "nats://***@h:4222"),
        ("nats://token@h", "nats://***@h"),
        ("user:pa55@h:4222", "***@h:4222"),
        ("redis://:p@55@h:1/0", "redis://***@h:1/0"),
        ("", ""),
    ],
)
def test_an_address_is_shown_without_its_password(url: str, shown: str) -> None:
    assert without_password(url) == shown
