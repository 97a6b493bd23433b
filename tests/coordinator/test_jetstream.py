from __future__ import annotations

import asyncio
import json
from contextlib import aclosing

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.bus import BusMessage
from coordinator.jetstream import HEARTBEAT_S, RENEW_S, SILENCE_S, JetStream, Kept, kept_of
from models.errors import CloudUnreachableError, ConfigError
from tests.coordinator.streams import HeaderMemoryBus, pushing, refusal, server
from tests.virtual_time import run

SHORT = "$JS.ACK.KV_policy.c1.1.7.3.1795421714010788000.5"
LONG = "$JS.ACK.hub.hAsH.KV_policy.c1.1.7.3.1795421714010788000.5"
LONGER = f"{LONG}.rAnDoM"
FOUND = Kept(payload=b"x", sequence=7, at_s=1795421714.010788, pending=5, subject="s")

# What a consumer delivers


@pytest.mark.parametrize("reply", [SHORT, LONG, LONGER])
def test_a_delivered_message_tells_where_and_when_it_was_kept(reply: str) -> None:
    assert kept_of(BusMessage(subject="s", payload=b"x", reply=reply)) == FOUND


@pytest.mark.parametrize(
    "reply",
    [
        "",
        "$JS.FC.KV_policy.x",
        "$JS.ACK",
        "$JS.ACK.a.b.c.d.e.f",
        f"{SHORT}.1",
        "$JS.ACK.s.c.1.x.3.4.5",
        "$JS.ACK.s.c.1.2.3.x.5",
    ],
)
def test_a_heartbeat_or_a_status_is_no_message(reply: str) -> None:
    assert kept_of(BusMessage(subject="s", payload=b"", reply=reply)) is None


@given(st.text("$JSACK.1x", max_size=60))
def test_no_reply_subject_breaks_the_reader(reply: str) -> None:
    kept = kept_of(BusMessage(subject="s", payload=b"x", reply=reply))
    assert kept is None or reply.startswith("$JS.ACK.")


# Requests


def test_a_stream_that_is_there_with_other_settings_is_changed() -> None:
    async def scenario() -> None:
        bus = HeaderMemoryBus()
        taken = refusal(400, 10058, "stream name already in use with a different configuration")
        async with server(bus, {"STREAM.CREATE": taken, "STREAM.UPDATE": {"config": {}}}) as asked:
            await JetStream(bus, domain="hub").make({"name": "S"})
            assert asked == ["STREAM.CREATE.S", "STREAM.UPDATE.S"]

    run(scenario())


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        (
            refusal(500, 10074, "replicas > 1 not supported"),
            ConfigError,
            "S: JetStream of domain 'hub' says: replicas > 1",
        ),
        (refusal(503, 10039, "jetstream not enabled"), CloudUnreachableError, "cannot now: jetstream not enabled"),
        (refusal(400, 10999, ""), ConfigError, "error 10999"),
        (b"not JSON", CloudUnreachableError, "something else than JetStream"),
        (b"\xff", CloudUnreachableError, "something else than JetStream"),
        (b"[" * 10_000, CloudUnreachableError, "something else than JetStream"),
    ],
)
def test_what_jetstream_refuses_is_one_of_our_errors(answer: object, error: type[Exception], words: str) -> None:
    async def scenario() -> None:
        bus = HeaderMemoryBus()
        async with server(bus, {"STREAM": answer}):
            with pytest.raises(error, match=words):
                await JetStream(bus, domain="hub").make({"name": "S"})

    run(scenario())


def test_a_domain_nobody_serves_is_out_of_reach_at_once() -> None:
    async def scenario() -> None:
        with pytest.raises(CloudUnreachableError, match="domain 'hub' is out of reach"):
            await JetStream(HeaderMemoryBus(), domain="hub").has("S")
        with pytest.raises(CloudUnreachableError, match="this NATS server is out of reach"):
            await JetStream(HeaderMemoryBus()).has("S")
        assert asyncio.get_running_loop().time() == 0

    run(scenario())


def test_a_server_that_does_not_answer_is_given_up_after_its_time() -> None:
    async def scenario() -> None:
        bus = HeaderMemoryBus()
        async with server(bus, {}):
            with pytest.raises(CloudUnreachableError, match="did not answer within 3 s"):
                await JetStream(bus, domain="hub", answer_s=3).has("S")
        assert asyncio.get_running_loop().time() == pytest.approx(3)

    run(scenario())


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        (refusal(404, 10059, "stream not found"), None),
        (refusal(404, 10037, "no message found"), None),
        ({}, None),
        (
            {"message": {"seq": 3, "time": "2026-11-23T08:00:00Z", "data": "eA=="}},
            Kept(payload=b"x", sequence=3, at_s=1795420800),
        ),
        ({"message": {"seq": 3, "time": "2026-11-23T08:00:00Z"}}, Kept(payload=b"", sequence=3, at_s=1795420800)),
    ],
)
def test_the_newest_message_is_looked_up(answer: object, found: Kept | None) -> None:
    async def scenario() -> None:
        bus = HeaderMemoryBus()
        async with server(bus, {"STREAM.MSG.GET.S": answer}):
            assert await JetStream(bus, domain="hub").last("S", "a.*.b") == found

    run(scenario())


