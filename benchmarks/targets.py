"""What was promised against what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from rich.table import Table

from benchmarks.report import table_of


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """One promise about one value of the results."""

    key: str
    """Path in the results, joined by dots."""
    at: Literal["most", "least"]
    limit: float
    what: str
    """For people, with the unit."""


Verdict = Literal["met", "missed", "not measured"]


def value_at(results: Mapping[str, Any], key: str) -> float | None:
    """Return the number under a dotted key; None when there is none."""
    found: Any = results
    for part in key.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return None
        found = found[part]
    return float(found) if isinstance(found, int | float) else None


def verdict(target: Target, value: float | None) -> Verdict:
    """Return whether the promise is kept; the limit itself keeps it."""
    if value is None:
        return "not measured"
    is_met = value <= target.limit if target.at == "most" else value >= target.limit
    return "met" if is_met else "missed"


def judged(targets: Sequence[Target], results: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return every target by its key, with the value measured and the verdict, as the report keeps it."""
    found: dict[str, dict[str, Any]] = {}
    for target in targets:
        value = value_at(results, target.key)
        entry = {"what": target.what, "at": target.at, "limit": target.limit, "measured": value}
        found[target.key] = {**entry, "verdict": verdict(target, value)}
    return found


def table_of_targets(judgements: Mapping[str, Mapping[str, Any]]) -> Table:
    """Return the promises for people."""
    sign = {"most": "≤", "least": "≥"}
    rows = [
        (entry["what"], f"{sign[entry['at']]} {entry['limit']:g}", _text(entry["measured"]), entry["verdict"])
        for entry in judgements.values()
    ]
    return table_of("Promised and measured", ("what", "promised", "measured", "verdict"), rows)


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
