"""Scores and outcomes into the figures by which routers are compared, with bootstrap intervals; pure.

A router gives each question a score; the highest go to the cloud first. APGR is the mean share of the quality gap recovered over
all shares of cloud calls: 0.5 at random, 1 when the whole gain comes at once, more when edge-only-right questions stay on the edge.
Equal scores are taken in random order, and what is reported is the expectation over that order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

REPLICATES = 1000
"""Resamplings behind an interval. A guess."""
INTERVAL = (2.5, 97.5)
_RIGHT = 0.5
"""Marks in part count as right from here on."""
_CHUNK = 50
"""Resamplings held in memory at once."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Quality gained against calls to the cloud, one corner for each distinct score, from none to all."""

    calls: Floats
    """Share of the questions sent to the cloud, 0 to 1."""
    gained: Floats
    """Mean of cloud minus edge over all questions, counting only those sent."""


def curve(scores: Floats, gain: Floats) -> Curve:
    """Return the curve of a router that sends the highest scores first."""
    order, starts = _blocks(scores)
    sizes = np.diff(np.append(starts, len(scores)))
    sums = np.add.reduceat(gain[order], starts)
    total = len(scores)
    return Curve(
        calls=np.concatenate([[0.0], np.cumsum(sizes) / total]),
        gained=np.concatenate([[0.0], np.cumsum(sums) / total]),
    )


def apgr(scores: Floats, gain: Floats) -> float:
    """Return the mean share of the gap recovered; NaN when cloud and edge are equally good."""
    corners = curve(scores, gain)
    area = float(np.trapezoid(corners.gained, corners.calls))
    gap = float(corners.gained[-1])
    return area / gap if gap else float("nan")


def cpt(scores: Floats, gain: Floats, share: float) -> float:
    """Return the least share of cloud calls in [0, 1] that recovers ``share`` of the quality gap; NaN without a gap."""
    corners = curve(scores, gain)
    gap = corners.gained[-1]
    if gap <= 0:
        return float("nan")
    reached = np.flatnonzero(corners.gained >= share * gap - 1e-12)
    after = int(reached[0])
    before = max(after - 1, 0)
    rise = corners.gained[after] - corners.gained[before]
    part = (share * gap - corners.gained[before]) / rise if rise > 0 else 0.0
    return float(corners.calls[before] + part * (corners.calls[after] - corners.calls[before]))


def oracle(edge: Floats, cloud: Floats) -> Floats:
    """Return the score of a router that knows both outcomes: the gain itself."""
    return cloud - edge


def shares(edge: Floats, cloud: Floats) -> dict[str, float]:
    """Return what the data set is like: both sides' quality and the shares failed by both and right on one side only."""
    edge_right, cloud_right = edge >= _RIGHT, cloud >= _RIGHT
    return {
        "edge_right": float(edge.mean()),
        "cloud_right": float(cloud.mean()),
        "both_wrong": float(np.mean(~edge_right & ~cloud_right)),
        "edge_only_right": float(np.mean(edge_right & ~cloud_right)),
        "cloud_only_right": float(np.mean(~edge_right & cloud_right)),
    }


def replicates(
    scores: Floats, gain: Floats, *, clusters: Indices | None = None, seed: int = 0, count: int = REPLICATES
) -> Floats:
    """Return APGR of ``count`` resamplings, NaN for one without a gap; the same seed and clusters give paired ones for another router.

    Whole clusters (numbered from 0) are drawn when given, single questions otherwise.
    """
    owner = np.arange(len(gain)) if clusters is None else clusters
    number = int(owner.max()) + 1
    order, starts = _blocks(scores)
    rng = np.random.default_rng(seed)
    found: list[Floats] = []
    for first in range(0, count, _CHUNK):
        drawn = rng.multinomial(number, np.full(number, 1 / number), size=min(_CHUNK, count - first))
        weights = drawn[:, owner[order]].astype(np.float64)
        sizes = np.add.reduceat(weights, starts, axis=1)
        sums = np.add.reduceat(weights * gain[order], starts, axis=1)
        before = np.cumsum(sums, axis=1) - sums
        area = np.sum(sizes * (before + sums / 2), axis=1) / sizes.sum(axis=1)
        gaps = sums.sum(axis=1)
        found.append(np.divide(area, gaps, out=np.full_like(area, np.nan), where=gaps != 0))
    return np.concatenate(found)


def interval(values: Floats) -> list[float]:
    """Return the ends of the 95 % interval, rounded to 0.001."""
    return [round(float(end), 3) for end in np.nanpercentile(values, INTERVAL)]


def figures(
    scores: Floats, edge: Floats, cloud: Floats, *, clusters: Indices | None = None, seed: int = 0
) -> dict[str, Any]:
    """Return one router's APGR with interval and the shares of cloud calls at half and four fifths of the gap."""
    gain = cloud - edge
    return {
        "apgr": round(apgr(scores, gain), 3),
        "interval": interval(replicates(scores, gain, clusters=clusters, seed=seed)),
        "cpt50": round(cpt(scores, gain, 0.5), 3),
        "cpt80": round(cpt(scores, gain, 0.8), 3),
    }


def difference(
    ours: Floats, other: Floats, gain: Floats, *, clusters: Indices | None = None, seed: int = 0
) -> dict[str, Any]:
    """Return how much better the first scores are in APGR, with the interval of the paired bootstrap."""
    ours_drawn = replicates(ours, gain, clusters=clusters, seed=seed)
    other_drawn = replicates(other, gain, clusters=clusters, seed=seed)
    return {
        "apgr": round(apgr(ours, gain) - apgr(other, gain), 3),
        "interval": interval(ours_drawn - other_drawn),
    }


def realised(scores: Floats, threshold: float, edge: Floats, cloud: Floats, *, price: float = 1.0) -> dict[str, float]:
    """Return what a threshold fixed elsewhere brings: cloud share, cost in all-cloud units, quality, loss to all-cloud."""
    sent = scores >= threshold
    quality = float(np.where(sent, cloud, edge).mean())
    return {
        "cloud_share": round(float(sent.mean()), 3),
        "cost": round(float(sent.mean()) * price, 3),
        "quality": round(quality, 3),
        "loss": round(float(cloud.mean()) - quality, 3),
    }


def _blocks(scores: Floats) -> tuple[Indices, Indices]:
    """Return the order of falling scores and where in it each run of equal ones begins."""
    order = np.argsort(-scores, kind="stable")
    falling = scores[order]
    starts = np.flatnonzero(np.concatenate([[True], falling[1:] != falling[:-1]]))
    return order, starts
