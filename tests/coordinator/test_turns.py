from __future__ import annotations

import contextlib

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.turns import Marks, RoutingDecision, Tier, TurnRecord, decode_turn
from coordinator.wire import encode

RECORD = TurnRecord(
    turn_id="t",
    session_id="s",
    device_id="d",
    edge_id="edge-1",
    outcome="answered",
    heard="你好",
    answer="你好！",
    decisions=(
        RoutingDecision(turn_id="t", tier=Tier.CLOUD, reason="complex", score=0.8, threshold=0.7),
        RoutingDecision(turn_id="t", tier=Tier.EDGE, reason="cloud-unreachable"),
    ),
    marks=Marks(endpoint_wait_ms=600, transcript_ms=100.5),
)


def test_a_record_survives_the_wire() -> None:
    assert decode_turn(encode(RECORD)) == RECORD


def test_a_record_of_a_newer_edge_is_read() -> None:
    newer = {**msgspec.msgpack.decode(encode(RECORD)), "added_later": 1}
    assert decode_turn(msgspec.msgpack.encode(newer)) == RECORD


def test_an_unknown_tier_is_refused() -> None:
    raw = msgspec.msgpack.decode(encode(RECORD))
    raw["decisions"][0]["tier"] = "moon"
    with pytest.raises(msgspec.MsgspecError):
        decode_turn(msgspec.msgpack.encode(raw))


@given(st.binary(max_size=64))
def test_other_bytes_raise_one_error_only(payload: bytes) -> None:
    with contextlib.suppress(msgspec.MsgspecError):
        decode_turn(payload)


def test_broken_text_is_refused() -> None:
    with pytest.raises(msgspec.MsgspecError):
        decode_turn(encode(RECORD).replace("你好！".encode(), b"\xff" * 9))
