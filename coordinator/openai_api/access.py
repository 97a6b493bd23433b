"""Who may ask: whoever shows a key, or, where no keys are set, this machine itself; pure.

Without keys a request must come from a loopback address, name this machine in Host and carry no sign of a proxy: else a proxy beside the
process, or a page in a browser whose name was pointed here, would open the door to everybody.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections.abc import Collection, Mapping

from coordinator.openai_api.refusals import Refusal
from models.errors import ConfigError

MIN_KEY_CHARS = 16
"""Shorter keys can be guessed."""
_PROXIED = ("forwarded", "x-forwarded-for", "x-real-ip", "via")


def keys_from(text: str) -> tuple[str, ...]:
    """Return the keys of a setting, with commas between them; raise ConfigError when one can be guessed or cannot be sent."""
    keys = tuple(filter(None, map(str.strip, text.split(","))))
    if any(len(key) < MIN_KEY_CHARS or not (key.isascii() and key.isprintable()) or " " in key for key in keys):
        raise ConfigError(
            f"COORDINATOR_API_KEYS: each key must have at least {MIN_KEY_CHARS} characters, ASCII and without spaces; make one with: "
            "openssl rand -hex 32"
        )
    return keys


class Access:
    """Checks requests against the keys; keeps only their hashes."""

    def __init__(self, keys: Collection[str]) -> None:
        self._hashes = tuple(_hash(key) for key in keys)

    def refusal(self, headers: Mapping[str, str], peer: str) -> Refusal | None:
        """Return why not, None when it may; ``headers`` have lower-case names, ``peer`` is the address of the other end."""
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        if self._hashes:
            key = shown.strip() if scheme.lower() == "bearer" else ""
            return (
                None if self._is_known(key) else _refused("a valid API key is needed: send Authorization: Bearer KEY")
            )
        if _is_loopback(peer) and _is_loopback(_host(headers)) and not any(name in headers for name in _PROXIED):
            return None
        return _refused("no API keys are set, so only this machine itself may ask: set COORDINATOR_API_KEYS")

    def _is_known(self, key: str) -> bool:
        """Return whether the key is one of ours, in a time that tells nothing of which."""
        shown = _hash(key)
        return sum(hmac.compare_digest(shown, known) for known in self._hashes) > 0


def _refused(message: str) -> Refusal:
    return Refusal(status=401, message=message, type="authentication_error", code="invalid_api_key")


def _hash(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


def _host(headers: Mapping[str, str]) -> str:
    host = headers.get("host", "")
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def _is_loopback(host: str) -> bool:
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
