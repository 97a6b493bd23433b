"""The nouns: one request to a smart speaker and, where it can be checked, what a right answer says."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import resources
from typing import Literal

import msgspec

from coordinator.routing.signals import Kind
from models.errors import ConfigError

FILE = "requests.jsonl"

Grader = Literal["number", "text", "yes-no", "choice", "category", "order", "clock", "date"]
Gold = tuple[str, ...] | float | None


class Request(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request; ``gold`` and ``grader`` are None where no automatic check is fair."""

    id: str
    kind: Kind
    group: str
    """The template behind it: requests of one group are alike, so a fair split keeps them together."""
    text: str
    gold: Gold
    """A number, or the accepted forms; for ``order`` the items in order. Forms of one item are parted by a slash."""
    grader: Grader | None
    tolerance: float = 0.0
    """How far a number may be off."""
    unit: str = ""
    """Unit of a number where an answer may use another: 元, 分钟 or 小时; 年 for a year among other parts of a date."""
    rivals: tuple[str, ...] = ()
    """The wrong options of a choice or category."""


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """A request before it is said and numbered."""

    text: str
    gold: Gold = None
    grader: Grader | None = None
    tolerance: float = 0.0
    unit: str = ""
    rivals: tuple[str, ...] = ()
    is_verbatim: bool = False
    """Whether the words must stay as they are: a sentence to count or repeat."""


def load_requests() -> list[Request]:
    """Return the committed requests; raise ConfigError when the file is missing or malformed."""
    try:
        data = resources.files("benchmarks.requests_zh").joinpath(FILE).read_bytes()
        return [msgspec.json.decode(line, type=Request) for line in data.splitlines()]
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(f"{FILE}: {error}; write it with: python -m benchmarks.requests_zh") from error


def dump_requests(requests: Iterable[Request]) -> bytes:
    """Return the requests as JSON lines."""
    return b"".join(msgspec.json.encode(request) + b"\n" for request in requests)
