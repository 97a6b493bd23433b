from __future__ import annotations

from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.preloading.foreseen import MAX_CONTENTS, Content, Foreseen, decode_foreseen, encode_foreseen
from coordinator.wire import MAX_PAYLOAD_BYTES
from tests.coordinator.preloading.test_reports import content


def likely(name: str, at_edge: float = 0.5, in_fleet: float = 0.9, text: str = "zh 天为什么蓝") -> Content:
    return Content(content(name), at_edge, in_fleet, 0.7, text)


def test_a_forecast_arrives_with_the_likeliest_at_an_edge_first() -> None:
    told = encode_foreseen("north", 7, [likely("a", 0.2), likely("b", 0.9)])
    assert decode_foreseen(told) == Foreseen(group="north", hour=7, contents=(likely("b", 0.9), likely("a", 0.2)))


@pytest.mark.parametrize("text", ["", "天" * 208])
def test_what_no_message_can_carry_is_left_out_from_the_end(text: str) -> None:
    contents = [likely(str(number), text=text) for number in range(3000)]
    told = encode_foreseen("north", 7, contents)
    kept = decode_foreseen(told).contents
    assert len(told) <= MAX_PAYLOAD_BYTES
    assert kept == tuple(contents[: len(kept)])
    assert 250 < len(kept) <= MAX_CONTENTS


@pytest.mark.parametrize(
    "bad",
    [
        Content("answer:xyz", 0.5, 0.5, 0.5),
        Content(content("a"), 1.5, 0.5, 0.5),
        Content(content("a"), 0.5, -0.1, 0.5),
        Content(content("a"), 0.5, 0.5, float("inf")),
        Content(content("a"), float("nan"), 0.5, 0.5),
        Content(content("a"), 0.5, 0.5, 0.5, "x" * 209),
    ],
)
def test_contents_beyond_their_bounds_are_refused(bad: Content) -> None:
    with pytest.raises(msgspec.ValidationError):
        decode_foreseen(msgspec.msgpack.encode(Foreseen(group="g", hour=1, contents=(bad,))))


def test_more_contents_than_any_coordinator_tells_are_refused() -> None:
    many = Foreseen(group="g", hour=1, contents=(likely("a"),) * (MAX_CONTENTS + 1))
    with pytest.raises(msgspec.ValidationError):
        decode_foreseen(msgspec.msgpack.encode(many))


@given(st.binary(max_size=200))
def test_garbage_raises_one_kind_of_error(raw: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        decode_foreseen(raw)


@given(st.integers(0, 200), st.binary(min_size=1, max_size=3))
def test_a_damaged_forecast_is_read_or_refused(at: int, other: bytes) -> None:
    raw = encode_foreseen("north", 7, [likely("a"), likely("b")])
    with suppress(msgspec.MsgspecError):
        decode_foreseen(raw[:at] + other + raw[at + len(other) :])
