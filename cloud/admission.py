"""Which requests a worker takes, keeps waiting or refuses, and whose turn it is: decisions only, times are handed in.

What holds:
    no more run than ``max_running``, no more wait than ``max_waiting``; one that would come too late is refused at once;
    a free slot goes to a live turn before preloading, then to the edge that has the fewest running (max-min fairness), then to its device
    with the fewest; among equals to the one that was served longest ago;
    when the line is full, a newcomer takes the place of the newest request of whoever waits with the most, or of preloading;
    an edge gets so many requests a second (token bucket), a device so many at once.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf

import msgspec

MAX_EDGES_KEPT = 4096
"""Edges whose budgets are remembered; one forgotten begins with a full one."""
FORGET_S = 10.0
"""A measurement older than this says nothing about now. A guess."""
WEIGHT = 0.2
"""Of a new measurement against all before. A guess: the last ten or so count."""


class Refusal(StrEnum):
    """Why a request is not taken."""

    FULL = "full"
    """As many wait as may."""
    LATE = "late"
    """It would be answered after its asker gave up."""
    RATE = "edge-rate"
    """Its edge asks more often than it may."""
    DEVICE = "device-share"
    """Its device has as many as it may."""


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker may take on."""

    max_running: int = 8
    max_waiting: int = 0
    edge_rate_hz: float = 0.0
    """Requests a second one edge may ask in the long run, 0 for any number."""
    edge_burst: int = 32
    """Requests it may ask at once after a pause."""
    max_per_device: int = 0
    """Requests of one device that may run and wait, 0 for any number; requests without a device are not counted."""
    preload_share: float = 0.5
    """Part of ``max_running`` that preloading may fill, in (0, 1]; at least one slot."""


@dataclass(frozen=True, slots=True)
class Ticket:
    """One request at the door."""

    request_id: str
    edge_id: str = ""
    device_id: str = ""
    is_preload: bool = False
    first_token_until_s: float = inf
    """When its asker gives up waiting for a first token."""


class Pace:
    """How fast answers went lately."""

    def __init__(self) -> None:
        self._value_s = 0.0
        self._noted_s = -inf

    def note(self, took_s: float, now_s: float) -> None:
        """Add a measurement."""
        is_stale = now_s - self._noted_s > FORGET_S
        self._value_s = took_s if is_stale else self._value_s + WEIGHT * (took_s - self._value_s)
        self._noted_s = now_s

    def at(self, now_s: float) -> float:
        """Return the smoothed seconds, 0 when nothing is known."""
        return self._value_s if now_s - self._noted_s <= FORGET_S else 0.0


class _Buckets:
    """Token buckets by edge."""

    def __init__(self, rate_hz: float, burst: int) -> None:
        self._rate_hz = rate_hz
        self._burst = burst
        self._levels: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, edge_id: str, now_s: float) -> bool:
        """Take one token and return whether there was one."""
        if not self._rate_hz:
            return True
        level, since_s = self._levels.pop(edge_id, (float(self._burst), now_s))
        level = min(self._burst, level + (now_s - since_s) * self._rate_hz)
        is_paid = level >= 1
        self._levels[edge_id] = (level - 1 if is_paid else level, now_s)
        if len(self._levels) > MAX_EDGES_KEPT:
            self._levels.popitem(last=False)
        return is_paid


@dataclass(slots=True)
class _Line:
    """Who waits, in the order of arrival, by edge and device."""

    edges: dict[str, dict[str, OrderedDict[str, Ticket]]] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    """Waiting requests by edge."""

    def __len__(self) -> int:
        return self.counts.total()

    def add(self, ticket: Ticket) -> None:
        devices = self.edges.setdefault(ticket.edge_id, {})
        devices.setdefault(ticket.device_id, OrderedDict())[ticket.request_id] = ticket
        self.counts[ticket.edge_id] += 1

    def remove(self, ticket: Ticket) -> None:
        devices = self.edges[ticket.edge_id]
        del devices[ticket.device_id][ticket.request_id]
        if not devices[ticket.device_id]:
            del devices[ticket.device_id]
        if not devices:
            del self.edges[ticket.edge_id]
        self.counts[ticket.edge_id] -= 1
        if not self.counts[ticket.edge_id]:
            del self.counts[ticket.edge_id]


