from __future__ import annotations

import contextlib
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from coordinator import wire
from models.errors import ConfigError
from models.prompts import Message, Prompt, Usage

PROMPT = Prompt(turn_id="t", messages=(Message(role="user", text="水的沸点是多少度？"),), language="zh", budget_ms=1500)

MESSAGES: list[tuple[Callable[[bytes], msgspec.Struct], msgspec.Struct]] = [
    (wire.decode_request, wire.CompletionRequest(request_id="r", prompt=PROMPT)),
    (wire.decode_request, wire.CompletionRequest(request_id="r", prompt=PROMPT, asker_id="a", priority=1)),
    (wire.decode_cancel, wire.CompletionCancel(request_id="r")),
    (wire.decode_asker_beat, wire.AskerBeat(asker_id="a")),
    (wire.decode_answer, wire.AnswerBeat(seq=0, worker_id="w")),
    (wire.decode_answer, wire.AnswerDelta(seq=1, text="一百", model="qwen-14b")),
    (wire.decode_answer, wire.AnswerEnd(seq=2, usage=Usage(prompt_tokens=9, completion_tokens=2))),
    (wire.decode_answer, wire.AnswerFailed(seq=3, code="llm-overloaded", message="full")),
    (wire.decode_edge_beat, wire.EdgeBeat(edge_id="edge-1", websocket_url="ws://h:1/", active_devices=3)),
    (wire.decode_pool_beat, wire.PoolBeat(pool="qwen-14b", worker_id="w", running=2, max_running=8)),
]
DECODERS = sorted({decode for decode, _ in MESSAGES}, key=lambda decode: decode.__name__)
NESTED = b"\x82\xaarequest_id\xa1a\xa1x" + b"\x91" * 20_000 + b"\x90"
BROKEN_TEXT = b"\x81\xaarequest_id\xa2\xff\xfe"


@pytest.mark.parametrize(("decode", "message"), MESSAGES)
def test_every_message_survives_the_wire(decode: Callable[[bytes], msgspec.Struct], message: msgspec.Struct) -> None:
    assert decode(wire.encode(message)) == message


@pytest.mark.parametrize(("decode", "message"), MESSAGES)
def test_a_field_added_later_is_ignored(decode: Callable[[bytes], msgspec.Struct], message: msgspec.Struct) -> None:
    newer = {**msgspec.msgpack.decode(wire.encode(message)), "added_later": {"x": [1]}}
    assert decode(msgspec.msgpack.encode(newer)) == message


def test_every_message_of_the_contract_is_in_the_table() -> None:
    defined = {
        value
        for value in vars(wire).values()
        if isinstance(value, type) and issubclass(value, msgspec.Struct) and value.__module__ == wire.__name__
    }
    assert defined - {wire.AnswerFrame} == {type(message) for _, message in MESSAGES}


@pytest.mark.parametrize("decode", DECODERS)
@given(payload=st.binary(max_size=64))
@example(payload=b"")
@example(payload=NESTED)
@example(payload=BROKEN_TEXT)
@example(payload=b"\xc0")
def test_bytes_that_are_no_message_raise_one_error_only(
    decode: Callable[[bytes], msgspec.Struct], payload: bytes
) -> None:
    with contextlib.suppress(msgspec.MsgspecError):
        decode(payload)