@pytest.mark.parametrize(
    ("domain", "expected", "answer", "place", "headers", "sequence"),
    [
        ("hub", None, {"seq": 4}, "$JS.hub.API.$KV.b.k", [], 4),
        ("hub", 3, {"seq": 4}, "$JS.hub.API.$KV.b.k", [{"Nats-Expected-Last-Subject-Sequence": "3"}], 4),
        ("hub", 0, refusal(400, 10071, "wrong last sequence: 1"), "$JS.hub.API.$KV.b.k", [{"Nats-Expected-Last-Subject-Sequence": "0"}], None),
        ("hub", 0, refusal(400, 10164, "wrong last sequence"), "$JS.hub.API.$KV.b.k", [{"Nats-Expected-Last-Subject-Sequence": "0"}], None),
        ("", None, {"seq": 4}, "$KV.b.k", [], 4),
    ],
)  # fmt: skip
def test_a_value_is_stored_where_its_domain_takes_it(
    domain: str, expected: int | None, answer: object, place: str, headers: list[object], sequence: int | None
) -> None:
    async def scenario() -> None:
        bus = HeaderMemoryBus()
        async with bus.subscribe(place) as line:
            storing = asyncio.create_task(JetStream(bus, domain=domain).store("$KV.b.k", b"v", expected=expected))
            request = await anext(aiter(line))
            assert request.payload == b"v"
            await bus.publish(request.reply, json.dumps(answer).encode())
            assert await storing == sequence
            assert bus.headers == headers

    run(scenario())


@pytest.mark.parametrize("answer", [{"success": True}, refusal(404, 10059, "stream not found")])
def test_dropping_tells_whether_there_was_one(answer: dict[str, object]) -> None:
    async def scenario() -> None:
        bus = HeaderMemoryBus()
        async with server(bus, {"STREAM.DELETE.S": answer}):
            assert await JetStream(bus, domain="hub").drop("S") is ("error" not in answer)

    run(scenario())


@pytest.mark.parametrize("name", ["a.b", "*", "a b"])
def test_a_domain_or_asker_that_could_reach_another_subject_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="NATS subject"):
        JetStream(HeaderMemoryBus(), domain=name)
    with pytest.raises(ConfigError, match="NATS subject"):
        JetStream(HeaderMemoryBus(), asker=name)


# Following


def test_a_followed_stream_yields_what_comes_until_it_falls_silent() -> None:
    async def scenario() -> None:
        bus, loop = HeaderMemoryBus(), asyncio.get_running_loop()
        async with pushing(bus) as there, aclosing(JetStream(bus, domain="hub").follow("S", "s")) as following:
            coming = asyncio.ensure_future(anext(following))
            inbox = await there.inboxes.get()
            await bus.publish(inbox, b"x", reply=SHORT)
            assert await coming == msgspec.structs.replace(FOUND, subject=inbox)
            coming = asyncio.ensure_future(anext(following, None))
            for _ in range(3):
                await asyncio.sleep(HEARTBEAT_S)
                await bus.publish(inbox, b"")
            assert not coming.done()
            assert await coming is None
            assert loop.time() == pytest.approx(3 * HEARTBEAT_S + SILENCE_S)

    run(scenario())


def test_a_followed_stream_ends_when_it_is_time_to_ask_anew() -> None:
    async def scenario() -> None:
        bus, loop = HeaderMemoryBus(), asyncio.get_running_loop()
        async with pushing(bus) as there, aclosing(JetStream(bus, domain="hub").follow("S", "s")) as following:
            coming = asyncio.ensure_future(anext(following, None))
            inbox = await there.inboxes.get()
            while not coming.done():
                await bus.publish(inbox, b"")
                await asyncio.wait([coming], timeout=HEARTBEAT_S)
            assert await coming is None
            assert loop.time() == pytest.approx(RENEW_S)

    run(scenario())


def test_following_a_stream_that_is_not_there_is_an_error() -> None:
    async def scenario() -> None:
        bus = HeaderMemoryBus()
        async with (
            server(bus, {"CONSUMER.CREATE.S": refusal(404, 10059, "stream not found")}),
            aclosing(JetStream(bus, domain="hub").follow("S", "s")) as following,
        ):
            with pytest.raises(ConfigError, match="stream not found"):
                await anext(following)

    run(scenario())
