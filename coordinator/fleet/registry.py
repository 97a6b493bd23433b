"""Which edges live, from their beats and from a list of them; decides which one a device gets. Pure but for the clock it is given.

A beat comes from the edge itself and says what it can take: address, region, room. A list, such as Kubernetes', comes from others and
says only that an edge is there and whether it is ready. So a beat counts and a list does two things beside it: an edge that it calls
not ready gets no new devices, though it beats; and one that it calls ready but that does not beat, as when its link to NATS is cut,
gets devices when nobody with a measured place is left. That an edge is missing from the list means nothing.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from coordinator.wire import EdgeBeat

STALE_S = 5.0
"""An edge not heard of for so long gets no new devices; five missed beats."""
MAX_EDGES = 10_000
"""Beats of further edges are ignored, so that a flood of invented names cannot fill the memory."""
UNHEARD_DEVICES = 50
"""Devices sent at most to an edge that never told its room: a third of what an edge takes, for others may send it some as well. A guess."""


@dataclass(frozen=True, slots=True)
class ListedEdge:
    """An edge as somebody else knows it."""

    edge_id: str
    is_ready: bool
    websocket_url: str = ""
    """Where devices reach it, "" when only its beats tell."""
    region: str = ""


class Registry:
    """The edges of the fleet, when each was last heard, and what a list says of them."""

    def __init__(self, *, stale_s: float = STALE_S, now: Callable[[], float] = time.monotonic) -> None:
        self._stale_s = stale_s
        self._now = now
        self._edges: dict[str, tuple[float, EdgeBeat]] = {}
        self._listed: dict[str, ListedEdge] = {}
        self._is_list_current: Callable[[], bool] = lambda: False
        self._sent: dict[str, int] = {}
        """Devices sent to edges that do not beat, since they were heard last."""

    def saw(self, beat: EdgeBeat) -> None:
        """Note a beat."""
        if beat.edge_id in self._edges or len(self._edges) < MAX_EDGES:
            self._edges[beat.edge_id] = (self._now(), beat)
            self._sent.pop(beat.edge_id, None)

    def lists(self, edges: Iterable[ListedEdge], is_current: Callable[[], bool] = lambda: True) -> None:
        """Take a new list for the old one; it takes edges out of choice only while ``is_current`` says so."""
        self._listed = {}
        for edge in edges:
            if len(self._listed) < MAX_EDGES:
                self._listed[edge.edge_id] = edge
        self._is_list_current = is_current
        self._sent = {edge_id: sent for edge_id, sent in self._sent.items() if edge_id in self._listed}

    def alive(self) -> list[EdgeBeat]:
        """Return the edges heard of lately, by id."""
        oldest = self._now() - self._stale_s
        return sorted((beat for seen, beat in self._edges.values() if seen >= oldest), key=lambda beat: beat.edge_id)

    def choose(self, region: str = "") -> EdgeBeat | None:
        """Return the least loaded ready edge, of ``region`` if one there has room; None when none is left.

        One that is only listed comes last, and is counted as sent a device.
        """
        alive = self.alive()
        free = [beat for beat in alive if beat.ready and 0 <= beat.active_devices < beat.max_devices]
        free = [beat for beat in free if not self._is_listed_out(beat.edge_id)]
        near = [beat for beat in free if region and beat.region == region]
        chosen = min(
            near or free, key=lambda beat: (beat.active_devices / beat.max_devices, beat.edge_id), default=None
        )
        return chosen or self._unheard(region, {beat.edge_id for beat in alive})

    def _is_listed_out(self, edge_id: str) -> bool:
        listed = self._listed.get(edge_id)
        return listed is not None and not listed.is_ready and self._is_list_current()

    def _unheard(self, region: str, heard: set[str]) -> EdgeBeat | None:
        """Return a listed, ready edge that does not beat, as it would beat after what it was sent; the least sent one."""
        known = [self._as_beat(edge) for edge in self._listed.values() if edge.is_ready and edge.edge_id not in heard]
        free = [beat for beat in known if beat.websocket_url and beat.active_devices < beat.max_devices]
        near = [beat for beat in free if region and beat.region == region]
        chosen = min(near or free, key=lambda beat: (self._sent.get(beat.edge_id, 0), beat.edge_id), default=None)
        if chosen is not None:
            self._sent[chosen.edge_id] = self._sent.get(chosen.edge_id, 0) + 1
        return chosen

    def _as_beat(self, edge: ListedEdge) -> EdgeBeat:
        """Return the edge's last beat, or what the list knows in its place."""
        _, last = self._edges.get(edge.edge_id, (0.0, None))
        sent = self._sent.get(edge.edge_id, 0)
        return EdgeBeat(
            edge_id=edge.edge_id,
            websocket_url=(last.websocket_url if last else "") or edge.websocket_url,
            region=(last.region if last else "") or edge.region,
            active_devices=(max(last.active_devices, 0) if last else 0) + sent,
            max_devices=last.max_devices if last else UNHEARD_DEVICES,
        )
