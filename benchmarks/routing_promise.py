"""Whether a promised quality is kept on turns nobody had seen: calibrate on one half, count on the other, again and again.

A turn loses when it stays on the edge, the edge is wrong and the cloud right. Each level's threshold is chosen on the calibration half
for as many turns to come as the other half has, so that all levels hold together with 95 %; the first split is the one that is reported,
and how often the promises held over all splits is told beside it. Scores must come from weights that saw neither half, or each question's from
weights that did not see it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.table import Table as RichTable

from benchmarks.report import table_of
from coordinator.routing.promise import CONFIDENCE, LEVELS, TOGETHER, losses_of, threshold_for, upper_bound

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

REPEATS = 200
"""Splits by which it is counted how often a promise holds: 1.5 points of standard error at 95 %."""


@dataclass(frozen=True, slots=True)
class Scored:
    """A question, what both sides made of it, and a router's score of it."""

    score: float
    """The higher the sooner it is sent."""
    edge: float
    """0 wrong, 1 right, between for a mark in part."""
    cloud: float
    group: str = ""
    """Questions of a group are alike; "" for one that stands alone."""


def promise_results(
    items: Sequence[Scored], seed: int = 0, *, repeats: int = REPEATS, by_group: bool = False
) -> list[dict[str, Any]]:
    """Return for each level what was promised and what came of it, as shares in [0, 1].

    ``by_group`` keeps groups whole, which breaks the promise's one condition, that turns to come are like those known: it shows what a
    shift of subjects costs.
    """
    scores = np.array([item.score for item in items])
    losses = losses_of([item.edge for item in items], [item.cloud for item in items])
    groups = np.unique([item.group or f"\0{index}" for index, item in enumerate(items)], return_inverse=True)[1]
    owner = groups if by_group else np.arange(len(items))
    rng = np.random.default_rng(seed)
    splits = [rng.permutation(int(owner.max()) + 1)[owner] % 2 == 0 for _ in range(repeats)]
    levels = [_level(allowed, scores, losses, splits) for allowed in LEVELS]
    held_all = round(float(np.mean(np.all([level.pop("kept") for level in levels], axis=0))), 4)
    return [level | {"held_all": held_all} for level in levels]


def promise_table(name: str, results: Sequence[dict[str, Any]]) -> RichTable:
    """Return the levels as a table."""
    columns = (
        "promised %",
        "lost %",
        "at most %",
        "threshold",
        "cloud calls %",
        "held in % of splits",
        "one level alone",
    )
    rows = [
        (
            f"{100 * level['promised']:.0f}",
            f"{100 * level['realised']:.2f}",
            f"{100 * level['upper']:.2f}",
            "-" if level["threshold"] is None else f"{level['threshold']:.3f}",
            f"{100 * level['cloud_share']:.1f}",
            f"{100 * level['held']:.1f}",
            f"{100 * level['held_alone']:.1f}",
        )
        for level in results
    ]
    return table_of(
        f"{name}: turns that lose against all-cloud, {CONFIDENCE:.0%} sure of all levels; all held in {100 * results[0]['held_all']:.1f} % "
        f"of {results[0]['splits']} splits",
        columns,
        rows,
    )


def _level(allowed: float, scores: Floats, losses: Floats, splits: Sequence[Flags]) -> dict[str, Any]:
    threshold = _threshold(allowed, scores, losses, splits[0], TOGETHER)
    realised = [_lost(scores, losses, ~known, _threshold(allowed, scores, losses, known, TOGETHER)) for known in splits]
    alone = [_lost(scores, losses, ~known, _threshold(allowed, scores, losses, known, CONFIDENCE)) for known in splits]
    kept = int(losses[splits[0] & (scores < threshold)].sum())
    return {
        "promised": allowed,
        "realised": round(realised[0], 5),
        "upper": round(upper_bound(kept, int(splits[0].sum()), TOGETHER), 5) if threshold > -math.inf else 0.0,
        "threshold": round(threshold, 5) if math.isfinite(threshold) else None,
        "cloud_share": round(float(np.mean(scores[~splits[0]] >= threshold)), 4),
        "held": round(float(np.mean(np.array(realised) <= allowed)), 4),
        "held_alone": round(float(np.mean(np.array(alone) <= allowed)), 4),
        "realised_mean": round(float(np.mean(realised)), 5),
        "realised_max": round(max(realised), 5),
        "splits": len(splits),
        "kept": np.array(realised) <= allowed,
    }


def _threshold(allowed: float, scores: Floats, losses: Floats, known: Flags, confidence: float) -> float:
    return threshold_for(scores[known], losses[known], allowed, confidence, turns=int((~known).sum()))


def _lost(scores: Floats, losses: Floats, unseen: Flags, threshold: float) -> float:
    return float(np.mean(losses[unseen] * (scores[unseen] < threshold)))
