from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.fleet.bootstrap import MAX_BODY_BYTES, BootQuestion, answer, read_question
from models.errors import DeviceProtocolError

MAC = "AA:bb:cc:dd:ee:ff"
HEADERS = {"device-id": MAC, "client-id": "uuid-1", "accept-language": "zh-CN"}
STOCK = {
    "version": 2,
    "flash_size": 16777216,
    "minimum_free_heap_size": "8318916",
    "mac_address": MAC.lower(),
    "uuid": "uuid-1",
    "application": {"name": "xiaozhi", "version": "2.4.2"},
    "board": {"type": "bread-compact-wifi", "ssid": "x"},
}


def ask(question: BootQuestion) -> dict[str, object]:
    return answer(
        question,
        websocket_url="ws://h:1/",
        token="t",
        protocol_version=3,
        now_ms=1_700_000_000_000,
        timezone_offset_min=480,
    )


def test_stock_firmware_gets_its_address_and_its_own_version_back() -> None:
    question = read_question(HEADERS, json.dumps(STOCK).encode())
    assert question.device_id == MAC.lower()
    assert (question.firmware_version, question.board, question.language) == ("2.4.2", "bread-compact-wifi", "zh-CN")
    assert ask(question) == {
        "server_time": {"timestamp": 1_700_000_000_000, "timezone_offset": 480},
        "websocket": {"url": "ws://h:1/", "token": "t", "version": 3},
        "firmware": {"version": "2.4.2", "url": ""},
    }


def test_names_inside_websocket_fit_the_flash() -> None:
    websocket = ask(read_question(HEADERS, b""))["websocket"]
    assert isinstance(websocket, dict)
    assert all(len(name) <= 15 for name in websocket)


@pytest.mark.parametrize("version", ["v1", "2.beta", "", "2..1", "1.2.3.4.5.6", 7, None])
def test_a_version_the_firmware_would_choke_on_is_not_echoed(version: object) -> None:
    question = read_question(HEADERS, json.dumps({"application": {"version": version}}).encode())
    assert "firmware" not in ask(question)


@pytest.mark.parametrize(
    "body", [b"", b"{}", b'{"application": 3, "board": [], "uuid": {}}', b'{"application": {"version": null}}']
)
def test_odd_bodies_are_tolerated(body: bytes) -> None:
    assert read_question(HEADERS, body).device_id == MAC.lower()


def test_a_small_client_may_name_itself_in_the_body() -> None:
    assert read_question({}, json.dumps({"mac_address": MAC}).encode()).device_id == MAC.lower()


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, b"{}"),
        (HEADERS, b"[1]"),
        (HEADERS, b"nonsense"),
        (HEADERS, b"\xff\xfe"),
        (HEADERS, b"[" * 5000),
        (HEADERS, b" " * (MAX_BODY_BYTES + 1)),
        ({"device-id": "a b"}, b"{}"),
        ({"device-id": "x" * 65}, b"{}"),
    ],
)
def test_what_cannot_be_answered_is_refused(headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(DeviceProtocolError):
        read_question(headers, body)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_question_or_a_protocol_error(body: bytes) -> None:
    with contextlib.suppress(DeviceProtocolError):
        read_question(HEADERS, body)