@pytest.mark.parametrize("payload", [NESTED, BROKEN_TEXT], ids=["nested", "broken-text"])
def test_hostile_bytes_are_refused(payload: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        wire.decode_cancel(payload)


def test_a_request_that_says_no_more_than_its_prompt_is_a_live_turn_of_an_asker_that_does_not_beat() -> None:
    older = {"request_id": "r", "prompt": msgspec.to_builtins(PROMPT)}
    request = wire.decode_request(msgspec.msgpack.encode(older))
    assert request == wire.CompletionRequest(request_id="r", prompt=PROMPT)
    assert (request.asker_id, request.priority) == ("", wire.TURN)


def test_a_reply_cannot_pass_for_another_kind() -> None:
    with pytest.raises(msgspec.MsgspecError):
        wire.decode_answer(msgspec.msgpack.encode({"kind": "other", "seq": 0}))


SUBJECTS = [
    (wire.complete_subject("qwen-14b", "edge-1"), "voice.complete.qwen-14b.edge-1"),
    (wire.cancel_subject("qwen-14b", "*"), "voice.cancel.qwen-14b.*"),
    (wire.answer_subject("edge-1", "r_1"), "voice.answer.edge-1.r_1"),
    (wire.inbox_subject("edge-1", "a_1"), "voice.answer.edge-1.a_1.*"),
    (wire.complete_subject("qwen-14b", "edge-1", "w"), "voice.complete.qwen-14b.edge-1.w"),
    (wire.cancel_subject("qwen-14b", "edge-1", "w"), "voice.cancel.qwen-14b.edge-1.w"),
    (wire.asker_beat_subject("qwen-14b", "*", "w"), "voice.asking.qwen-14b.*.w"),
    (wire.edge_beat_subject("edge-1"), "voice.beat.edge.edge-1"),
    (wire.edge_beat_subject("*"), "voice.beat.edge.*"),
    (wire.pool_beat_subject("p", "w"), "voice.beat.pool.p.w"),
    (wire.pool_beat_subject("p", "*"), "voice.beat.pool.p.*"),
    (wire.turn_subject("edge-1", "t-1"), "voice.turn.edge-1.t-1"),
    (wire.turn_subject("edge-1"), "voice.turn.edge-1.*"),
    (wire.turn_subject("*"), "voice.turn.*.*"),
    (wire.turn_subject("*", "t-1"), "voice.turn.*.t-1"),
]


@pytest.mark.parametrize(("made", "expected"), SUBJECTS)
def test_subjects_are_those_of_the_table(made: str, expected: str) -> None:
    assert made == expected
    assert wire.__doc__
    assert expected.rsplit(".", 1)[0].split(".")[1] in wire.__doc__


@pytest.mark.parametrize("name", ["", "a.b", "a b", "*", ">", "a\r\nPUB", "十", "x" * 65])
def test_a_name_that_could_reach_another_subject_is_refused(name: str) -> None:
    for make in (
        lambda name: wire.complete_subject(name, "e"),
        lambda name: wire.cancel_subject("p", "e" + name if name else "a.b"),
        lambda name: wire.asker_beat_subject("p", "e", name or " "),
        lambda name: wire.answer_subject("e", name),
    ):
        with pytest.raises(ConfigError, match="NATS subject"):
            make(name)


@pytest.mark.parametrize(
    "subject",
    [
        wire.complete_subject("p", "edge-1"),
        wire.complete_subject("p", "edge-1", "w"),
        wire.cancel_subject("p", "edge-1"),
        wire.asker_beat_subject("p", "edge-1", "w"),
    ],
)
def test_who_asks_is_read_from_the_subject(subject: str) -> None:
    assert wire.edge_of(subject) == "edge-1"


@pytest.mark.parametrize(
    ("subject", "is_its_own"),
    [
        (wire.answer_subject("edge-1", "r"), True),
        (wire.inbox_subject("edge-1", "a"), True),
        (wire.answer_subject("edge-10", "r"), False),
        ("voice.answer.edge-1", False),
        ("voice.complete.p.edge-1", False),
        ("", False),
    ],
)
def test_an_answer_goes_to_nobody_else(subject: str, is_its_own: bool) -> None:
    assert wire.is_answer_to("edge-1", subject) is is_its_own


@pytest.mark.parametrize("name", ["", "a.b", "**", ">", "a\r\nPUB", "十", "x" * 65])
def test_neither_edge_nor_turn_of_a_record_can_reach_another_subject(name: str) -> None:
    for edge_id, turn_id in ((name, "t"), ("e", name)):
        with pytest.raises(ConfigError, match="NATS subject"):
            wire.turn_subject(edge_id, turn_id)


@pytest.mark.parametrize("name", ["a", "x" * 64, "edge-1", "0_9"])
def test_a_plain_name_is_a_token(name: str) -> None:
    assert wire.token(name) == name
