"""Tokens for a device's pictures: for one session of one device, for minutes only; no state is shared but the secret.

The gateway hands one out with the greeting of the device's tools, the process that takes the pictures checks it. A token is
``<expiry, Unix seconds>.<session>.<signature, base64url>``; the signature is made for pictures alone, so that a token of the WebSocket
opens nothing here and a stolen one of these no WebSocket.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass

from models.errors import DeviceAuthError

TTL_S = 900
"""How long a token is good; a session's device is given a new one at half of it. A guess: a conversation takes minutes."""
MAX_TOKEN_CHARS = 192
_PURPOSE = "vision"


@dataclass(frozen=True, slots=True)
class VisionTokens:
    """Makes and checks them; ``now`` is seconds since 1970."""

    secret: str
    ttl_s: int = TTL_S
    now: Callable[[], float] = time.time

    def mint(self, device_id: str, client_id: str, session_id: str) -> str:
        """Return a token for this device's session; ``session_id`` holds no dot."""
        expires_at_s = int(self.now()) + self.ttl_s
        return f"{expires_at_s}.{session_id}.{self._signature(device_id, client_id, session_id, expires_at_s)}"

    def check(self, device_id: str, client_id: str, token: str) -> str:
        """Return the session the token was made for; raise DeviceAuthError when it is not this device's or not good any more."""
        expiry, _, rest = token.partition(".")
        session_id, dot, signature = rest.partition(".")
        if len(token) > MAX_TOKEN_CHARS or not dot or not (expiry.isascii() and expiry.isdigit()):
            raise DeviceAuthError(
                "picture token missing or malformed: it comes with the greeting of the device's tools"
            )
        expected = self._signature(device_id, client_id, session_id, int(expiry))
        if not hmac.compare_digest(signature.encode(), expected.encode()):
            raise DeviceAuthError("picture token made for another device, or by another secret")
        if int(expiry) <= self.now():
            raise DeviceAuthError("picture token expired: the device's next session has a new one")
        return session_id

    def _signature(self, device_id: str, client_id: str, session_id: str, expires_at_s: int) -> str:
        message = "\0".join((_PURPOSE, device_id.lower(), client_id, session_id, str(expires_at_s)))
        digest = hmac.new(self.secret.encode(), message.encode(), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


@dataclass(frozen=True, slots=True)
class VisionOffer:
    """Where a device may show what its camera sees, and with what; None of both is known to a device without."""

    url: str
    token: str


@dataclass(frozen=True, slots=True)
class VisionOffers:
    """What sessions offer their devices: one address, a token each."""

    url: str
    tokens: VisionTokens

    def __call__(self, device_id: str, client_id: str, session_id: str) -> VisionOffer:
        """Return a fresh offer for a session."""
        return VisionOffer(self.url, self.tokens.mint(device_id, client_id, session_id))
