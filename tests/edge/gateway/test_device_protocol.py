from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge.gateway.device_protocol import (
    MAX_PACKET_BYTES,
    MAX_TEXT_CHARS,
    MAX_TYPED_CHARS,
    MAX_VIOLATIONS_IN_A_ROW,
    Abort,
    AudioPacket,
    DeviceEvent,
    DeviceProtocol,
    Goodbye,
    Hello,
    Ignored,
    ListenStart,
    ListenStop,
    Mcp,
    Violation,
    WakeWord,
)
from edge.gateway.framing import VERSIONS, pack

HELLO = {
    "type": "hello",
    "version": 1,
    "features": {"mcp": True, "glyph_push": False},
    "transport": "websocket",
    "audio_params": {"format": "opus", "sample_rate": 16000, "channels": 1, "frame_duration": 60},
}
MESSAGES: dict[str, dict[str, Any] | bytes] = {
    "hello": HELLO,
    "auto": {"session_id": "s", "type": "listen", "state": "start", "mode": "auto"},
    "manual": {"session_id": "s", "type": "listen", "state": "start", "mode": "manual"},
    "realtime": {"session_id": "s", "type": "listen", "state": "start", "mode": "realtime"},
    "stop": {"session_id": "s", "type": "listen", "state": "stop"},
    "detect": {"session_id": "s", "type": "listen", "state": "detect", "text": "你好小智"},
    "abort": {"session_id": "s", "type": "abort"},
    "abort-why": {"session_id": "s", "type": "abort", "reason": "wake_word_detected"},
    "mcp": {"session_id": "s", "type": "mcp", "payload": {"jsonrpc": "2.0", "id": 1, "result": {}}},
    "goodbye": {"session_id": "s", "type": "goodbye"},
    "iot": {"type": "iot", "update": True, "states": []},
    "ping": {"type": "ping"},
    "unknown": {"type": "dance"},
    "audio": b"\x58" * 40,
    "silence": b"\x00",
}
NEW, GREETED, AUTO, MANUAL, REALTIME, STOPPED, SPEAKING, SPEAKING_REALTIME, ABORTED = STATES = {
    "new": (),
    "greeted": ("hello",),
    "auto": ("hello", "auto"),
    "manual": ("hello", "manual"),
    "realtime": ("hello", "realtime"),
    "stopped": ("hello", "manual", "stop"),
    "speaking": ("hello", "auto", "tts"),
    "speaking-realtime": ("hello", "realtime", "tts"),
    "aborted": ("hello", "auto", "tts", "abort"),
}
FIRST = "hello-first"
EXPECTED = {
    # message: what it is in new, and in every later state unless named
    "hello": ("Hello", "hello-twice", {}),
    "auto": (FIRST, "ListenStart", {"auto": "listen-repeated"}),
    "manual": (FIRST, "ListenStart", {"manual": "listen-repeated"}),
    "realtime": (FIRST, "ListenStart", {"realtime": "listen-repeated", "speaking-realtime": "listen-repeated"}),
    "stop": (FIRST, "ListenStop", {}),
    "detect": (FIRST, "WakeWord", {}),
    "abort": (FIRST, "Abort", {}),
    "abort-why": (FIRST, "Abort", {}),
    "mcp": (FIRST, "Mcp", {}),
    "goodbye": (FIRST, "Goodbye", {}),
    "iot": ("iot", "iot", {}),
    "ping": ("ping", "ping", {}),
    "unknown": ("unknown-type", "unknown-type", {}),
    "audio": (FIRST, "AudioPacket", {}),
    "silence": (FIRST, "AudioPacket", {}),
}
TABLE = [
    (state, message, at_first if state == "new" else others.get(state, later))
    for message, (at_first, later, others) in EXPECTED.items()
    for state in STATES
]


def feed(protocol: DeviceProtocol, message: dict[str, Any] | bytes | str) -> DeviceEvent:
    raw = message if isinstance(message, bytes | str) else json.dumps(message, ensure_ascii=False)
    events = protocol.receive(raw)
    assert len(events) == 1
    return events[0]


