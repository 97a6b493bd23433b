"""Resident memory over work done: samples to a slope, and whether what was opened was closed again."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import msgspec

_STATM = Path("/proc/self/statm")
_FDS = Path("/proc/self/fd")
_MIB = 1 << 20
MIN_POINTS = 4
"""Fewer say nothing of a slope."""


class Point(msgspec.Struct, frozen=True):
    """One look at a process."""

    done: int
    """Frames, messages or turns so far."""
    rss_mib: float


def own_rss_mib() -> float:
    """Return this process' resident memory in MiB."""
    return int(_STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / _MIB


def own_fds() -> int:
    """Return how many descriptors this process has open."""
    return sum(1 for _ in _FDS.iterdir())


def slope(points: Sequence[Point], per: int) -> float | None:
    """Return the MiB gained ``per`` so much work, by least squares over the second half of the work; None for too few points.

    The first half fills caches, pools and the allocator's arenas.
    """
    if not points:
        return None
    middle = points[0].done + (points[-1].done - points[0].done) / 2
    late = [point for point in points if point.done >= middle]
    if len(late) < MIN_POINTS:
        return None
    mean_done = sum(point.done for point in late) / len(late)
    mean_mib = sum(point.rss_mib for point in late) / len(late)
    spread = sum((point.done - mean_done) ** 2 for point in late)
    if not spread:
        return None
    return per * sum((point.done - mean_done) * (point.rss_mib - mean_mib) for point in late) / spread


def rounded(value: float | None, digits: int = 3) -> float | None:
    """Return the value as reports show it."""
    return None if value is None else round(value, digits)
