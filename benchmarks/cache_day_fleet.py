"""A fleet's caches through simulated days, without a socket: the real near tier and shelf of every edge, the far tiers' times to live.

An ask looks up the answer and its speech. Far tiers have all the room they want and keep a value from when it was made, as the ladder does.
What is preloaded is decided each hour from a forecast that has seen nothing later.
"""

from __future__ import annotations

from collections import Counter, deque

import msgspec
import numpy as np
import numpy.typing as npt

from benchmarks.cache_day_traffic import HOUR_S, HOURS, Traffic
from coordinator.cache.kinds import L1_TTL_S, L2_TTL_S, L3_TTL_S
from coordinator.cache.memory import MemoryTier, Policy
from coordinator.cache.tiers import NearTier
from coordinator.preloading.forecast import Calibration, forecast, recent_of, trusted
from coordinator.preloading.plan import Candidate, plan
from coordinator.preloading.reports import UsageReport
from coordinator.preloading.shelf import ENTRY_BYTES, SHELF_SHARE, ShelvedTier
from coordinator.preloading.usage import Usage

KINDS = ("answer", "speech")
FORESEEN_DAYS = 4
"""Last days of which the hours are forecast and preloaded for; all before the measured one let the calibration learn."""
KEY_BYTES = 71
MIN_LOOK = 0.02
"""Contents less likely are not weighed at all: none of them pays at any size of tier measured here."""
MAKE_LOOK = 0.5
"""The same for what is to be made."""
ROOM_LOOK = 1.2
"""How many times the room of the shelf is weighed: what lies beyond would push out what is wanted more."""

Floats = npt.NDArray[np.float64]


class Setup(msgspec.Struct, frozen=True, kw_only=True):
    """How the tiers are run."""

    near_bytes: int
    policy: Policy = "tiny_lfu"
    preloads: bool = True
    near_ttl_s: float = L1_TTL_S
    redis_ttl_s: float = L2_TTL_S
    store_ttl_s: float = L3_TTL_S
    near_days: int = 9
    """Last days through which the near tiers are simulated; before them, only what was made when."""
    upgrade_hour: int = -1
    """Hour of the last day at which a new voice makes all that is remembered worthless; none when negative."""
    idle_s: float = 600.0
    """Idle time of engines each hour, all edges together: half a minute of each. A guess, and a small one."""


class Outcome(msgspec.Struct, kw_only=True):
    """What the last day showed. ``hits`` by kind and tier, ``asked`` by kind; ``_bytes`` the same in bytes."""

    asked: Counter[str]
    hits: Counter[tuple[str, str]]
    asked_bytes: Counter[str]
    hits_bytes: Counter[tuple[str, str]]
    made: int = 0
    """Answers made ahead with their speech."""
    made_not_in_hour: int = 0
    made_never: int = 0
    """Not asked for until the day ended."""
    loaded: int = 0
    loaded_never: int = 0
    """Contents laid on an edge's shelf that nobody there asked for until the day ended."""

    def rate(self, *, kind: str = "", tier: str = "", in_bytes: bool = False) -> float:
        """Return the share of lookups that hit, of one kind and in one tier when they are named."""
        asked, hits = (self.asked_bytes, self.hits_bytes) if in_bytes else (self.asked, self.hits)
        found = sum(n for (of, at), n in hits.items() if kind in {"", of} and tier in {"", at})
        return found / max(sum(n for of, n in asked.items() if kind in {"", of}), 1)


class Foresight(msgspec.Struct, frozen=True):
    """Probabilities by hour: that a content is asked for at one edge of each group (groups, contents), and in the fleet (contents,)."""

    at_edge: dict[int, npt.NDArray[np.float32]]
    expected: dict[int, npt.NDArray[np.float32]]
    in_fleet: dict[int, npt.NDArray[np.float32]]
    reliability: list[tuple[float, float, int]]
    """Of the last day's forecasts by group and hour, in tenths: mean probability, share that came true, how many."""