def in_state(state: str, version: int | None = None) -> DeviceProtocol:
    protocol = DeviceProtocol("s", version=version)
    for step in STATES[state]:
        if step == "tts":
            protocol.tts_start()
        else:
            feed(protocol, MESSAGES[step])
    return protocol


def name_of(event: DeviceEvent) -> str:
    if isinstance(event, Violation):
        return event.code
    return event.kind if isinstance(event, Ignored) else type(event).__name__


@pytest.mark.parametrize(("state", "message", "expected"), TABLE)
def test_every_message_in_every_state_means_what_the_table_says(state: str, message: str, expected: str) -> None:
    event = feed(in_state(state), MESSAGES[message])
    assert name_of(event) == expected
    assert not isinstance(event, Violation) or not event.fatal


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        ("auto", ListenStart(mode="auto")),
        ("manual", ListenStart(mode="manual")),
        ("realtime", ListenStart(mode="realtime")),
        ("stop", ListenStop()),
        ("detect", WakeWord(text="你好小智")),
        ("abort", Abort(reason="")),
        ("abort-why", Abort(reason="wake_word_detected")),
        ("mcp", Mcp(payload={"jsonrpc": "2.0", "id": 1, "result": {}})),
        ("goodbye", Goodbye()),
        ("silence", AudioPacket(payload=b"\0", timestamp_ms=0)),
    ],
)
def test_message_carries_its_fields_into_the_event(message: str, expected: DeviceEvent) -> None:
    assert feed(in_state("greeted"), MESSAGES[message]) == expected


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, Hello(version=1, has_mcp=True)),
        ({"features": {"aec": True}}, Hello(version=1, has_server_aec=True)),
        ({"features": None, "audio_params": None}, Hello(version=1)),
        ({"audio_params": {"frame_duration": 20}}, Hello(version=1, has_mcp=True, frame_ms=20)),
        ({"version": 3}, Hello(version=3, has_mcp=True)),
        ({"version": 77}, Hello(version=1, has_mcp=True)),
        ({"version": None}, Hello(version=1, has_mcp=True)),
        ({"language": "zh-CN"}, Hello(version=1, has_mcp=True, language="zh")),
        ({"language": "EN_us"}, Hello(version=1, has_mcp=True, language="en")),
        ({"language": "../x"}, Hello(version=1, has_mcp=True)),
        ({"text_font": {"size": 16}, "surprise": [[]]}, Hello(version=1, has_mcp=True)),
    ],
)
def test_hello_of_every_kind_of_client_is_understood(change: dict[str, Any], expected: Hello) -> None:
    assert feed(DeviceProtocol("s"), {**HELLO, **change}) == expected


def test_hello_of_firmware_before_features_is_understood() -> None:
    assert feed(DeviceProtocol("s"), {"type": "hello"}) == Hello(version=1)


def test_version_of_the_header_outweighs_the_one_in_hello() -> None:
    assert feed(DeviceProtocol("s", version=2), {**HELLO, "version": 3}) == Hello(version=2, has_mcp=True)


