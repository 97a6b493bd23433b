"""Which edges live, from their beats; decides which one a device gets. Pure but for the clock it is given."""

from __future__ import annotations

import time
from collections.abc import Callable

from coordinator.wire import EdgeBeat

STALE_S = 5.0
"""An edge not heard of for so long gets no new devices; five missed beats."""
MAX_EDGES = 10_000
"""Beats of further edges are ignored, so that a flood of invented names cannot fill the memory."""


class Registry:
    """The edges of the fleet and when each was last heard."""

    def __init__(self, *, stale_s: float = STALE_S, now: Callable[[], float] = time.monotonic) -> None:
        self._stale_s = stale_s
        self._now = now
        self._edges: dict[str, tuple[float, EdgeBeat]] = {}

    def saw(self, beat: EdgeBeat) -> None:
        """Note a beat."""
        if beat.edge_id in self._edges or len(self._edges) < MAX_EDGES:
            self._edges[beat.edge_id] = (self._now(), beat)

    def alive(self) -> list[EdgeBeat]:
        """Return the edges heard of lately, by id."""
        oldest = self._now() - self._stale_s
        return sorted((beat for seen, beat in self._edges.values() if seen >= oldest), key=lambda beat: beat.edge_id)

    def choose(self, region: str = "") -> EdgeBeat | None:
        """Return the least loaded ready edge, of ``region`` if one there has room; None when none is left."""
        free = [beat for beat in self.alive() if beat.ready and 0 <= beat.active_devices < beat.max_devices]
        near = [beat for beat in free if region and beat.region == region]
        return min(near or free, key=lambda beat: (beat.active_devices / beat.max_devices, beat.edge_id), default=None)