def foresee(traffic: Traffic) -> Foresight:
    """Return the forecast of each hour of the simulated days, made when it began from reports of the hours before."""
    fleet, usage = traffic.fleet, Usage()
    contents = len(traffic.born_s)
    keys = [f"answer:{content:064x}" for content in range(contents)]
    names = [f"group-{group}" for group in range(fleet.groups)]
    calibrations, of_fleet = {name: Calibration() for name in names}, Calibration()
    seen = Foresight({}, {}, {}, [])
    sums = np.zeros((3, 10))
    edges_each = fleet.edges / fleet.groups
    first = max(fleet.days - FORESEEN_DAYS, 1) * HOURS
    for hour in range(fleet.days * HOURS):
        of_hour = _of_hour(traffic, hour)
        if hour >= first:
            ids = np.array([int(key[7:], 16) for key in usage.contents])
            asked = forecast(usage, hour, calibrations)
            at_edge, expected = np.zeros((2, fleet.groups, contents), np.float32)
            never = np.ones(contents)
            for group, name in enumerate(names):
                chance = asked[name].probability()
                at_edge[group, ids] = asked[name].probability(1 / edges_each)
                expected[group, ids] = asked[name].expected / edges_each
                never[ids] *= 1 - chance
                came = np.zeros(contents, bool)
                came[traffic.content[of_hour][traffic.edge[of_hour] % fleet.groups == group]] = True
                calibrations[name].learn(asked[name].raw(), came[ids])
                if hour >= (fleet.days - 1) * HOURS:
                    sums += _tenths(chance, came[ids])
            seen.at_edge[hour], seen.expected[hour] = at_edge, expected
            in_fleet = np.zeros(contents, np.float32)
            in_fleet[ids] = trusted(of_fleet.corrected((1 - never)[ids]), recent_of(usage))
            seen.in_fleet[hour] = in_fleet
            of_fleet.learn((1 - never)[ids], np.isin(ids, traffic.content[of_hour]))
        _report(traffic, of_hour, hour, keys, names, usage)
    seen.reliability.extend((float(p / n), float(t / n), int(n)) for p, t, n in sums.T if n)
    return seen


def run(traffic: Traffic, foresight: Foresight, setup: Setup) -> Outcome:
    """Return what the last day shows with these tiers."""
    return _Days(traffic, foresight, setup).run()


