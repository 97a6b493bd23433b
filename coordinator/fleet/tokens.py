"""Tokens a device carries from bootstrap to its edge: bound to Device-Id and Client-Id, with an expiry, signed with HMAC-SHA256.

A token is ``<expiry, Unix seconds>.<signature, base64url>``: no space (firmware would not prepend "Bearer "), and no state to share
but the secret.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass

from models.errors import DeviceAuthError

TTL_S = 30 * 86_400
"""A device learns its token only at boot and may stay up for weeks (protocol §0), so it lives a month. A guess."""
MAX_TOKEN_CHARS = 128


def mint(secret: str, device_id: str, client_id: str, expires_at_s: int) -> str:
    """Return a token for this device and client until ``expires_at_s`` (Unix seconds)."""
    return f"{expires_at_s}.{_signature(secret, device_id, client_id, expires_at_s)}"


@dataclass(frozen=True, slots=True)
class TokenAuthenticator:
    """Checks what a device shows at the gateway's door."""

    secret: str
    now: Callable[[], float] = time.time

    def check(self, device_id: str, client_id: str, token: str) -> None:
        """Return if the token is this device's and still valid; raise DeviceAuthError otherwise."""
        expiry, dot, signature = token.partition(".")
        if len(token) > MAX_TOKEN_CHARS or not dot or not (expiry.isascii() and expiry.isdigit()):
            raise DeviceAuthError("token missing or malformed: let the device boot again to get one")
        expected = _signature(self.secret, device_id, client_id, int(expiry))
        if not hmac.compare_digest(signature.encode(), expected.encode()):
            raise DeviceAuthError("token made for another device or by another secret")
        if int(expiry) <= self.now():
            raise DeviceAuthError("token expired: let the device boot again to get a new one")


def _signature(secret: str, device_id: str, client_id: str, expires_at_s: int) -> str:
    message = "\0".join((device_id.lower(), client_id, str(expires_at_s)))
    digest = hmac.new(secret.encode(), message.encode(), hashlib.sha256).digest()
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
