"""Who this process is to NATS: its key, and what to do when the server does not let it in."""

from __future__ import annotations

import re

from models.errors import ConfigError

_REFUSAL = re.compile("authorization|authentication", re.IGNORECASE)
"""What nats-server says to a user it does not let in, or lets in no longer."""
_FORBIDDEN = re.compile(r'permissions violation for (publish|subscription) to "([^"]{1,400})"', re.IGNORECASE)
RIGHTS_MEND = "the key's role does not allow it: see xiaozhi-fleet keys list, and coordinator/nats_rights.py for the roles' rights"


def check_seed(seed: str) -> None:
    """Raise ConfigError unless ``seed`` is the text of an NKey seed and can be used here."""
    try:
        import nkeys  # type: ignore[import-not-found, import-untyped, unused-ignore]  # optional, and without types
    except ImportError as error:
        raise ConfigError("an NKey seed is set but cannot be used: pip install 'nats-py[nkeys]'") from error
    try:
        nkeys.from_seed(bytearray(seed, "utf-8")).wipe()
    except (nkeys.NkeysError, ValueError) as error:
        raise ConfigError('the NKey seed is not one: a user\'s seed is one line that begins with "SU"') from error


def mend_for(reason: str) -> str:
    """Return what to do about a server's refusal, "" when ``reason`` is none."""
    if not _REFUSAL.search(reason):
        return ""
    return "is the NKey seed, or the user in the address, one that nats-server knows?"


def forbidden_in(reason: str) -> tuple[str, str] | None:
    """Return what the server says that a user may not do, "publish" or "subscription", and the subject; None when it says no such thing."""
    match = _FORBIDDEN.search(reason)
    return None if match is None else (match[1].lower(), match[2])
