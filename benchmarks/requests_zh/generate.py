"""All drafts, said as people say them and numbered: the requests; the same ones every time."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterable, Mapping

import msgspec

from benchmarks.requests_zh.logic import LOGIC
from benchmarks.requests_zh.measures import MEASURES
from benchmarks.requests_zh.puzzles import PUZZLES
from benchmarks.requests_zh.request import Draft, Request
from benchmarks.requests_zh.speech import spoken
from benchmarks.requests_zh.stories import STORIES
from benchmarks.requests_zh.sums import SUMS
from benchmarks.requests_zh.templates import FILES, drafts_of, load_groups
from coordinator.routing.signals import Kind

Maker = Callable[[random.Random], Draft]

_MADE: tuple[tuple[Kind, Mapping[str, tuple[Maker, int]]], ...] = (
    (Kind.ARITHMETIC, SUMS),
    (Kind.ARITHMETIC, STORIES),
    (Kind.ARITHMETIC, MEASURES),
    (Kind.REASONING, PUZZLES),
    (Kind.REASONING, LOGIC),
)
_TRIES = 200
"""Draws of one group before it counts as exhausted."""


def generate() -> list[Request]:
    """Return all requests, no two with the same words; raise ConfigError for a malformed file."""
    requests: list[Request] = []
    seen: set[str] = set()
    for kind, name, drafts in _groups():
        rng = _rng(f"{name} said")
        for draft in drafts:
            if (bare := _bare(draft.text)) not in seen:
                seen.add(bare)
                requests.append(_request(kind, name, draft, rng))
    return _numbered(requests)


def _groups() -> Iterable[tuple[Kind, str, list[Draft]]]:
    for file in FILES:
        for group in load_groups(file):
            yield group.kind, group.name, drafts_of(group, _rng(group.name))
    for kind, makers in _MADE:
        for name, (maker, count) in makers.items():
            yield kind, name, _made(maker, count, _rng(name))


def _made(maker: Maker, count: int, rng: random.Random) -> list[Draft]:
    found: dict[str, Draft] = {}
    for _ in range(_TRIES):
        draft = maker(rng)
        found.setdefault(_bare(draft.text), draft)
        if len(found) == count:
            break
    return list(found.values())


def _rng(name: str) -> random.Random:
    """Return dice of the group's own, so that a change in one group changes no other."""
    return random.Random(zlib.crc32(name.encode()))


def _bare(text: str) -> str:
    return "".join(character for character in text if character.isalnum())


def _request(kind: Kind, group: str, draft: Draft, rng: random.Random) -> Request:
    return Request(
        id="",
        kind=kind,
        group=group,
        text=spoken(
            draft.text,
            rng,
            is_question=draft.grader is not None and kind is not Kind.COMMAND,
            is_verbatim=draft.is_verbatim,
        ),
        gold=draft.gold,
        grader=draft.grader,
        tolerance=draft.tolerance,
        unit=draft.unit,
        rivals=draft.rivals,
    )


def _numbered(requests: list[Request]) -> list[Request]:
    counts: dict[str, int] = {}
    numbered: list[Request] = []
    for request in requests:
        counts[request.group] = counts.get(request.group, 0) + 1
        name = f"{request.kind}-{request.group}-{counts[request.group]:02}"
        numbered.append(msgspec.structs.replace(request, id=name))
    return numbered
