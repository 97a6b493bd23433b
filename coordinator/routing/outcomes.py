"""What both sides made of a question, as a line of JSON in a file: the food of training."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import msgspec

from models.errors import ConfigError

Right = Annotated[float, msgspec.Meta(ge=0, le=1)]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """One question and how right each side answered it."""

    id: str
    text: str
    """The user's words."""
    kind: str = ""
    """Class or subject, "" when unknown."""
    group: str = ""
    """Questions of one group are never split between training and testing; "" means the question stands alone."""
    edge: Right
    """0 wrong, 1 right, between for a mark in part."""
    cloud: Right


_HEADER = b'{"about":'
"""How a first line begins that says where the outcomes come from."""
_DECODER = msgspec.json.Decoder(Outcome)


def read_outcomes(path: Path) -> list[Outcome]:
    """Return the outcomes of a file of JSON lines; raise ConfigError naming the file and line that is wrong."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    found: list[Outcome] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or (number == 1 and line.startswith(_HEADER)):
            continue
        try:
            found.append(_DECODER.decode(line))
        except msgspec.DecodeError as error:
            raise ConfigError(f"{path}, line {number}: {error}") from error
    if not found:
        raise ConfigError(f"{path} holds no outcomes")
    return found


def write_outcomes(outcomes: Iterable[Outcome], path: Path) -> None:
    """Write the outcomes as JSON lines; raise ConfigError naming the file when it cannot be written."""
    try:
        path.write_bytes(b"".join(msgspec.json.encode(outcome) + b"\n" for outcome in outcomes))
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error
