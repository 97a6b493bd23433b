"""The file of users that the hub's configuration includes: who has a key, and what for; read, added to and taken from.

It holds public keys only and may be kept where configuration is kept. NATS reads it as it stands; a reload puts a change in force.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from coordinator.nats_rights import Role, rights_of
from models.errors import ConfigError

_LINE = re.compile(r'\s*\{"nkey": "(?P<key>U[A-Z2-7]{55})", .*\},?  # (?P<role>[a-z]+) (?P<name>[A-Za-z0-9_-]{1,64})')
_HEAD = "# Written by: xiaozhi-fleet keys. Public keys only; put a change in force with: nats-server --signal reload"
_SEED_MODE = 0o600


class User(msgspec.Struct, frozen=True, kw_only=True):
    """One key."""

    role: Role
    name: str
    key: str
    """Public; begins with U."""


def new_seed() -> tuple[str, str]:
    """Return the seed of a new user, which is secret, and its public key."""
    import nkeys  # type: ignore[import-not-found, import-untyped, unused-ignore]  # without types

    seed = bytes(nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER))
    return seed.decode(), nkeys.from_seed(bytearray(seed)).public_key.decode()


def users_text(users: Sequence[User]) -> str:
    """Return the file's text; raise ConfigError for a name that cannot stand in a subject."""
    lines = [_HEAD, "users: ["]
    for user in users:
        rights = rights_of(user.role, user.name)
        permissions = {"publish": list(rights.publish), "subscribe": list(rights.subscribe)}
        entry = json.dumps({"nkey": user.key, "permissions": permissions})
        lines.append(f"  {entry},  # {user.role} {user.name}")
    return "\n".join([*lines, "]", ""])


def read_users(path: Path) -> list[User]:
    """Return the users of a file, none of one that is not there; raise ConfigError naming the line that is not ours."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"{path} cannot be read: {type(error).__name__}") from error
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#") or line.strip() in {"users: [", "]"}:
            continue
        match = _LINE.fullmatch(line)
        if match is None or match["role"] not in set(Role):
            raise ConfigError(f"{path}, line {number}: not a user as `xiaozhi-fleet keys` writes them")
        found.append(User(role=Role(match["role"]), name=match["name"], key=match["key"]))
    return found


def write_users(path: Path, users: Sequence[User]) -> None:
    """Write the file whole or not at all; raise ConfigError."""
    text = users_text(users)
    fresh = path.with_name(f"{path.name}.new")
    try:
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error


def write_seed(path: Path, seed: str) -> None:
    """Write a seed into a new file that its owner alone may read; raise ConfigError, also when there is one already."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _SEED_MODE)
    except OSError as error:
        raise ConfigError(f"{path} cannot be made: {error.strerror}; a seed is never written over another") from error
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{seed}\n")


def added(users: Sequence[User], user: User) -> list[User]:
    """Return the users with one more; raise ConfigError when role and name have a key already, or the name cannot be one."""
    rights_of(user.role, user.name)
    if any((known.role, known.name) == (user.role, user.name) for known in users):
        raise ConfigError(f"{user.role} {user.name} has a key already: revoke it first, then make another")
    return [*users, user]


def revoked(users: Sequence[User], name: str) -> list[User]:
    """Return the users without those of this name or public key; raise ConfigError when there is none."""
    left = [user for user in users if name not in (user.name, user.key)]
    if len(left) == len(users):
        raise ConfigError(f"nobody is called {name[:80]!r}; see: xiaozhi-fleet keys list")
    return left