@pytest.mark.parametrize(
    "change",
    [
        {"transport": "udp"},
        {"transport": 5},
        {"version": "1"},
        {"features": []},
        {"features": {"mcp": "yes"}},
        {"audio_params": {"format": "pcm"}},
        {"audio_params": {"frame_duration": 61}},
        {"audio_params": {"frame_duration": 0}},
        {"audio_params": {"frame_duration": -60}},
        {"audio_params": {"frame_duration": "60"}},
        {"audio_params": {"frame_duration": None}},
        {"audio_params": 16000},
    ],
)
def test_hello_we_cannot_serve_is_fatal(change: dict[str, Any]) -> None:
    protocol = DeviceProtocol("s")
    event = feed(protocol, {**HELLO, **change})
    assert isinstance(event, Violation)
    assert event.fatal
    assert not protocol.has_greeted


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "null",
        "5",
        "[]",
        '"hello"',
        "{",
        "{}",
        '{"type":null}',
        '{"type":5}',
        '{"type":["listen"]}',
        '{"type":"listen"}',
        '{"type":"listen","state":"start","mode":"loud"}',
        '{"type":"listen","state":"dance"}',
        '{"type":"listen","state":null}',
        '{"type":"listen","state":"detect","text":5}',
        '{"type":"abort","reason":{}}',
        '{"type":"mcp"}',
        '{"type":"mcp","payload":[]}',
        '{"type":"mcp","payload":{"n":NaN}}',
        '{"type":"mcp","payload":{"n":1e999999}}',
        '{"type":"listen","state":"detect","text":"a"b"}',
        '{"type":"listen","state":"detect","text":"\\ud800"}',
        '{"type":"\ud800"}',
        '{"type":"listen","state":"start"} trailing',
        "[" * 10_000,
        '{"type":"mcp","payload":{"a":' + "[" * 10_000 + "]" * 10_000 + "}}",
        '{"type":"listen","state":"stop","x":' + "[" * 10_000 + "]" * 10_000 + "}",
        '{"type":"listen","state":"detect","text":"' + "x" * (MAX_TYPED_CHARS + 1) + '"}',
        '{"type":"listen","state":"stop","x":"' + "x" * MAX_TEXT_CHARS + '"}',
    ],
)
def test_text_of_the_wrong_shape_is_a_violation_that_harms_nothing(text: str) -> None:
    protocol = in_state("auto")
    event = feed(protocol, text)
    assert isinstance(event, Violation)
    assert not event.fatal
    assert len(event.message) < 200
    assert name_of(feed(protocol, MESSAGES["abort"])) == "Abort"


def test_violations_never_repeat_what_the_device_said() -> None:
    event = feed(in_state("auto"), '{"type":"listen","state":"my secret words"}')
    assert isinstance(event, Violation)
    assert "secret" not in event.message


def test_last_of_duplicate_keys_counts() -> None:
    assert feed(in_state("greeted"), '{"type":"dance","type":"abort"}') == Abort(reason="")


@pytest.mark.parametrize("version", VERSIONS)
def test_preroll_before_detect_and_start_is_accepted(version: int) -> None:
    protocol = in_state("greeted", version)
    for _ in range(33):
        assert feed(protocol, pack(b"opus", version)) == AudioPacket(payload=b"opus", timestamp_ms=0)
    assert name_of(feed(protocol, MESSAGES["detect"])) == "WakeWord"
    assert name_of(feed(protocol, MESSAGES["auto"])) == "ListenStart"


@pytest.mark.parametrize("packet", [b"", b"x" * (MAX_PACKET_BYTES + 1)])
@pytest.mark.parametrize("version", VERSIONS)
def test_packet_no_opus_encoder_makes_is_dropped(version: int, packet: bytes) -> None:
    assert name_of(feed(in_state("auto", version), pack(packet, version))) == "bad-packet"


@pytest.mark.parametrize("version", [2, 3])
def test_lying_header_is_dropped_and_only_a_long_row_of_them_is_fatal(version: int) -> None:
    protocol = in_state("auto", version)
    lie = pack(b"opus", version) + b"!"
    for _ in range(3):
        for _ in range(MAX_VIOLATIONS_IN_A_ROW - 1):
            assert name_of(feed(protocol, lie)) == "bad-frame"
        assert name_of(feed(protocol, pack(b"opus", version))) == "AudioPacket"
    for _ in range(MAX_VIOLATIONS_IN_A_ROW - 1):
        feed(protocol, lie)
    last = protocol.receive_binary(lie)
    assert [name_of(event) for event in last] == ["bad-frame", "too-many"]
    assert isinstance(last[-1], Violation)
    assert last[-1].fatal


def test_timestamp_of_server_aec_devices_is_passed_on() -> None:
    message = bytes.fromhex("0002000000000000000003e8000000016f")
    assert feed(in_state("auto", 2), message) == AudioPacket(payload=b"o", timestamp_ms=1000)