class _Clock:
    """Virtual time. Of its own, because a near tier is never freed and would keep all that its clock belongs to."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class _Days:
    """The state of one run."""

    def __init__(self, traffic: Traffic, foresight: Foresight, setup: Setup) -> None:
        self._traffic, self._foresight, self._setup = traffic, foresight, setup
        fleet, contents = traffic.fleet, len(traffic.born_s)
        self._clock = _Clock()
        self._sizes = {"answer": traffic.answer_bytes.tolist(), "speech": traffic.speech_bytes.tolist()}
        self._values: dict[int, bytes] = {}
        self._keys = {kind: [f"{kind}:{content:064x}" for content in range(contents)] for kind in KINDS}
        self._made = made_before(traffic, setup.store_ttl_s)
        self._room = (traffic.answer_bytes + traffic.speech_bytes + 2 * (KEY_BYTES + ENTRY_BYTES)).astype(np.int64)
        self._shelf_bytes = int(setup.near_bytes * SHELF_SHARE) if setup.preloads else 0
        self._shelves: list[ShelvedTier] = []
        self._edges: list[NearTier] = [self._edge() for _ in range(fleet.edges)]
        self._ends: list[deque[tuple[float, str]]] = [deque() for _ in range(fleet.edges)]
        self._until: list[dict[str, float]] = [{} for _ in range(fleet.edges)]
        self._idle: list[set[int]] = [set() for _ in range(fleet.edges)]
        self._made_ahead: dict[int, int] = {}
        self._outcome = Outcome(asked=Counter(), hits=Counter(), asked_bytes=Counter(), hits_bytes=Counter())

    def _edge(self) -> NearTier:
        rest = MemoryTier(
            max_bytes=self._setup.near_bytes - self._shelf_bytes, policy=self._setup.policy, now=self._clock
        )
        if not self._setup.preloads:
            return rest
        shelf = ShelvedTier(rest, shelf_bytes=self._shelf_bytes, now=self._clock)
        self._shelves.append(shelf)
        return shelf

    def run(self) -> Outcome:
        fleet = self._traffic.fleet
        first = max(fleet.days - self._setup.near_days, 0) * HOURS
        for at_s, content in self._rows(slice(0, _of_hour(self._traffic, first).start)):
            if at_s >= self._made[content] + self._setup.store_ttl_s:
                self._made[content] = at_s
        for hour in range(first, fleet.days * HOURS):
            self._hour(hour, is_measured=hour >= (fleet.days - 1) * HOURS)
        for content, hour in self._made_ahead.items():
            self._judge(content, hour)
        self._outcome.loaded_never = sum(len(idle) for idle in self._idle)
        for edge in self._edges:
            edge.purge("")
        return self._outcome

    def _hour(self, hour: int, *, is_measured: bool) -> None:
        """Prepare the hour, then let everybody ask."""
        self._clock.now_s = hour * HOUR_S
        self._expire()
        if is_measured and hour % HOURS == self._setup.upgrade_hour:
            self._made[:] = -np.inf
            for tier in self._edges:
                tier.purge("")
        if self._setup.preloads and hour in self._foresight.in_fleet:
            self._make(hour, is_measured=is_measured)
            self._load(hour, is_measured=is_measured)
        of_hour = _of_hour(self._traffic, hour)
        edges = self._traffic.edge[of_hour].tolist()
        for (at_s, content), edge in zip(self._rows(of_hour), edges, strict=True):
            self._clock.now_s = at_s
            self._ask(edge, content, is_measured=is_measured)

    def _rows(self, part: slice) -> zip[tuple[float, int]]:
        return zip(self._traffic.at_s[part].tolist(), self._traffic.content[part].tolist(), strict=True)

    def _ask(self, edge: int, content: int, *, is_measured: bool) -> None:
        """Look up the answer and its speech in one tier after the other, and make what none has."""
        age_s = self._clock.now_s - self._made[content]
        far = "redis" if age_s < self._setup.redis_ttl_s else "store" if age_s < self._setup.store_ttl_s else ""
        self._idle[edge].discard(content)
        for kind in KINDS:
            key = self._keys[kind][content]
            tier = "near" if self._edges[edge].get(key) is not None else far
            if tier != "near":
                self._put(edge, kind, content)
            if not tier:
                self._made[content] = self._clock.now_s
            if is_measured:
                size = self._sizes[kind][content]
                self._outcome.asked[kind] += 1
                self._outcome.asked_bytes[kind] += size
                if tier:
                    self._outcome.hits[kind, tier] += 1
                    self._outcome.hits_bytes[kind, tier] += size

    def _put(self, edge: int, kind: str, content: int) -> None:
        key, size = self._keys[kind][content], self._sizes[kind][content]
        value = self._values.get(size)
        if value is None:
            value = self._values[size] = bytes(size)
        self._edges[edge].put(key, value, self._setup.near_ttl_s)
        self._until[edge][key] = self._clock.now_s + self._setup.near_ttl_s
        self._ends[edge].append((self._clock.now_s + self._setup.near_ttl_s, key))

    def _expire(self) -> None:
        """Drop what is too old, which the near tier does by a clock of its own."""
        for edge, ends in enumerate(self._ends):
            while ends and ends[0][0] <= self._clock.now_s:
                _, key = ends.popleft()
                if self._until[edge].get(key, 0.0) <= self._clock.now_s:
                    self._edges[edge].drop(key)
                    self._until[edge].pop(key, None)

    def _make(self, hour: int, *, is_measured: bool) -> None:
        """Make for the far tiers what will be asked for in the fleet and ends within the hour."""
        chances = self._foresight.in_fleet[hour]
        ends = self._made + self._setup.store_ttl_s < self._clock.now_s + HOUR_S
        candidates = [
            Candidate(
                content=str(content),
                probability=float(chances[content]),
                expected=float(self._foresight.expected[hour][:, content].sum()),
                size_bytes=int(self._room[content]),
            )
            for content in np.nonzero(ends & (chances > MAKE_LOOK))[0].tolist()
        ]
        for choice in plan(candidates, budget_s=self._setup.idle_s, near_bytes=0).chosen:
            self._made[int(choice.content)] = self._clock.now_s
            if is_measured:
                self._made_ahead[int(choice.content)] = hour

    def _load(self, hour: int, *, is_measured: bool) -> None:
        """Lay on every edge's shelf what pays there."""
        stored = self._made + self._setup.store_ttl_s >= self._clock.now_s + HOUR_S
        groups = [self._weighed(np.where(stored, chances, 0.0)) for chances in self._foresight.at_edge[hour]]
        for edge, shelf in enumerate(self._shelves):
            fitting, keys, near, away = groups[edge % len(groups)]
            missing = set(shelf.want(keys))
            held = [self._keys["speech"][content] not in missing for content in fitting]
            held += [False] * (len(away) - len(held))
            candidates = [near[at] if is_near else away[at] for at, is_near in enumerate(held)]
            chosen = plan(candidates, budget_s=self._setup.idle_s, near_bytes=self._shelf_bytes).chosen
            for choice in chosen:
                for kind in KINDS:
                    self._put(edge, kind, int(choice.content))
                if is_measured:
                    self._outcome.loaded += 1
                    self._idle[edge].add(int(choice.content))

    def _weighed(self, chances: Floats) -> tuple[list[int], list[str], list[Candidate], list[Candidate]]:
        """Return the contents that would fill a shelf best, their keys, and all to be weighed, those first: as if near, and as if not."""
        order = np.argsort(-chances / self._room, kind="stable")
        order = order[chances[order] >= MIN_LOOK]
        summed = np.cumsum(self._room[order])
        fitting = order[summed <= self._shelf_bytes].tolist()
        away = [
            Candidate(
                content=str(content),
                probability=float(chances[content]),
                expected=float(-np.log1p(-min(chances[content], 0.9999))),
                size_bytes=int(self._room[content]),
                is_stored=True,
            )
            for content in order[summed <= ROOM_LOOK * self._shelf_bytes].tolist()
        ]
        near = [msgspec.structs.replace(candidate, is_near=True) for candidate in away]
        return fitting, self._both(fitting), near, away

    def _both(self, contents: list[int]) -> list[str]:
        return [self._keys[kind][content] for content in contents for kind in KINDS]

    def _judge(self, content: int, hour: int) -> None:
        """Count what was made ahead, and whether anybody asked for it."""
        asked_s = self._traffic.at_s[self._traffic.content == content]
        after_s = asked_s[asked_s >= hour * HOUR_S]
        self._outcome.made += 1
        self._outcome.made_never += not len(after_s)
        self._outcome.made_not_in_hour += not bool((after_s < (hour + 1) * HOUR_S).any())


