from __future__ import annotations

import contextlib
import json
from contextlib import aclosing
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator import wire
from coordinator.jetstream import JetStream
from coordinator.turn_log import KeptTurn, TurnLog, read_turns, turn_line, turns_in, without_words
from coordinator.turns import Marks, RoutingDecision, Tier, TurnRecord
from models.errors import ConfigError
from tests.coordinator.streams import HeaderMemoryBus, refusal, server
from tests.virtual_time import run

TURN = TurnRecord(
    turn_id="t1",
    session_id="s",
    device_id="d",
    edge_id="e",
    outcome="answered",
    heard="水的沸点\u2028是多少度？",
    decisions=(RoutingDecision(turn_id="t1", tier=Tier.CLOUD, reason="complex", score=0.8, threshold=0.7),),
    marks=Marks(transcript_ms=120.0),
)
KEPT = KeptTurn(at_s=1795420800.0, turn=TURN)
MISSING = refusal(404, 10059, "stream not found")


def message(payload: bytes) -> dict[str, object]:
    data = json.loads(msgspec.json.encode(payload))
    return {"message": {"seq": 3, "time": "2026-11-23T08:00:00Z", "data": data}}


# The stream


def test_keeping_makes_a_stream_of_the_time_and_size_asked_for() -> None:
    async def scenario() -> None:
        bus = HeaderMemoryBus()
        async with bus.subscribe("$JS.hub.API.STREAM.CREATE.TURNS") as requests, server(bus, {"STREAM.CREATE": {}}):
            assert not await TurnLog(JetStream(bus, domain="hub")).keep(hours=1.5, mib=10, replicas=3)
            config = json.loads((await anext(aiter(requests))).payload)
        assert config["subjects"] == ["voice.turn.*.*"]
        assert (config["max_age"], config["max_bytes"]) == (5400 * 10**9, 10 * 1024 * 1024)
        assert (config["num_replicas"], config["discard"]) == (3, "old")

    run(scenario())


@pytest.mark.parametrize(("answer", "was_there"), [({"success": True}, True), (MISSING, False)])
def test_keeping_nothing_deletes_what_was_kept(answer: dict[str, object], *, was_there: bool) -> None:
    async def scenario() -> None:
        bus = HeaderMemoryBus()
        async with server(bus, {"STREAM.DELETE.TURNS": answer}) as asked:
            assert await TurnLog(JetStream(bus, domain="hub")).keep(hours=0) is was_there
            assert asked == ["STREAM.DELETE.TURNS"]

    run(scenario())


@pytest.mark.parametrize(
    ("answer", "found"),
    [(message(wire.encode(TURN)), KEPT), (refusal(404, 10037, "no message found"), None), (message(b"junk"), None)],
)
def test_a_turn_is_looked_up_by_its_id(answer: dict[str, object], found: KeptTurn | None) -> None:
    async def scenario() -> None:
        bus = HeaderMemoryBus()
        there = {"STREAM.INFO.TURNS": {}, "STREAM.MSG.GET.TURNS": answer}
        async with bus.subscribe("$JS.hub.API.STREAM.MSG.GET.TURNS") as requests, server(bus, there):
            assert await TurnLog(JetStream(bus, domain="hub")).find("t1") == found
            assert json.loads((await anext(aiter(requests))).payload) == {"last_by_subj": "voice.turn.*.t1"}

    run(scenario())


def test_a_hub_that_keeps_no_turns_says_how_to_keep_them() -> None:
    async def scenario() -> None:
        bus = HeaderMemoryBus()
        log = TurnLog(JetStream(bus, domain="hub"))
        async with server(bus, {"STREAM.INFO.TURNS": MISSING}):
            with pytest.raises(ConfigError, match="COORDINATOR_KEEP_TURNS_HOURS"):
                await log.find("t1")
            async with aclosing(log.since(60)) as turns:
                with pytest.raises(ConfigError, match="COORDINATOR_KEEP_TURNS_HOURS"):
                    await anext(turns)

    run(scenario())


@pytest.mark.parametrize("turn_id", ["", "a.b", "a b", ">"])
def test_a_turn_id_that_could_reach_another_subject_is_refused(turn_id: str) -> None:
    async def scenario() -> None:
        bus = HeaderMemoryBus()
        async with server(bus, {"STREAM.INFO.TURNS": {}}):
            with pytest.raises(ConfigError, match="NATS subject"):
                await TurnLog(JetStream(bus, domain="hub")).find(turn_id)

    run(scenario())


def test_a_private_devices_turn_is_told_of_without_words() -> None:
    told = msgspec.structs.replace(without_words(TURN), heard=TURN.heard, answer=TURN.answer)
    assert told == TURN, "everything else stays"
    assert "水" not in turn_line(KeptTurn(turn=without_words(TURN)))


# Files


def test_turns_go_into_lines_and_back() -> None:
    bare = msgspec.json.encode(TURN).decode()
    assert turns_in([turn_line(KEPT), "", "  \r", bare], "f") == [KEPT, KeptTurn(turn=TURN)]


def test_a_file_is_read_line_by_line_whatever_people_said(tmp_path: Path) -> None:
    path = tmp_path / "turns.jsonl"
    path.write_text(f"{turn_line(KEPT)}\r\n{turn_line(KEPT)}\n", encoding="utf-8", newline="")
    assert "\u2028" in path.read_text(encoding="utf-8"), "which some take for the end of a line"
    assert read_turns(path) == [KEPT, KEPT]


@pytest.mark.parametrize("line", ["[]", "3", "{", '{"turn": 3}', '{"turn_id": 3}', "\ud800", "[" * 100_000, "{}"])
def test_a_line_that_is_no_turn_is_named(line: str) -> None:
    with pytest.raises(ConfigError, match=r"^f, line 2: not a turn"):
        turns_in([turn_line(KEPT), line], "f")


@given(st.text(max_size=40))
def test_any_line_of_something_else_is_empty_or_refused(line: str) -> None:
    with contextlib.suppress(ConfigError):
        assert turns_in([line], "f") == []


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.jsonl cannot be read"):
        read_turns(tmp_path / "none.jsonl")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="binary is not text"):
        read_turns(tmp_path / "binary")
