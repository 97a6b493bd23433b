from __future__ import annotations

import hashlib
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.preloading.reports import (
    MAX_COUNT,
    MAX_REPORT_BYTES,
    EdgeUsage,
    UsageReport,
    decode_report,
    encode_report,
    group_of,
)


def content(name: str) -> str:
    return f"answer:{hashlib.sha256(name.encode()).hexdigest()}"


GOOD = UsageReport(
    edge_id="edge-1", group="north", hour=500_000, counts={content("a"): 3}, texts={content("a"): "天为什么蓝"}
)


def test_report_arrives_as_it_was_sent() -> None:
    assert decode_report(encode_report(GOOD)) == GOOD


@pytest.mark.parametrize(
    "fields",
    [
        {"edge_id": ""},
        {"edge_id": "a.b"},
        {"group": "x" * 65},
        {"hour": -1},
        {"hour": 2**40},
        {"counts": {"answer:xyz": 1}, "texts": {}},
        {"counts": {content("a"): 0}},
        {"counts": {content("a"): MAX_COUNT + 1}},
        {"counts": {content(str(n)): 1 for n in range(2049)}, "texts": {}},
        {"texts": {content("b"): "words of what nobody asked"}},
        {"texts": {content("a"): ""}},
        {"texts": {content("a"): "x" * 209}},
        {"made": ("answer:xyz",)},
        {"made": (content("a"),) * 2049},
    ],
)
def test_report_beyond_its_bounds_is_refused_at_both_ends(fields) -> None:
    bad = msgspec.structs.replace(GOOD, **fields)
    with pytest.raises(msgspec.ValidationError):
        encode_report(bad)
    with pytest.raises(msgspec.ValidationError):
        decode_report(msgspec.msgpack.encode(bad))


def test_report_too_large_is_refused_unread() -> None:
    with pytest.raises(msgspec.DecodeError, match="at most"):
        decode_report(b"x" * (MAX_REPORT_BYTES + 1))


@given(st.binary(max_size=200))
def test_garbage_raises_one_kind_of_error(raw: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        decode_report(raw)


@given(st.integers(0, 60), st.binary(min_size=1, max_size=3))
def test_damaged_report_is_read_or_refused(at: int, other: bytes) -> None:
    raw = encode_report(GOOD)
    with suppress(msgspec.MsgspecError):
        encode_report(decode_report(raw[:at] + other + raw[at + len(other) :]))


def test_words_travel_only_when_two_devices_asked() -> None:
    usage = EdgeUsage("edge-1", "north")
    usage.note(content("a"), "device-1", "secret")
    usage.note(content("a"), "device-1", "secret")
    first = usage.report(1)
    assert first is not None
    assert (first.counts, first.texts) == ({content("a"): 2}, {})
    usage.note(content("a"), "device-2", "secret")
    second = usage.report(2)
    assert second is not None
    assert (second.counts, second.texts) == ({content("a"): 1}, {content("a"): "secret"})


def test_words_given_as_empty_or_too_long_never_travel() -> None:
    usage = EdgeUsage("edge-1", "north")
    for device in ("1", "2"):
        usage.note(content("a"), device)
        usage.note(content("b"), device, "x" * 209)
    report = usage.report(1)
    assert report is not None
    assert report.texts == {}
    encode_report(report)


def test_hour_without_asks_has_no_report() -> None:
    usage = EdgeUsage("edge-1", "north")
    usage.note(content("a"), "1")
    assert usage.report(1) is not None
    assert usage.report(2) is None


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 3)), max_size=200))
def test_memory_is_bounded_and_counts_are_never_more_than_asked(asks) -> None:
    usage = EdgeUsage("edge-1", "north", max_contents=8)
    for name, device in asks:
        usage.note(content(str(name)), str(device), "words")
        assert len(usage) <= 8
    report = usage.report(1)
    if report is not None:
        encode_report(report)
        assert sum(report.counts.values()) <= len(asks)


@given(st.lists(st.tuples(st.integers(0, 3000), st.text(min_size=0, max_size=208)), min_size=1, max_size=50), st.data())
def test_any_report_an_edge_makes_is_taken(asks, data) -> None:
    usage = EdgeUsage("edge-1", "north")
    for name, words in asks:
        for device in ("1", "2"):
            usage.note(content(str(name)), device, words)
    made = data.draw(st.lists(st.sampled_from([content(str(name)) for name, _ in asks]), max_size=400))
    report = usage.report(1, made)
    assert report is not None
    assert decode_report(encode_report(report)) == report


def test_what_does_not_fit_into_a_message_is_left_out_words_first_then_the_rarest() -> None:
    usage = EdgeUsage("edge-1", "north")
    for number in range(2048):
        for device in range(2 + (number == 7)):
            usage.note(content(str(number)), str(device), "天" * 200)
    report = usage.report(1)
    assert report is not None
    assert len(encode_report(report)) <= MAX_REPORT_BYTES
    assert len(report.counts) == 2048
    assert content("7") in report.texts
    assert 50 < len(report.texts) < 2048


def test_an_hour_in_which_something_was_made_has_a_report_although_nobody_asked() -> None:
    report = EdgeUsage("edge-1", "north").report(1, [content("a")])
    assert report is not None
    assert (report.counts, report.made) == ({}, (content("a"),))


@pytest.mark.parametrize(
    ("region", "group"),
    [("", "everywhere"), ("north", "north"), ("cn-east_1", "cn-east_1"), ("上海", None), ("a.b", None)],
)
def test_every_region_has_a_group_that_can_be_reported(region: str, group: str | None) -> None:
    found = group_of(region)
    assert found == group if group else found.startswith("region-")
    encode_report(msgspec.structs.replace(GOOD, group=found))