def made_before(traffic: Traffic, ttl_s: float) -> Floats:
    """Return when each content was made before the first day, as in a fleet that has long run: what that day asks for, within ``ttl_s``."""
    made = np.full(len(traffic.born_s), -np.inf)
    first_day = np.unique(traffic.content[traffic.at_s < HOURS * HOUR_S])
    old = first_day[traffic.born_s[first_day] == 0]
    made[old] = -ttl_s * np.random.default_rng(len(old)).random(len(old))
    return made


def _of_hour(traffic: Traffic, hour: int) -> slice:
    start, stop = np.searchsorted(traffic.at_s, [hour * HOUR_S, (hour + 1) * HOUR_S])
    return slice(int(start), int(stop))


def _tenths(given: Floats, came: npt.NDArray[np.bool_]) -> Floats:
    tenth = np.minimum((given * 10).astype(int), 9)
    columns = (given, came, np.ones(len(given)))
    return np.array([np.bincount(tenth, weights=column, minlength=10) for column in columns])


def _report(traffic: Traffic, of_hour: slice, hour: int, keys: list[str], names: list[str], usage: Usage) -> None:
    """Let every edge report the hour."""
    edges, contents = traffic.edge[of_hour], traffic.content[of_hour]
    for edge in range(traffic.fleet.edges):
        asked, counts = np.unique(contents[edges == edge], return_counts=True)
        pairs = zip(asked.tolist(), counts.tolist(), strict=True)
        told = {keys[content]: count for content, count in pairs}
        group = names[edge % traffic.fleet.groups]
        usage.add(UsageReport(edge_id=f"edge-{edge}", group=group, hour=hour, counts=told), hour)
