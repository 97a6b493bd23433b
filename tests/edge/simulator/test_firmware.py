from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.gateway.vision_tokens import VisionOffer
from edge.simulator.firmware import GREETING, NEXT, TOOLS, Firmware, Photo, State
from models.errors import DeviceProtocolError

HELLO = {
    "type": "hello",
    "transport": "websocket",
    "session_id": "s1",
    "audio_params": {"sample_rate": 24_000, "frame_duration": 60},
}


class Decoder:
    def __init__(self, rate_hz: int) -> None:
        self.concealed = 0
        self.rate_hz = rate_hz

    def decode(self, packet: bytes) -> bytes:
        return bytes(self.rate_hz * 60 // 1000 * 2)


def tell(firmware: Firmware, now_ms: float, **message: Any) -> None:
    firmware.on_text(json.dumps(message), now_ms)


def sent(firmware: Firmware) -> list[dict[str, Any]]:
    texts, firmware.outbox = firmware.outbox, []
    return [json.loads(text) for text in texts]


def greeted(**hello: Any) -> Firmware:
    firmware = Firmware(Decoder)
    firmware.connect()
    sent(firmware)
    tell(firmware, 0, **(HELLO | hello))
    return firmware


def listening(mode: Any = "auto") -> Firmware:
    firmware = greeted()
    firmware.listen(mode, 0)
    sent(firmware)
    return firmware


def speaking(mode: Any = "auto", packets: int = 3) -> Firmware:
    firmware = listening(mode)
    tell(firmware, 1000, type="tts", state="start")
    for _ in range(packets):
        firmware.on_packet(b"a", 1100)
    return firmware


def test_hello_is_said_as_stock_firmware_says_it() -> None:
    firmware = Firmware(Decoder, version=3)
    firmware.connect()
    assert firmware.state is State.CONNECTING
    assert sent(firmware) == [
        {
            "type": "hello",
            "version": 3,
            "features": {"mcp": True, "glyph_push": False},
            "transport": "websocket",
            "audio_params": {"format": "opus", "sample_rate": 16_000, "channels": 1, "frame_duration": 60},
        }
    ]


def test_the_servers_hello_sets_session_rate_and_frame_length() -> None:
    firmware = greeted(audio_params={"sample_rate": 16_000, "frame_duration": 20})
    assert firmware.is_open
    assert (firmware.session_id, firmware.playback.rate_hz, firmware.playback.frame_ms) == ("s1", 16_000, 20)


def test_a_hello_without_audio_parameters_keeps_the_defaults() -> None:
    firmware = Firmware(Decoder)
    firmware.connect()
    tell(firmware, 0, type="hello", transport="websocket")
    assert (firmware.is_open, firmware.playback.rate_hz, firmware.playback.frame_ms) == (True, 24_000, 60)


@pytest.mark.parametrize("hello", [{}, {"transport": "websocket", "audio_params": {"frame_duration": 30}}])
def test_a_hello_that_crashes_a_device_is_an_error(hello: dict[str, Any]) -> None:
    with pytest.raises(DeviceProtocolError):
        tell(Firmware(Decoder), 0, type="hello", **hello)


def test_a_hello_of_another_transport_is_ignored_as_if_none_had_come() -> None:
    firmware = Firmware(Decoder)
    tell(firmware, 0, type="hello", transport="udp")
    assert not firmware.is_open


def test_listening_opens_the_microphone_and_says_so() -> None:
    firmware = greeted()
    firmware.listen("auto", 0, wake_word="你好小智")
    assert sent(firmware) == [
        {"session_id": "s1", "type": "listen", "state": "detect", "text": "你好小智"},
        {"session_id": "s1", "type": "listen", "state": "start", "mode": "auto"},
    ]
    assert firmware.is_mic_on


def test_listening_twice_says_nothing_more() -> None:
    firmware = listening()
    firmware.listen("auto", 10)
    assert sent(firmware) == []


def test_speaking_before_the_first_listen_is_refused() -> None:
    firmware = greeted()
    tell(firmware, 0, type="tts", state="start")
    assert firmware.state is State.CONNECTING
    assert firmware.log.faults == ["tts/start while connecting: refused"]


def test_speaking_twice_is_refused() -> None:
    firmware = speaking()
    tell(firmware, 1200, type="tts", state="start")
    assert firmware.log.faults == ["tts/start while speaking: refused"]


@pytest.mark.parametrize(("mode", "keeps"), [("auto", False), ("manual", False), ("realtime", True)])
def test_the_microphone_closes_while_speaking_unless_realtime(mode: str, keeps: bool) -> None:
    assert speaking(mode).is_mic_on is keeps


def test_packets_outside_speaking_are_dropped_and_told_apart() -> None:
    firmware = listening()
    firmware.on_packet(b"a", 500)
    tell(firmware, 1000, type="tts", state="start")
    firmware.on_packet(b"a", 1100)
    tell(firmware, 1200, type="tts", state="stop")
    firmware.on_packet(b"a", 1201)
    assert (firmware.log.packets_outside, firmware.log.packets_after_stop) == (2, 1)
    assert firmware.playback.sound.frames == 1


def test_audio_on_the_heels_of_tts_start_is_noted() -> None:
    firmware = listening()
    tell(firmware, 1000, type="tts", state="start")
    firmware.on_packet(b"a", 1010)
    firmware.on_packet(b"a", 1020)
    assert firmware.log.packets_hurried == 1


def test_auto_mode_listens_again_only_when_the_tail_has_been_played() -> None:
    firmware = speaking(packets=3)
    tell(firmware, 1110, type="tts", state="stop")
    assert (firmware.state, firmware.is_mic_on) == (State.LISTENING, False)
    firmware.tick(1279)
    assert sent(firmware) == []
    firmware.tick(1280)
    assert sent(firmware) == [{"session_id": "s1", "type": "listen", "state": "start", "mode": "auto"}]
    assert firmware.is_mic_on


def test_auto_mode_listens_at_once_when_nothing_sounds() -> None:
    firmware = speaking(packets=0)
    tell(firmware, 1110, type="tts", state="stop")
    assert [message["state"] for message in sent(firmware)] == ["start"]


def test_a_new_answer_before_the_tail_has_been_played_calls_listening_off() -> None:
    firmware = speaking(packets=3)
    tell(firmware, 1110, type="tts", state="stop")
    tell(firmware, 1120, type="tts", state="start")
    firmware.tick(5000)
    assert sent(firmware) == []
    assert firmware.playback.sound.cut == 2


def test_manual_mode_goes_idle_and_can_be_answered_there() -> None:
    firmware = listening("manual")
    firmware.release()
    assert sent(firmware) == [{"session_id": "s1", "type": "listen", "state": "stop"}]
    assert (firmware.state, firmware.is_mic_on) == (State.IDLE, False)
    tell(firmware, 1000, type="tts", state="start")
    assert firmware.state is State.SPEAKING
    tell(firmware, 1100, type="tts", state="stop")
    assert firmware.state is State.IDLE
    assert sent(firmware) == []


def test_realtime_mode_never_says_listen_again() -> None:
    firmware = speaking("realtime")
    tell(firmware, 1110, type="tts", state="stop")
    firmware.tick(5000)
    assert sent(firmware) == []
    assert firmware.is_mic_on


def test_the_button_changes_no_state_and_waits_for_the_stop() -> None:
    firmware = speaking()
    firmware.interrupt(1150)
    assert sent(firmware) == [{"session_id": "s1", "type": "abort"}]
    assert firmware.state is State.SPEAKING
    firmware.on_packet(b"a", 1160)
    tell(firmware, 1170, type="tts", state="stop")
    firmware.on_packet(b"a", 1180)
    log = firmware.log
    assert (log.aborted_ms, log.obeyed_ms, log.packets_after_abort, log.packets_after_stop) == (1150, 1170, 1, 1)


def test_the_wake_word_takes_the_device_back_to_listening_by_itself() -> None:
    firmware = speaking()
    firmware.interrupt(1150, by_wake_word=True)
    assert [message["type"] for message in sent(firmware)] == ["abort", "listen"]
    assert firmware.state is State.LISTENING
    tell(firmware, 1170, type="tts", state="stop")
    assert firmware.log.obeyed_ms == 1170
    assert sent(firmware) == []


def test_the_wake_word_while_listening_begins_the_listening_anew() -> None:
    firmware = listening()
    firmware.interrupt(150, by_wake_word=True)
    assert [(message["type"], message.get("state")) for message in sent(firmware)] == [
        ("abort", None),
        ("listen", "start"),
    ]
    assert firmware.state is State.LISTENING
    assert firmware.is_mic_on


def test_a_stray_stop_is_ignored() -> None:
    firmware = listening()
    tell(firmware, 100, type="tts", state="stop")
    assert firmware.log.stopped_ms is None


def test_what_is_shown_is_kept() -> None:
    firmware = listening()
    tell(firmware, 900, type="stt", text="天气怎么样")
    tell(firmware, 910, type="llm", emotion="happy", text="😀")
    tell(firmware, 1000, type="tts", state="start")
    tell(firmware, 1010, type="tts", state="sentence_start", text="很好。")
    tell(firmware, 1020, type="tts", state="sentence_end")
    tell(firmware, 1030, type="alert", status="error", message="llm-failed", emotion="sad")
    tell(firmware, 1040, type="system", command="reboot")
    log = firmware.log
    assert (log.heard, log.transcript_ms, log.emotion) == ("天气怎么样", 900, "happy")
    assert (log.sentences, log.alerts, log.faults) == (["很好。"], ["error: llm-failed"], [])
    assert firmware.must_reboot


@pytest.mark.parametrize(
    "text",
    [
        "not json",
        "[]",
        "{}",
        '{"type": 3}',
        '{"type": "tts"}',
        '{"type": "alert", "status": "x"}',
        json.dumps({"type": "stt", "text": "x" * 9000}),
    ],
)
def test_a_message_that_a_device_cannot_use_is_a_fault(text: str) -> None:
    firmware = listening()
    firmware.on_text(text, 0)
    assert len(firmware.log.faults) == 1


@pytest.mark.parametrize(
    ("payload", "expected"),
    [
        ({"jsonrpc": "2.0", "id": 1, "method": "tools/list"}, {"result": {"tools": TOOLS}}),
        ({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {}}, {"result": GREETING}),
        ({"jsonrpc": "2.0", "id": 2, "method": "nonsense"}, {"error": {"message": "unknown method"}}),
        ({"jsonrpc": "2.0", "id": 3, "method": ["tools/list"]}, {"error": {"message": "unknown method"}}),
    ],
)
def test_tools_are_answered_for(payload: dict[str, Any], expected: dict[str, Any]) -> None:
    firmware = listening()
    tell(firmware, 0, type="mcp", payload=payload)
    (message,) = sent(firmware)
    assert message["payload"] == {"jsonrpc": "2.0", "id": payload["id"]} | expected


@pytest.mark.parametrize("odd", [{"id": "1"}, {"id": True}, {"id": None}, {"jsonrpc": "1.0"}])
def test_tool_requests_without_a_numeric_id_or_version_get_no_reply(odd: dict[str, Any]) -> None:
    firmware = listening()
    tell(firmware, 0, type="mcp", payload={"jsonrpc": "2.0", "id": 1, "method": "initialize"} | odd)
    assert sent(firmware) == []


def called(firmware: Firmware, params: object) -> dict[str, Any]:
    tell(firmware, 0, type="mcp", payload={"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params})
    (message,) = sent(firmware)
    payload: dict[str, Any] = message["payload"]
    return payload


def test_volume_set_by_tool_shows_in_the_device_status() -> None:
    firmware = listening()
    done = called(firmware, {"name": "self.audio_speaker.set_volume", "arguments": {"volume": 30}})
    assert done["result"] == {"content": [{"type": "text", "text": "true"}], "isError": False}
    status = called(firmware, {"name": "self.get_device_status"})
    assert json.loads(status["result"]["content"][0]["text"]) == {"audio_speaker": {"volume": 30}}


@pytest.mark.parametrize(
    "params",
    [
        None,
        [],
        {"name": ["x"]},
        {"name": "self.reboot", "arguments": {}},
        *(
            {"name": "self.audio_speaker.set_volume", "arguments": arguments}
            for arguments in ({}, [], {"volume": 101}, {"volume": True}, {"volume": "30"})
        ),
    ],
)
def test_a_call_that_a_device_cannot_run_is_an_error_without_code(params: object) -> None:
    firmware = listening()
    assert called(firmware, params)["error"].keys() == {"message"}
    assert firmware.volume == 70


# The camera

OFFER = {"url": "http://edge/vision", "token": "t1"}
TAKE_PHOTO = {"name": "self.camera.take_photo", "arguments": {"question": "这是什么？"}}


def offer(firmware: Firmware, capabilities: object) -> None:
    params = {"capabilities": capabilities}
    tell(firmware, 0, type="mcp", payload={"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": params})
    assert len(sent(firmware)) == 1


def with_camera() -> Firmware:
    return Firmware(Decoder, has_camera=True)


@pytest.mark.parametrize(
    "capabilities", [None, [], {}, {"vision": None}, {"vision": {"token": "t"}}, {"vision": {"url": 1}}]
)
def test_greeting_without_an_address_for_pictures_offers_none(capabilities: object) -> None:
    firmware = with_camera()
    offer(firmware, capabilities)
    assert firmware.vision is None
    assert called(firmware, TAKE_PHOTO)["error"] == {"message": "Image explain URL or token is not set"}


def test_later_greeting_brings_a_later_token() -> None:
    firmware = with_camera()
    for capabilities in ({"vision": OFFER}, {"vision": OFFER | {"token": "t2"}}, {}):
        offer(firmware, capabilities)
    assert firmware.vision == VisionOffer(OFFER["url"], "t2")


def test_photo_is_answered_once_it_was_explained() -> None:
    firmware = with_camera()
    offer(firmware, {"vision": OFFER})
    tell(firmware, 0, type="mcp", payload={"jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": TAKE_PHOTO})
    assert sent(firmware) == []
    assert firmware.photos == [Photo(9, "这是什么？")]
    firmware.explained(firmware.photos[0], "一只猫")
    firmware.explained(firmware.photos[0], None)
    good, bad = (message["payload"] for message in sent(firmware))
    assert (good["id"], good["result"]["content"][0]["text"]) == (9, "一只猫")
    assert bad["error"] == {"message": "Failed to upload photo"}


def test_photo_needs_a_question_and_a_camera() -> None:
    firmware = with_camera()
    offer(firmware, {"vision": OFFER})
    assert "error" in called(firmware, TAKE_PHOTO | {"arguments": {}})
    assert called(listening(), TAKE_PHOTO)["error"] == {"message": "Unknown tool"}
    assert firmware.photos == []


def test_a_closed_socket_leaves_the_device_idle() -> None:
    firmware = speaking("realtime")
    firmware.closed()
    assert (firmware.state, firmware.is_open, firmware.is_mic_on) == (State.IDLE, False, False)


@given(
    st.lists(
        st.one_of(
            st.sampled_from(["start", "stop", "packet", "abort", "wake", "listen", "release", "tick"]),
            st.text(max_size=20),
        ),
        max_size=40,
    )
)
def test_whatever_comes_only_legal_transitions_happen(events: list[str]) -> None:
    firmware = greeted()
    now_ms = 0.0
    for event in events:
        before, now_ms = firmware.state, now_ms + 37
        feed(firmware, event, now_ms)
        steps = {before} | NEXT[before]
        assert firmware.state in steps | {further for step in NEXT[before] for further in NEXT[step]}
        assert firmware.state is not State.SPEAKING or before is not State.CONNECTING
        assert not firmware.is_mic_on or firmware.state in {State.LISTENING, State.SPEAKING}
        assert not (firmware.is_mic_on and firmware.state is State.SPEAKING and firmware.mode != "realtime")


def feed(firmware: Firmware, event: str, now_ms: float) -> None:
    match event:
        case "start" | "stop":
            tell(firmware, now_ms, type="tts", state=event)
        case "packet":
            firmware.on_packet(b"a", now_ms)
        case "abort" | "wake":
            firmware.interrupt(now_ms, by_wake_word=event == "wake")
        case "listen":
            firmware.listen("auto", now_ms)
        case "release":
            firmware.release()
        case "tick":
            firmware.tick(now_ms)
        case _:
            firmware.on_text(event, now_ms)
