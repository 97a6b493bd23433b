"""From replayed turns to lines for a person: what a policy would have changed, and at what price; pure."""

from __future__ import annotations

from collections.abc import Mapping

from coordinator.routing.replay import ChangedTurn, Replayed


def replay_lines(result: Replayed, heard: Mapping[str, str], *, examples: int) -> list[str]:
    """Return the report; ``heard`` holds what was said, by turn id, and ``examples`` of the changed turns are shown."""
    left_out = f"{result.remembered} answered from memory, {result.skipped} without words or decision"
    lines = [f"{result.turns} turns decided anew; left out: {left_out}"]
    if not result.turns:
        return lines
    share = (100 * result.cloud_share_before, 100 * result.cloud_share_after)
    lines += [
        "",
        f"{'':14}{'RECORDED':>12}{'NEW POLICY':>12}",
        f"{'cloud calls':14}{share[0]:>10.1f} %{share[1]:>10.1f} %",
        f"{'price':14}{result.price_before:>12.6g}{result.price_after:>12.6g}",
    ]
    if result.unpriced:
        lines.append(f"{result.unpriced} turns went to pools the new policy does not name; they count as free before")
    reasons = ", ".join(f"{reason} {count}" for reason, count in result.reasons.items())
    lines += ["", f"Reasons now: {reasons}", ""]
    changed = len(result.changed)
    lines.append(f"{changed} turns would go elsewhere ({100 * changed / result.turns:.1f} %)")
    return [*lines, *_examples(result.changed, heard, examples)]


def _examples(changed: tuple[ChangedTurn, ...], heard: Mapping[str, str], examples: int) -> list[str]:
    """Return a table of changed turns, evenly spread over all of them."""
    shown = spread(changed, examples)
    if not shown:
        return []
    rows = [("TURN", "WAS", "WOULD BE", "SCORE", "THRESHOLD", "HEARD")]
    rows += [
        (
            turn.turn_id,
            f"{turn.was} ({turn.was_reason})",
            f"{turn.now} ({turn.now_reason})",
            f"{turn.score:.3f}",
            f"{turn.threshold:.3f}",
            "".join(letter if letter.isprintable() else "·" for letter in heard.get(turn.turn_id, "")),
        )
        for turn in shown
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return ["  ".join((*map(str.ljust, row[:-1], widths), row[-1])).rstrip() for row in rows]


def spread(changed: tuple[ChangedTurn, ...], count: int) -> tuple[ChangedTurn, ...]:
    """Return at most ``count`` of them, the first and then at even distances, so that no single hour is all one sees."""
    if count >= len(changed):
        return changed
    return tuple(changed[place * len(changed) // count] for place in range(count))
