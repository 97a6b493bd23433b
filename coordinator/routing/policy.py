"""The routing policy: what an operator decides for the fleet, as a JSON document that is taken whole or refused whole."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, get_args

import msgspec
from msgspec import UNSET, Meta, UnsetType

from coordinator.routing.complexity import THRESHOLD
from models.errors import ConfigError

MAX_DOCUMENT_BYTES = 65_536
"""A policy takes a few hundred bytes; more is refused unread. A guess."""
MAX_POOLS = 16
MAX_ARMS = 8
FIRST_TOKEN_MS = 4000.0
"""A guess that leaves a slow first token its chance on a CPU."""

_TOKEN = r"^[A-Za-z0-9_-]{1,64}$"  # noqa: S105 - the shape of a NATS subject token, as in wire.py
_NAME = "a name of 1 to 64 letters, digits, - and _"
_CHOICE = '"gain" or "complexity"'

Share = Annotated[float, Meta(ge=0, le=1, description="a number from 0 to 1")]
Name = Annotated[str, Meta(pattern=_TOKEN, description=_NAME)]
Chooser = Annotated[Literal["gain", "complexity"], Meta(description=_CHOICE)]
Level = Annotated[float, Meta(ge=0, le=2, description="a number from 0 to 2, above 1 meaning never")]
Budget = Annotated[float, Meta(ge=0, le=1e12, description="a number from 0 to 1e12")]
Floor = Annotated[
    float, Meta(ge=0.5, le=0.999, description="the share of turns no worse than all-cloud, from 0.5 to 0.999")
]
Milliseconds = Annotated[float, Meta(ge=1, le=60_000, description="milliseconds from 1 to 60000")]
HedgeShare = Annotated[float, Meta(ge=0, le=0.5, description="a number from 0 to 0.5")]
Switch = Annotated[bool, Meta(description="true or false")]


class PoolTerms(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an operator says of one cloud pool."""

    name: Name
    price: Annotated[float, Meta(gt=0, le=1e9, description="a number above 0, at most 1e9")] = 1.0
    """Of one answer, in the unit of the budget."""
    strength: Annotated[float, Meta(gt=0, le=1, description="a number above 0, at most 1")] = 1.0
    """Part of the predicted gain this pool brings; 1 for the model the prediction was learned from."""
    vision: Switch = False
    """Whether it takes pictures."""


Pools = Annotated[
    tuple[PoolTerms, ...], Meta(min_length=1, max_length=MAX_POOLS, description=f"a list of 1 to {MAX_POOLS} pools")
]


