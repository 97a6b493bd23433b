"""The device's question at boot, and what stock firmware makes of the answer (protocol §2)."""

from __future__ import annotations

import re
import uuid
from typing import Any

import httpx
import msgspec

from models.errors import DeviceError, DeviceProtocolError

FIRMWARE_VERSION = "2.4.2"
HTTP_TIMEOUT_S = 30.0
"""The firmware's HTTP client waits so long for the header and again for the body (protocol §2.1)."""
MAX_KEY_CHARS = 15
"""Longer names inside ``websocket`` or ``mqtt`` make the flash write fail and the device reboot for ever (protocol §2.2)."""
_DOTTED = re.compile(r"\d+(\.\d+)*")
DEFAULT_DEVICE_ID = "00:00:5e:00:53:01"
"""From the MAC addresses that RFC 7042 §2.1.2 keeps for documentation."""


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Where a device talks, and with what."""

    url: str
    token: str = ""
    version: int = 1
    """Binary framing: 1, 2 or 3."""


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """Who a device says it is."""

    device_id: str = DEFAULT_DEVICE_ID
    client_id: str = ""
    """UUID; made from ``device_id`` when empty, so that the same device is the same client."""
    board: str = "bread-compact-wifi"
    language: str = "zh-CN"
    """Of the device's screen; the servers' hint at what is spoken."""

    @property
    def uuid(self) -> str:
        """The Client-Id."""
        return self.client_id or str(uuid.uuid5(uuid.NAMESPACE_OID, self.device_id))

    def boot_headers(self) -> dict[str, str]:
        """Return the headers of the boot request."""
        return {
            "Activation-Version": "1",
            "Device-Id": self.device_id,
            "Client-Id": self.uuid,
            "User-Agent": f"{self.board}/{FIRMWARE_VERSION}",
            "Accept-Language": self.language,
            "Content-Type": "application/json",
            "Connection": "close",
        }

    def websocket_headers(self, address: Address) -> dict[str, str]:
        """Return the headers of the WebSocket request besides the standard ones."""
        headers = {"Protocol-Version": str(address.version), "Device-Id": self.device_id, "Client-Id": self.uuid}
        if address.token:
            token = address.token
            headers["Authorization"] = token if " " in token else f"Bearer {token}"
        return headers

    def boot_body(self) -> dict[str, Any]:
        """Return what the firmware tells about itself, its odd types included."""
        return {
            "version": 2,
            "language": self.language,
            "flash_size": 16_777_216,
            "minimum_free_heap_size": "8318916",
            "mac_address": self.device_id,
            "uuid": self.uuid,
            "chip_model_name": "esp32s3",
            "chip_info": {"model": 9, "cores": 2, "revision": 2, "features": 18},
            "application": {
                "name": "xiaozhi",
                "version": FIRMWARE_VERSION,
                "compile_time": "Aug  8 2026T10:00:00Z",
                "idf_version": "v5.5.1",
                "elf_sha256": "0" * 64,
            },
            "partition_table": [{"label": "ota_0", "type": 0, "subtype": 16, "address": 131_072, "size": 4_128_768}],
            "ota": {"label": "ota_0"},
            "display": {"monochrome": True, "width": 128, "height": 32},
            "board": {
                "type": self.board,
                "name": self.board,
                "manufacturer": "simulated",
                "ssid": "simulated",
                "rssi": -55,
                "channel": 6,
                "ip": "127.0.0.1",
                "mac": self.device_id,
            },
        }


async def boot(ota_url: str, identity: Identity, *, timeout_s: float = HTTP_TIMEOUT_S) -> Address:
    """Ask ``ota_url`` where to talk; raise DeviceError when it is unreachable or the answer would not bring a device there."""
    try:
        async with httpx.AsyncClient(timeout=timeout_s, trust_env=False) as http:
            response = await http.post(
                ota_url, headers=identity.boot_headers(), content=msgspec.json.encode(identity.boot_body())
            )
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        message = f"cannot reach {ota_url}: is the coordinator running there? ({type(error).__name__})"
        raise DeviceError(message) from error
    try:
        return read_answer(response.status_code, response.content)
    except DeviceProtocolError as error:
        raise DeviceProtocolError(f"{ota_url}: {error}") from error


def read_answer(status: int, body: bytes) -> Address:
    """Return the WebSocket address in a boot answer; raise DeviceProtocolError for what stock firmware refuses or dies of."""
    if status != httpx.codes.OK:
        raise DeviceProtocolError(f"boot answered {status}; a device takes 200 only")
    answer = _object(body)
    _check_firmware(answer.get("firmware"))
    if "mqtt" in answer:
        raise DeviceProtocolError("the boot answer has mqtt, so a device takes MQTT and never the WebSocket")
    websocket = answer.get("websocket")
    if not isinstance(websocket, dict) or not isinstance(websocket.get("url"), str):
        raise DeviceProtocolError("the boot answer has no websocket.url, so a device falls back to MQTT")
    long_keys = [key for key in websocket if len(key) > MAX_KEY_CHARS]
    if long_keys:
        raise DeviceProtocolError(f"websocket.{long_keys[0]} is longer than {MAX_KEY_CHARS}: a device reboots for ever")
    version = websocket.get("version")
    if version not in (1, 2, 3):
        raise DeviceProtocolError("websocket.version must be 1, 2 or 3: without it a device keeps whatever it stored")
    token = websocket.get("token")
    return Address(url=websocket["url"], token=token if isinstance(token, str) else "", version=int(version))


def _check_firmware(firmware: object) -> None:
    if not isinstance(firmware, dict):
        return
    version, url = firmware.get("version"), firmware.get("url")
    if not isinstance(version, str) or not isinstance(url, str):
        return
    if not _DOTTED.fullmatch(version):
        raise DeviceProtocolError("firmware.version is not digits and dots: a device reboots for ever")
    if firmware.get("force") == 1 or _parts(version) > _parts(FIRMWARE_VERSION):
        raise DeviceProtocolError(f"firmware.version is {version}, ours {FIRMWARE_VERSION}: a device would upgrade")


def _parts(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def _object(body: bytes) -> dict[str, Any]:
    try:
        answer = msgspec.json.decode(body)
    except msgspec.MsgspecError as error:
        raise DeviceProtocolError("the boot answer is not JSON") from error
    if not isinstance(answer, dict):
        raise DeviceProtocolError("the boot answer is not a JSON object")
    return answer
