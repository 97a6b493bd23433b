"""From a device's boot question to the answer stock firmware understands (protocol §2); pure.

Only ``websocket`` is answered: an ``mqtt`` object would make the device take MQTT. ``websocket.version`` is always named, as an
absent one keeps whatever the device stored before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from models.errors import DeviceProtocolError

MAX_BODY_BYTES = 64 * 1024
"""Stock firmware sends 2 to 4 kB (protocol §2.1)."""
_DEVICE_ID = re.compile(r"[0-9A-Za-z:_.-]{1,64}")
_VERSION = re.compile(r"\d{1,6}(\.\d{1,6}){0,4}")


class BootQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """What bootstrap needs of a device's request."""

    device_id: str
    client_id: str = ""
    language: str = ""
    """As the device says it, e.g. "zh-CN"."""
    firmware_version: str = ""
    """Digits and dots, or "" when the device said nothing usable."""
    board: str = ""


def read_question(headers: Mapping[str, str], body: bytes) -> BootQuestion:
    """Return the question of a request whose ``headers`` have lower-case names; raise DeviceProtocolError without a device id.

    Every field of the body is optional and may have any type: other clients send much less than the firmware.
    """
    if len(body) > MAX_BODY_BYTES:
        raise DeviceProtocolError(f"body of {len(body)} bytes is over the limit of {MAX_BODY_BYTES}")
    said = _as_object(body)
    application = said.get("application")
    application = application if isinstance(application, dict) else {}
    board = said.get("board")
    board = board if isinstance(board, dict) else {}
    device_id = headers.get("device-id") or _text(said.get("mac_address"))
    if not _DEVICE_ID.fullmatch(device_id):
        raise DeviceProtocolError("no usable Device-Id header: send the device's MAC address")
    version = _text(application.get("version"))
    return BootQuestion(
        device_id=device_id.lower(),
        client_id=(headers.get("client-id") or _text(said.get("uuid")))[:64],
        language=(headers.get("accept-language") or _text(said.get("language")))[:16],
        firmware_version=version if _VERSION.fullmatch(version) else "",
        board=_text(board.get("type"))[:64],
    )


def answer(
    question: BootQuestion,
    *,
    websocket_url: str,
    token: str,
    protocol_version: int,
    now_ms: int,
    timezone_offset_min: int,
) -> dict[str, object]:
    """Return the response object: clock, WebSocket address and token, and the device's own firmware version as "no update"."""
    said: dict[str, object] = {
        "server_time": {"timestamp": now_ms, "timezone_offset": timezone_offset_min},
        "websocket": {"url": websocket_url, "token": token, "version": protocol_version},
    }
    if question.firmware_version:
        said["firmware"] = {"version": question.firmware_version, "url": ""}
    return said


def _as_object(body: bytes) -> dict[str, object]:
    try:
        said = msgspec.json.decode(body or b"{}")
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise DeviceProtocolError("body is not JSON") from error
    if not isinstance(said, dict):
        raise DeviceProtocolError("body is not a JSON object")
    return said


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