def test_server_hello_has_all_a_device_needs() -> None:
    assert json.loads(DeviceProtocol("s").hello()) == {
        "type": "hello",
        "session_id": "s",
        "transport": "websocket",
        "audio_params": {"format": "opus", "sample_rate": 24000, "channels": 1, "frame_duration": 60},
    }


@pytest.mark.parametrize(
    ("message", "expected"),
    [
        (lambda out: out.stt("你好"), {"type": "stt", "text": "你好"}),
        (lambda out: out.tts_start(), {"type": "tts", "state": "start"}),
        (lambda out: out.sentence_start("好。"), {"type": "tts", "state": "sentence_start", "text": "好。"}),
        (lambda out: out.tts_stop(), {"type": "tts", "state": "stop"}),
        (lambda out: out.emotion("happy"), {"type": "llm", "emotion": "happy"}),
        (
            lambda out: out.alert("Error", "llm-failed", "sad"),
            {"type": "alert", "status": "Error", "message": "llm-failed", "emotion": "sad"},
        ),
        (lambda out: out.system("reboot"), {"type": "system", "command": "reboot"}),
        (lambda out: out.mcp({"id": 1}), {"type": "mcp", "payload": {"id": 1}}),
    ],
)
def test_messages_to_the_device_have_the_documented_shape(message: Any, expected: dict[str, Any]) -> None:
    assert json.loads(message(in_state("auto"))) == {**expected, "session_id": "s"}


def test_shown_text_stays_below_what_a_device_can_hold() -> None:
    out = DeviceProtocol("s")
    for message in (out.stt("字" * 100_000), out.sentence_start("字" * 100_000), out.alert("E", "字" * 100_000, "sad")):
        assert len(message.encode()) < 8_000


@pytest.mark.parametrize("version", VERSIONS)
def test_audio_to_the_device_is_framed_in_its_version(version: int) -> None:
    assert in_state("auto", version).audio(b"opus") == pack(b"opus", version)


def test_microphone_is_closed_by_speaking_except_in_realtime() -> None:
    assert not in_state("speaking").is_listening
    assert in_state("speaking-realtime").is_listening


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
almost_messages = st.fixed_dictionaries(
    {"type": st.sampled_from(["hello", "listen", "abort", "mcp", "goodbye", "iot", "ping", "tts", "x"])},
    optional={
        "state": st.sampled_from(["start", "stop", "detect"]) | json_values,
        "mode": st.sampled_from(["auto", "manual", "realtime"]) | json_values,
        "text": json_values,
        "reason": json_values,
        "payload": json_values,
        "version": json_values,
        "features": json_values,
        "audio_params": json_values,
        "language": json_values,
    },
).map(lambda message: json.dumps(message, ensure_ascii=False))


@pytest.mark.parametrize("number", [2**64, -(2**63) - 1])
def test_a_number_nobody_could_pass_on_is_a_violation(number: int) -> None:
    protocol = DeviceProtocol("s")
    protocol.receive(json.dumps(HELLO))
    (event,) = protocol.receive(json.dumps({"type": "mcp", "payload": {"id": [number]}}))
    assert isinstance(event, Violation)
    assert (event.code, event.fatal) == ("malformed", False)
    (event,) = protocol.receive(json.dumps({"type": "mcp", "payload": {"id": 2**63}}))
    assert event == Mcp(payload={"id": 2**63})


@settings(max_examples=300)
@given(
    st.sampled_from([None, *VERSIONS]),
    st.lists(st.binary(max_size=40) | st.text(max_size=40) | almost_messages | st.just(json.dumps(HELLO)), max_size=30),
)
def test_whatever_comes_becomes_events_that_can_cross_the_seam(
    version: int | None, messages: list[str | bytes]
) -> None:
    protocol = DeviceProtocol("s", version=version)
    for message in messages:
        for event in protocol.receive(message):
            assert isinstance(event, DeviceEvent)
            msgspec.msgpack.encode(event)
