"""What one edge is to load and to make for a foreseen hour: the contents that fill its shelf best, and those nobody has yet; pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from coordinator.preloading.foreseen import Content
from coordinator.preloading.plan import MIN_CONFIDENCE, Candidate, Costs, Plan, plan

LOAD_BUDGET_S = 60.0
"""Of an hour, spent on reading from the far tiers. A guess; the shelf is full long before."""
ROOM_LOOK = 1.2
"""How many times the room of the shelf is weighed: what lies beyond would push out what is wanted more."""


def fitting(contents: Sequence[Content], *, shelf_bytes: int, size_bytes: int) -> list[Content]:
    """Return the contents, of ``size_bytes`` each, that fill a shelf best, the most wanted first."""
    return _ranked(contents)[: shelf_bytes // max(size_bytes, 1)]


def to_load(
    contents: Sequence[Content], near: Collection[str], *, shelf_bytes: int, size_bytes: int, costs: Costs | None = None
) -> Plan:
    """Return which stored contents are worth reading into the near tier, where the keys in ``near`` are already."""
    weighed = _ranked(contents)[: int(ROOM_LOOK * shelf_bytes) // max(size_bytes, 1)]
    candidates = [
        Candidate(
            content=content.key,
            probability=content.at_edge,
            expected=content.expected,
            size_bytes=size_bytes,
            is_stored=True,
            is_near=content.key in near,
        )
        for content in weighed
    ]
    return plan(candidates, budget_s=LOAD_BUDGET_S, near_bytes=shelf_bytes, costs=costs)


def to_make(
    contents: Sequence[Content],
    stored: Collection[str],
    *,
    budget_s: float,
    shares: bool,
    costs: Costs | None = None,
    min_confidence: float = MIN_CONFIDENCE,
) -> Plan:
    """Return which of the contents that are not ``stored`` are worth making with ``budget_s`` of idle time.

    ``shares`` says whether what is made serves the fleet, through far tiers, or this edge alone.
    """
    candidates = [
        Candidate(
            content=content.key,
            probability=content.in_fleet if shares else content.at_edge,
            expected=content.expected,
            size_bytes=0,
        )
        for content in contents
        if content.key not in stored
    ]
    return plan(candidates, budget_s=budget_s, near_bytes=0, costs=costs, min_confidence=min_confidence)


def _ranked(contents: Sequence[Content]) -> list[Content]:
    return sorted(contents, key=lambda content: (-content.at_edge, content.key))
