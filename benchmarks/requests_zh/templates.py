"""Hand-written files of questions and templates into drafts.

``ask`` holds the ways to ask. With ``items`` each line "QUESTION=ANSWER|other form" is asked in one of them; "~" parts the wrong
options of a choice or category, "±" a number and its tolerance, and ``classes`` names options for all items. With ``slots`` the
braces of ``ask`` are filled at random and nothing is checked. ``lines`` are requests as they stand.
"""

from __future__ import annotations

import random
from importlib import resources
from string import Formatter

import msgspec

from benchmarks.requests_zh.request import Draft, Gold, Grader
from coordinator.routing.signals import Kind
from models.errors import ConfigError

FILES = (
    "facts_world.toml",
    "facts_china.toml",
    "facts_science.toml",
    "puzzles.toml",
    "commands.toml",
    "chat.toml",
    "writing.toml",
    "safety.toml",
)
_TRIES = 60


class Group(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Requests that share their template."""

    name: str
    kind: Kind
    grader: Grader | None = None
    ask: tuple[str, ...] = ("{}",)
    items: str = ""
    lines: str = ""
    classes: str = ""
    slots: dict[str, tuple[str, ...]] = {}
    take: int = 0
    """How many fillings of ``slots`` to take."""
    unit: str = ""
    is_verbatim: bool = False


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    groups: tuple[Group, ...]


def load_groups(name: str) -> tuple[Group, ...]:
    """Return the groups of one file beside this module; raise ConfigError naming it and what is wrong."""
    try:
        data = resources.files("benchmarks.requests_zh").joinpath(name).read_text(encoding="utf-8")
        return msgspec.toml.decode(data, type=_File).groups
    except (OSError, msgspec.DecodeError) as error:
        raise ConfigError(f"{name}: {error}") from error


def drafts_of(group: Group, rng: random.Random) -> list[Draft]:
    """Return the group's drafts, no two alike; raise ConfigError for an item without an answer."""
    drafts = [Draft(text=line) for line in group.lines.strip().splitlines()]
    asks = list(group.ask)
    for line in group.items.strip().splitlines():
        question, mark, answer = line.partition("=")
        if not mark or group.grader is None:
            raise ConfigError(f"{group.name}: {line!r} must be QUESTION=ANSWER in a group with a grader")
        if len(asks) == len(group.ask):
            rng.shuffle(asks)
        drafts.append(_checked(group, asks.pop().format(question), answer))
        asks = asks or list(group.ask)
    return drafts + _filled(group, rng)


def _checked(group: Group, text: str, answer: str) -> Draft:
    if group.grader == "number":
        value, _, tolerance = answer.partition("±")
        return Draft(text=text, gold=float(value), grader="number", tolerance=float(tolerance or 0), unit=group.unit)
    right, *rivals = answer.split("~")
    if group.classes:
        options = group.classes.split("~")
        mine = next(option for option in options if right in option.split("/"))
        return Draft(
            text=text, gold=tuple(mine.split("/")), grader=group.grader, rivals=tuple(set_without(options, mine))
        )
    gold: Gold = (right,) if group.grader == "choice" else tuple(right.split("|"))
    if group.grader == "category":
        gold = tuple(right.split("/"))
    return Draft(text=text, gold=gold, grader=group.grader, rivals=tuple(rivals), is_verbatim=group.is_verbatim)


def set_without(options: list[str], one: str) -> list[str]:
    """Return ``options`` in their order without ``one``."""
    return [option for option in options if option != one]


def _filled(group: Group, rng: random.Random) -> list[Draft]:
    found: dict[str, Draft] = {}
    for turn in range(group.take * _TRIES):
        if len(found) == group.take:
            break
        ask = group.ask[turn % len(group.ask)]
        names = [name for _, name, _, _ in Formatter().parse(ask) if name]
        text = ask.format(**{name: rng.choice(group.slots[name]) for name in names})
        found.setdefault(text, Draft(text=text))
    return list(found.values())
