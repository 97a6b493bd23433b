"""From recorded turns to the figures of each arm of a comparison; pure."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import msgspec

from coordinator.turns import Tier, TurnRecord

_Z95 = 1.959964
"""Standard normal quantile of a two-sided 95 % interval."""


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """A share in [0, 1] with its 95 % interval."""

    share: float
    low: float
    high: float


class ArmFigures(msgspec.Struct, frozen=True, kw_only=True):
    """How the turns of one arm went; shares are of its turns."""

    arm: str
    """"" for turns outside a comparison."""
    turns: int
    devices: int
    cloud: Share
    """Answered by the cloud."""
    fell_back: Share
    """Sent to the cloud, answered elsewhere."""
    interrupted: Share
    failed: Share
    first_audio_p50_ms: float | None
    """Milliseconds from the end of speech to the first sound; None when no turn got there."""
    first_audio_p95_ms: float | None


def arm_figures(turns: Iterable[TurnRecord]) -> tuple[ArmFigures, ...]:
    """Return the figures of each arm, by name; turns in which nothing was decided are left out."""
    arms: dict[str, list[TurnRecord]] = {}
    for turn in turns:
        if turn.decisions:
            arms.setdefault(turn.decisions[0].arm, []).append(turn)
    return tuple(_figures(arm, arms[arm]) for arm in sorted(arms))


def _figures(arm: str, turns: Sequence[TurnRecord]) -> ArmFigures:
    def share(count: int) -> Share:
        return wilson(count, len(turns))

    by_cloud = [turn.decisions[-1].tier is Tier.CLOUD for turn in turns]
    sent = [any(decision.tier is Tier.CLOUD for decision in turn.decisions) for turn in turns]
    first_ms = sorted(
        turn.marks.endpoint_wait_ms + turn.marks.first_audio_ms
        for turn in turns
        if turn.marks.first_audio_ms is not None
    )
    return ArmFigures(
        arm=arm,
        turns=len(turns),
        devices=len({turn.device_id for turn in turns}),
        cloud=share(sum(by_cloud)),
        fell_back=share(sum(was_sent and not cloud for was_sent, cloud in zip(sent, by_cloud, strict=True))),
        interrupted=share(sum(turn.outcome == "interrupted" for turn in turns)),
        failed=share(sum(turn.outcome == "failed" for turn in turns)),
        first_audio_p50_ms=_quantile(first_ms, 0.5),
        first_audio_p95_ms=_quantile(first_ms, 0.95),
    )


def wilson(count: int, total: int) -> Share:
    """Return ``count`` of ``total`` (at least 1) with Wilson's score interval (1927)."""
    share, spread = count / total, _Z95**2 / total
    middle = (share + spread / 2) / (1 + spread)
    half = _Z95 * math.sqrt(share * (1 - share) / total + spread / (4 * total)) / (1 + spread)
    return Share(share=share, low=max(0.0, middle - half), high=min(1.0, middle + half))


def _quantile(ordered: Sequence[float], share: float) -> float | None:
    """Return the smallest value that at least ``share`` of the values do not exceed, None of nothing."""
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else None