@dataclass(frozen=True, slots=True)
class Offer:
    """What became of a newcomer, and who had to go for it."""

    runs: bool = False
    waits: bool = False
    refusal: Refusal | None = None
    evicted: Ticket | None = None


class Admission:
    """The door of one worker. Whoever holds it says what came, what ended and what time it is."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.first_tokens = Pace()
        """From a request's start to its first token."""
        self.services = Pace()
        """From a request's start to its end."""
        self._buckets = _Buckets(terms.edge_rate_hz, terms.edge_burst)
        self._running: dict[str, tuple[Ticket, float]] = {}
        self._by_edge: Counter[str] = Counter()
        self._by_device: Counter[tuple[str, str]] = Counter()
        """Running and waiting."""
        self._running_by_device: Counter[tuple[str, str]] = Counter()
        self._preloads = 0
        self._turns, self._preloading = _Line(), _Line()
        self._waiting: dict[str, Ticket] = {}
        self._served: OrderedDict[tuple[str, ...], int] = OrderedDict()
        """When each edge and device was served last, as twice the number of requests started by then."""
        self._number = 0

    @property
    def running(self) -> int:
        """Requests under way."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """Requests in the line."""
        return len(self._waiting)

    def offer(self, ticket: Ticket, now_s: float) -> Offer:
        """Decide about a newcomer; whoever is evicted for it must be told."""
        if refusal := self._unwelcome(ticket, now_s):
            return Offer(refusal=refusal)
        if not self._waits_before(ticket) and self._has_room(ticket):
            if self._running and now_s + self.first_tokens.at(now_s) > ticket.first_token_until_s:
                return Offer(refusal=Refusal.LATE)
            self._start(ticket, now_s)
            return Offer(runs=True)
        if now_s + self.wait_s(ticket, now_s) > ticket.first_token_until_s:
            return Offer(refusal=Refusal.LATE)
        evicted = None
        if self.waiting >= self.terms.max_waiting:
            evicted = self._to_evict_for(ticket)
            if evicted is None:
                return Offer(refusal=Refusal.FULL)
            self._leave_line(evicted)
        self._waiting[ticket.request_id] = ticket
        self._line(ticket).add(ticket)
        self._count_device(ticket, 1)
        for key in _keys(ticket):  # one never served comes after those that waited since before
            self._served.setdefault(key, 2 * self._number - 1)
        return Offer(waits=True, evicted=evicted)

    def ended(self, request_id: str, now_s: float) -> None:
        """Note that a running request ended, however it did; whoever is next is told by ``next``."""
        ticket, began_s = self._running.pop(request_id)
        self.services.note(now_s - began_s, now_s)
        self._by_edge[ticket.edge_id] -= 1
        self._running_by_device[ticket.edge_id, ticket.device_id] -= 1
        self._forget_zero(ticket)
        self._preloads -= ticket.is_preload
        self._count_device(ticket, -1)

    def first_token(self, request_id: str, now_s: float) -> None:
        """Note that a running request began to be answered."""
        self.first_tokens.note(now_s - self._running[request_id][1], now_s)

    def left(self, request_id: str) -> bool:
        """Take a waiting request out of the line and return whether it was there."""
        ticket = self._waiting.get(request_id)
        if ticket is not None:
            self._leave_line(ticket)
        return ticket is not None

    def next(self, now_s: float) -> Ticket | None:
        """Start the request whose turn it is and return it; None when no slot is free for anybody who waits."""
        for line in (self._turns, self._preloading):
            if line.edges and (ticket := self._first_of(line)) is not None and self._has_room(ticket):
                self._leave_line(ticket)
                self._start(ticket, now_s)
                return ticket
        return None

    def late(self, now_s: float) -> list[Ticket]:
        """Take those out of the line that can no longer be in time."""
        limit_s = now_s + self.first_tokens.at(now_s)
        late = [ticket for ticket in self._waiting.values() if ticket.first_token_until_s < limit_s]
        for ticket in late:
            self._leave_line(ticket)
        return late

    def wait_s(self, ticket: Ticket, now_s: float) -> float:
        """Return after how many seconds a newcomer would get its first token, as far as is known.

        Slots are shared between the edges that wait, so each of the others is served before it at most as often as its own edge.
        """
        own = self._line(ticket).counts[ticket.edge_id] + 1
        counts = self._turns.counts if not ticket.is_preload else self._turns.counts + self._preloading.counts
        ahead = sum(min(count, own) for edge_id, count in counts.items() if edge_id != ticket.edge_id) + own
        return ahead * self.services.at(now_s) / self.terms.max_running + self.first_tokens.at(now_s)

    # Decisions

    def _unwelcome(self, ticket: Ticket, now_s: float) -> Refusal | None:
        limit = self.terms.max_per_device
        if ticket.first_token_until_s <= now_s:
            return Refusal.LATE
        if limit and ticket.device_id and self._by_device[ticket.edge_id, ticket.device_id] >= limit:
            return Refusal.DEVICE
        return None if self._buckets.take(ticket.edge_id, now_s) else Refusal.RATE

    def _waits_before(self, ticket: Ticket) -> bool:
        """Return whether somebody waits who comes first."""
        return bool(self._turns.edges) or (ticket.is_preload and bool(self._preloading.edges))

    def _has_room(self, ticket: Ticket) -> bool:
        most = max(1, int(self.terms.preload_share * self.terms.max_running))
        return self.running < self.terms.max_running and not (ticket.is_preload and self._preloads >= most)

    def _first_of(self, line: _Line) -> Ticket | None:
        edge_id = min(line.edges, key=lambda edge: (self._by_edge[edge], self._served.get((edge,), 0)))
        devices = line.edges[edge_id]
        device_id = min(
            devices,
            key=lambda device: (self._running_by_device[edge_id, device], self._served.get((edge_id, device), 0)),
        )
        return next(iter(devices[device_id].values()), None)

    def _to_evict_for(self, ticket: Ticket) -> Ticket | None:
        """Return who has the weakest claim to a place in the full line, None when that is the newcomer."""
        if not ticket.is_preload and self._preloading.edges:
            return self._newest_of_longest(self._preloading)
        line = self._line(ticket)
        if not line.edges:
            return None
        edge_id, count = line.counts.most_common(1)[0]
        own = line.counts[ticket.edge_id] + self._by_edge[ticket.edge_id]
        return self._newest_of_longest(line) if own + 1 < count + self._by_edge[edge_id] else None

    @staticmethod
    def _newest_of_longest(line: _Line) -> Ticket:
        edge_id = line.counts.most_common(1)[0][0]
        longest = max(line.edges[edge_id].values(), key=len)
        return longest[next(reversed(longest))]

    # Accounts

    def _line(self, ticket: Ticket) -> _Line:
        return self._preloading if ticket.is_preload else self._turns

    def _start(self, ticket: Ticket, now_s: float) -> None:
        self._running[ticket.request_id] = (ticket, now_s)
        self._by_edge[ticket.edge_id] += 1
        self._running_by_device[ticket.edge_id, ticket.device_id] += 1
        self._preloads += ticket.is_preload
        self._count_device(ticket, 1)
        self._number += 1
        for key in _keys(ticket):
            self._served[key] = 2 * self._number
            self._served.move_to_end(key)
        while len(self._served) > MAX_EDGES_KEPT:
            self._served.popitem(last=False)

    def _leave_line(self, ticket: Ticket) -> None:
        del self._waiting[ticket.request_id]
        self._line(ticket).remove(ticket)
        self._count_device(ticket, -1)

    def _count_device(self, ticket: Ticket, change: int) -> None:
        key = (ticket.edge_id, ticket.device_id)
        self._by_device[key] += change
        if not self._by_device[key]:
            del self._by_device[key]

    def _forget_zero(self, ticket: Ticket) -> None:
        if not self._by_edge[ticket.edge_id]:
            del self._by_edge[ticket.edge_id]
        if not self._running_by_device[ticket.edge_id, ticket.device_id]:
            del self._running_by_device[ticket.edge_id, ticket.device_id]


def _keys(ticket: Ticket) -> tuple[tuple[str, ...], ...]:
    """Return what an edge and its device are remembered by."""
    return (ticket.edge_id,), (ticket.edge_id, ticket.device_id)
