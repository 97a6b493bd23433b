"""Who may come in, and how fast they may talk: decisions without sockets or tasks."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from edge.gateway import framing
from models.errors import DeviceProtocolError

_DEVICE_ID = re.compile(r"[A-Za-z0-9:._-]{1,64}")
"""A MAC address on stock firmware (protocol §1); other clients send other names."""
_CLIENT_ID = re.compile(r"[A-Za-z0-9:._-]{0,64}")
_MAX_TOKEN_CHARS = 1024
_STALLED_S = 4.4
"""Sound a device sends at once when its network comes back: 2 s from before the wake word and the 2.4 s it keeps (protocol §6.1)."""
_CONTROL_HZ, _CONTROL_BURST = 10.0, 30
"""The same for messages that are no sound: a page of tools, a fast finger. A guess."""
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?=[-_,;\s]|$)")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who a connection says it is; nothing is proved yet."""

    device_id: str
    client_id: str
    token: str
    version: int | None
    """Binary framing; None when the header is missing and hello decides."""
    language: str = ""
    """What the client would read first, a BCP-47 tag; "" when it does not say, as stock firmware."""


def caller(
    device_id: list[str],
    client_id: list[str],
    authorization: list[str],
    version: list[str],
    accept_language: Sequence[str] = (),
) -> Caller:
    """Return who calls by all values of its headers; raise DeviceProtocolError naming the header that is wrong."""
    name = _only("Device-Id", device_id)
    if not _DEVICE_ID.fullmatch(name):
        raise DeviceProtocolError("Device-Id must be 1 to 64 letters, digits, ':', '.', '_' or '-'")
    client = _only("Client-Id", client_id)
    if not _CLIENT_ID.fullmatch(client):
        raise DeviceProtocolError("Client-Id must be up to 64 letters, digits, ':', '.', '_' or '-'")
    number = _only("Protocol-Version", version)
    if number and number not in map(str, framing.VERSIONS):
        raise DeviceProtocolError("Protocol-Version must be 1, 2 or 3")
    return Caller(
        device_id=name.lower(),
        client_id=client,
        token=_token(_only("Authorization", authorization)),
        version=int(number) if number else None,
        language=_first_language(accept_language),
    )


@dataclass(slots=True)
class Admission:
    """Decides by counts; the door asks it."""

    max_devices: int
    max_greeting: int
    """Connections that may be between their opening and a hello at once."""
    is_draining: bool = False

    def refusal(self, *, devices: int, greeting: int, is_known: bool) -> str:
        """Return why nobody more comes in, "" when somebody may; a device that ``is_known`` takes its own place."""
        if self.is_draining:
            return "draining"
        if devices >= self.max_devices and not is_known:
            return "full"
        return "busy" if greeting >= self.max_greeting else ""


TOLD_ALOUD = frozenset({"full", "draining"})
"""Refusals worth a connection; a crowd at the door before its hello ("busy") is not, it may be anybody."""


class Allowance:
    """How many messages a device may send: ``rate_hz`` for ever and ``burst`` at once. Who is faster has to wait."""

    def __init__(self, rate_hz: float, burst: int) -> None:
        self._interval_s = 1 / rate_hz
        self._slack_s = burst / rate_hz
        self._paid_until_s = 0.0

    @classmethod
    def of_frames(cls, frame_ms: int) -> Self:
        """Return what a device with packets of ``frame_ms`` needs: twice real time, and at once all that it can have kept back."""
        frames_hz = 1000 / frame_ms
        return cls(2 * frames_hz + _CONTROL_HZ, round(_STALLED_S * frames_hz) + _CONTROL_BURST)

    def delay_s(self, now_s: float) -> float:
        """Count a message and return how long to wait before reading the next."""
        self._paid_until_s = max(self._paid_until_s, now_s) + self._interval_s
        return max(0.0, self._paid_until_s - now_s - self._slack_s)


def _only(header: str, values: list[str]) -> str:
    if len(values) > 1:
        raise DeviceProtocolError(f"{header} was sent {len(values)} times")
    return values[0] if values else ""


def _first_language(accept_language: Sequence[str]) -> str:
    """Return the first tag's language: devices send one, and without weights."""
    found = _LANGUAGE.match(accept_language[0].strip()) if accept_language else None
    return found.group().lower() if found else ""


def _token(authorization: str) -> str:
    """Return what stands behind "Bearer "; firmware sends a token with a space in it as it is (protocol §4.1)."""
    if len(authorization) > _MAX_TOKEN_CHARS:
        raise DeviceProtocolError(f"Authorization has {len(authorization)} characters, {_MAX_TOKEN_CHARS} are allowed")
    scheme, _, token = authorization.partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""
