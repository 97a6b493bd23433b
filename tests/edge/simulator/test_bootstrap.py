from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from coordinator.fleet.bootstrap import answer, read_question
from edge.simulator.bootstrap import FIRMWARE_VERSION, Address, Identity, boot, read_answer
from models.errors import DeviceError, DeviceProtocolError
from tests.real_time import run

WEBSOCKET = {"url": "ws://127.0.0.1:1/x", "token": "t", "version": 3}


def body(**fields: Any) -> bytes:
    return json.dumps(fields).encode()


def test_an_answer_with_a_websocket_gives_the_address() -> None:
    assert read_answer(200, body(websocket=WEBSOCKET)) == Address(url="ws://127.0.0.1:1/x", token="t", version=3)


@pytest.mark.parametrize(
    "firmware",
    [
        {"version": FIRMWARE_VERSION, "url": ""},
        {"version": "2.3.99", "url": "http://x/"},
        {"version": "9.9.9"},
        "nothing",
    ],
)
def test_firmware_that_is_no_upgrade_is_let_pass(firmware: object) -> None:
    assert read_answer(200, body(websocket=WEBSOCKET, firmware=firmware)).version == 3


@pytest.mark.parametrize(
    ("status", "content", "names"),
    [
        (500, body(websocket=WEBSOCKET), "500"),
        (200, b"<html>", "not JSON"),
        (200, b"[]", "not a JSON object"),
        (200, body(), "websocket.url"),
        (200, body(websocket={"token": "t"}), "websocket.url"),
        (200, body(websocket=WEBSOCKET, mqtt={}), "mqtt"),
        (200, body(websocket={"url": "ws://x/"}), "version"),
        (200, body(websocket=WEBSOCKET | {"a_name_of_sixteen": 1}), "reboots"),
        (200, body(websocket=WEBSOCKET, firmware={"version": "v2", "url": ""}), "reboots"),
        (200, body(websocket=WEBSOCKET, firmware={"version": "2.4.10", "url": "x"}), "upgrade"),
        (200, body(websocket=WEBSOCKET, firmware={"version": "1.0", "url": "x", "force": 1}), "upgrade"),
    ],
)
def test_an_answer_that_stock_firmware_would_suffer_from_is_refused(status: int, content: bytes, names: str) -> None:
    with pytest.raises(DeviceProtocolError, match=names):
        read_answer(status, content)


def test_the_coordinators_bootstrap_understands_the_question_and_is_understood() -> None:
    identity = Identity(device_id="AA:BB:CC:00:00:01")
    headers = {name.lower(): value for name, value in identity.boot_headers().items()}
    question = read_question(headers, json.dumps(identity.boot_body()).encode())
    assert (question.device_id, question.client_id) == ("aa:bb:cc:00:00:01", identity.uuid)
    assert (question.firmware_version, question.language) == (FIRMWARE_VERSION, "zh-CN")
    said = answer(question, websocket_url="ws://h:1/", token="t", protocol_version=1, now_ms=0, timezone_offset_min=480)
    assert read_answer(200, json.dumps(said).encode()) == Address(url="ws://h:1/", token="t", version=1)


def test_the_same_device_is_the_same_client() -> None:
    assert Identity(device_id="a").uuid == Identity(device_id="a").uuid != Identity(device_id="b").uuid
    assert Identity(client_id="mine").uuid == "mine"


@pytest.mark.parametrize(("token", "expected"), [("", None), ("t", "Bearer t"), ("Basic t", "Basic t")])
def test_bearer_is_prepended_to_a_token_without_a_space(token: str, expected: str | None) -> None:
    headers = Identity().websocket_headers(Address(url="ws://x/", token=token, version=2))
    assert headers.get("Authorization") == expected
    assert headers["Protocol-Version"] == "2"


@contextmanager
def coordinator(content: bytes) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    seen: list[dict[str, Any]] = []

    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            seen.append({"headers": dict(self.headers), "body": asked})
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *_arguments: object) -> None:  # noqa: A002 - the parent's name
            return

    with HTTPServer(("127.0.0.1", 0), Answering) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/xiaozhi/ota/", seen
        finally:
            server.shutdown()
            thread.join()


def test_booting_posts_what_the_firmware_posts() -> None:
    with coordinator(body(websocket=WEBSOCKET)) as (ota_url, seen):
        address = run(boot(ota_url, Identity()))
    assert address.token == "t"
    (request,) = seen
    assert request["headers"]["User-Agent"] == f"bread-compact-wifi/{FIRMWARE_VERSION}"
    assert isinstance(request["body"]["minimum_free_heap_size"], str)


def test_a_bad_answer_names_the_address() -> None:
    with coordinator(b"{}") as (ota_url, _), pytest.raises(DeviceProtocolError, match=ota_url):
        run(boot(ota_url, Identity()))


@pytest.mark.parametrize("ota_url", ["http://127.0.0.1:1/xiaozhi/ota/", "nonsense"])
def test_an_unreachable_coordinator_is_named(ota_url: str) -> None:
    with pytest.raises(DeviceError, match=f"cannot reach {ota_url}: is the coordinator running"):
        run(boot(ota_url, Identity()))