class Changes(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What an arm does otherwise; a goal it names takes the place of the policy's."""

    router: Chooser | UnsetType = UNSET
    threshold: Level | UnsetType | None = UNSET
    cloud_share: Share | UnsetType | None = UNSET
    budget_per_day: Budget | UnsetType | None = UNSET
    quality_floor: Floor | UnsetType | None = UNSET
    pools: Pools | UnsetType = UNSET
    first_token_ms: Milliseconds | UnsetType = UNSET
    hedge_share: HedgeShare | UnsetType = UNSET
    doubt: Switch | UnsetType = UNSET
    edge_speaks_first: Switch | UnsetType = UNSET


class Arm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One side of a comparison."""

    name: Name
    share: Share
    """Of the devices."""
    changes: Annotated[Changes, Meta(description="an object")] = Changes()


GOALS = ("threshold", "cloud_share", "budget_per_day", "quality_floor")
"""Exactly one of these holds."""


class Policy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The rule in force. Naming no goal means the threshold 0.7; naming two raises ValueError."""

    version: Annotated[int, Meta(ge=0, le=2**53, description="a whole number from 0")] = 0
    router: Chooser = "gain"
    """What is scored: expected gain, or the cold-start complexity."""
    threshold: Level | None = None
    """The cloud is asked when the score reaches it. 0 asks it always, but for what rules keep here; above 1 never."""
    cloud_share: Share | None = None
    """Cloud answers wanted of all turns; 0 is never."""
    budget_per_day: Budget | None = None
    """What one edge node may spend from midnight to midnight, in the unit of the pools' prices; 0 is never."""
    quality_floor: Floor | None = None
    """Share of the scored turns that shall be no worse than if all went to the cloud, 95 % sure."""
    utc_offset_h: Annotated[float, Meta(ge=-12, le=14, description="hours from -12 to 14")] = 8.0
    """East of Greenwich: where the budget's midnight is. China unless said otherwise."""
    pools: Pools = (PoolTerms(name="qwen-14b"),)
    first_token_ms: Milliseconds = FIRST_TOKEN_MS
    """How long the cloud may be silent before the edge answers."""
    hedge_share: HedgeShare = 0.0
    """Second calls allowed for each first one; 0 for none."""
    doubt: Switch = False
    """Whether an edge model that doubts its own first words hands over."""
    edge_speaks_first: Switch = False
    """Whether the edge drafts the first clause of a cloud answer."""
    arms: Annotated[tuple[Arm, ...], Meta(max_length=MAX_ARMS, description=f"a list of at most {MAX_ARMS} arms")] = ()
    """Devices left over by the shares follow the policy as it stands."""

    def __post_init__(self) -> None:
        named = [goal for goal in GOALS if getattr(self, goal) is not None]
        if len(named) > 1:
            raise ValueError(f"a policy has one goal, this one has {' and '.join(named)}")
        if not named:
            msgspec.structs.force_setattr(self, "threshold", THRESHOLD)

    @property
    def is_never_cloud(self) -> bool:
        """Whether no prompt may be sent, not even by a rule."""
        return (self.threshold or 0.0) > 1 or self.cloud_share == 0 or self.budget_per_day == 0

    def in_arm(self, arm: Arm) -> Policy:
        """Return the policy as the arm follows it, without arms; raises ValueError when the arm names two goals."""
        changes = {
            name: value for name in Changes.__struct_fields__ if (value := getattr(arm.changes, name)) is not UNSET
        }
        goals = dict.fromkeys(GOALS) if any(changes.get(goal) is not None for goal in GOALS) else {}
        return msgspec.structs.replace(self, **{**goals, **changes, "arms": ()})


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the decision needs to know of the world."""

    cloud_reachable: bool = True
    """False when this process knows that a request would not leave it."""
    closed_pools: frozenset[str] = frozenset()
    """Pools that are not to be asked now: behind an open breaker, or without a road to them."""


def parse_policy(data: bytes) -> Policy:
    """Return the policy of a JSON document; raise ConfigError naming each bad field, what it holds and what it takes."""
    if len(data) > MAX_DOCUMENT_BYTES:
        raise ConfigError(f"policy: {len(data)} bytes, but it takes at most {MAX_DOCUMENT_BYTES}")
    try:
        raw = msgspec.json.decode(data)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ConfigError(f"policy: not JSON: {error}") from error
    found = list(_problems("", raw, Policy))
    if not found:
        found = list(_contradictions(raw))
    if found:
        raise ConfigError(f"policy refused: {'; '.join(found)}")
    return msgspec.convert(raw, Policy)


def policy_document(policy: Policy) -> bytes:
    """Return the policy as JSON that ``parse_policy`` takes."""
    return msgspec.json.format(msgspec.json.encode(policy), indent=2)


_NESTED: dict[str, type[msgspec.Struct]] = {"pools": PoolTerms, "arms": Arm}


def _problems(where: str, raw: object, kind: type[msgspec.Struct]) -> Iterator[str]:
    """Yield a line for each field that is unknown, missing, or not of its type and range."""
    if not isinstance(raw, dict):
        yield f"{where or 'policy'}: {_kind_of(raw)}, but it takes an object"
        return
    known = {field.name: field for field in msgspec.structs.fields(kind)}
    for name, value in raw.items():
        path = f"{where}.{_shown(name)}" if where else _shown(name)
        if name not in known:
            yield f"{path}: unknown, known are {', '.join(known)}"
        elif name == "changes":
            yield from _problems(path, value, Changes)
        else:
            yield from _problems_of_value(path, name, value, known[name].type)
    for name, field in known.items():
        if field.required and name not in raw:
            yield f"{where}.{name}: missing, it takes {_takes(field.type)}"


def _problems_of_value(path: str, name: str, value: object, kind: Any) -> Iterator[str]:
    inside: list[str] = []
    if name in _NESTED and isinstance(value, list):
        for index, entry in enumerate(value[: MAX_POOLS + 1]):
            inside += _problems(f"{path}[{index}]", entry, _NESTED[name])
    yield from inside
    if inside:
        return
    try:
        msgspec.convert(value, kind)
    except msgspec.ValidationError:
        yield f"{path}: {_kind_of(value)}, but it takes {_takes(kind)}"


def _contradictions(raw: dict[str, Any]) -> Iterator[str]:
    """Yield what is wrong between fields that are each good."""
    if sum(raw.get(goal) is not None for goal in GOALS) > 1:
        yield f"{_named_goals(raw)}: only one of {', '.join(GOALS)} may be set"
    arms = raw.get("arms", [])
    for path, pools in (("pools", raw.get("pools", [])), *_pools_of_arms(arms)):
        yield from _repeated(path, [pool["name"] for pool in pools])
    yield from _repeated("arms", [arm["name"] for arm in arms])
    for index, arm in enumerate(arms):
        changes = arm.get("changes", {})
        if sum(changes.get(goal) is not None for goal in GOALS) > 1:
            yield f"arms[{index}].changes.{_named_goals(changes)}: only one of {', '.join(GOALS)} may be set"
    total = sum(arm["share"] for arm in arms)
    if total > 1 + 1e-9:
        yield f"arms: their shares add up to {total:g}, but they take 1 together at most"


def _pools_of_arms(arms: list[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    return [(f"arms[{index}].changes.pools", arm.get("changes", {}).get("pools", [])) for index, arm in enumerate(arms)]


def _repeated(path: str, names: list[str]) -> Iterator[str]:
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"{path}: {name} is there {names.count(name)} times, but names must differ"


def _named_goals(raw: dict[str, Any]) -> str:
    return " and ".join(goal for goal in GOALS if raw.get(goal) is not None)


def _takes(kind: Any) -> str:
    """Return what a field takes, in words: the description of its type, or of what a union with "unset" holds."""
    parts = get_args(kind)
    described = next((part.description for part in parts if isinstance(part, Meta) and part.description), "")
    return described or next((words for part in parts if (words := _takes(part))), "")


_KINDS = {bool: "true or false", str: "a string", list: "a list", dict: "an object", type(None): "null"}


def _kind_of(value: object) -> str:
    """Return what a JSON value is, with the value only when it is a number."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"the number {value:g}" if is_number else _KINDS.get(type(value), "something else")


def _shown(name: str) -> str:
    """Return a field's name without what could break a line or hide a message."""
    return re.sub(r"[^\w.-]", "?", name)[:40]
