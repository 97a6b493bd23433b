"""How many replicas a pool should have, from what it has to do; pure: readings and clocks come in, a number and its reason go out.

What is needed is counted from the work there is (requests, the time they wait, KV cache), never as a ratio to the replicas there are,
so replicas that are still loading a model do not call for more of themselves.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal

from cloud.hours import Hours
from models.errors import ConfigError

MAX_SAMPLES = 2000
"""Readings remembered; every 5 s, the default ``down_window_s`` needs 180."""

Reason = Literal[
    "steady",
    "limits",
    "closed",
    "opening",
    "stale",
    "unsure",
    "starting",
    "cooling",
    "work",
    "waiting",
    "memory",
    "idle",
]
"""Why: nothing to do; outside of min and max; a closed hour; the end of one; old readings, or too few; replicas still start;
too soon after the last change; more by requests, by their waiting or by KV cache; fewer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What a pool has to do, over all its replicas that can be asked."""

    asked: int
    """Replicas that said so."""
    running: int
    waiting: int
    kv_used: float
    """Mean share of their KV caches in use, in [0, 1]."""
    silent: int = 0
    """Ready replicas that did not say."""
    age_s: float = 0.0
    """Age of the oldest reading."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """Limits and targets of one pool; a field without a source is a guess to start from."""

    min_replicas: int = 1
    """Outside closed hours."""
    max_replicas: int = 8
    """The seeds' qwen-72b."""
    max_running: int = 32
    """Requests a replica runs at once: vLLM's --max-num-seqs."""
    service_s: float = 4.0
    """How long a request takes; turns requests that wait into seconds."""
    wait_s: float = 1.0
    """What waiting there is should be over in this time; edges give the cloud about 2 s to its first word."""
    up_use: float = 0.75
    """Share of ``max_running`` and ``kv_full`` above which more replicas are needed."""
    down_use: float = 0.5
    """Share below which fewer would do; the gap to ``up_use`` keeps it from going to and fro."""
    kv_full: float = 0.9
    """KV usage near which vLLM begins to preempt requests."""
    up_window_s: float = 30.0
    """More is needed only if it was needed all this time."""
    down_window_s: float = 600.0
    """Fewer do only if they would have done all this time."""
    up_cool_s: float = 120.0
    """After adding, wait: a 72B takes minutes to load."""
    down_cool_s: float = 300.0
    """After any change, wait before removing."""
    up_step: int = 2
    down_step: int = 1
    start_s: float = 1800.0
    """How long added replicas may take to be ready: until then none is removed. Pods that find no GPU are given up after it."""
    stale_s: float = 30.0
    """Older readings decide nothing."""
    closed: Hours | None = None
    """Hours with no replicas at all."""
    ahead_s: float = 900.0
    """How long before a closed hour ends the replicas are started: reading the weights of a 72B takes minutes."""

    def __post_init__(self) -> None:
        """Raise ConfigError for rules that contradict each other."""
        if not 1 <= self.min_replicas <= self.max_replicas:
            raise ConfigError(
                f"min_replicas {self.min_replicas} must lie between 1 and max_replicas {self.max_replicas}"
            )
        if not 0 < self.down_use < self.up_use <= 1:
            raise ConfigError(
                f"down_use {self.down_use:g} must lie between 0 and up_use {self.up_use:g}, and that at most 1"
            )
        if (
            min(self.up_step, self.down_step, self.max_running) < 1
            or min(self.service_s, self.wait_s, self.kv_full) <= 0
        ):
            raise ConfigError("up_step, down_step, max_running, service_s, wait_s and kv_full must be more than 0")


@dataclass(frozen=True, slots=True)
class _Sample:
    at_s: float
    up: int
    down: int


@dataclass(frozen=True, slots=True)
class Memory:
    """What earlier decisions leave for later ones."""

    samples: tuple[_Sample, ...] = ()
    since_s: float = math.inf
    """Since when readings came without a gap."""
    current: int | None = None
    """What the Deployment's spec was last."""
    up_s: float = -math.inf
    """When replicas were added last, by whomever."""
    changed_s: float = -math.inf
    """When their number was changed last, by whomever."""


@dataclass(frozen=True, slots=True)
class Decision:
    """How many replicas there should be."""

    replicas: int
    reason: Reason
    memory: Memory = field(repr=False, compare=False, default_factory=Memory)


def desired(rules: Rules, load: Load, current: int, *, now_s: float, moment: datetime, memory: Memory) -> Decision:
    """Return the number wanted, given ``current`` ones in the Deployment's spec; ``now_s`` is monotonic, ``moment`` knows its zone.

    It never holds fewer than run what runs now, but in closed hours: then 0 is wanted, and draining sees what still runs to its end.
    """
    memory = _remember(rules, load, _noticed(memory, current, now_s), now_s)
    replicas, reason = _scheduled(rules, current, moment) or _by_load(rules, load, current, now_s, memory)
    return Decision(replicas, reason, memory)


def needed(rules: Rules, load: Load, use: float) -> tuple[int, Reason]:
    """Return how many replicas would have the share ``use`` of their room taken, and what asks for the most of them."""
    slots = rules.max_running * use
    asks: dict[Reason, float] = {
        "work": (load.running + load.waiting) / slots,
        # What waits takes service_s each, and all of it should be over within wait_s, beside what runs already.
        "waiting": (load.running + load.waiting * max(1.0, rules.service_s / rules.wait_s)) / rules.max_running,
        "memory": load.kv_used * load.asked / (rules.kv_full * use),
    }
    reason = max(asks, key=lambda name: asks[name])
    return math.ceil(asks[reason] - 1e-9), reason


def _noticed(memory: Memory, current: int, now_s: float) -> Memory:
    """Return the memory with a change of the number itself: cooling begins when something happened, not when it was wished."""
    if memory.current in {None, current}:
        return replace(memory, current=current)
    is_more = memory.current is not None and current > memory.current
    return replace(memory, current=current, changed_s=now_s, up_s=now_s if is_more else memory.up_s)


def _remember(rules: Rules, load: Load, memory: Memory, now_s: float) -> Memory:
    """Return the memory with this reading; after a gap the windows begin anew."""
    if load.age_s > rules.stale_s:
        return replace(memory, samples=(), since_s=math.inf)
    is_gap = not memory.samples or now_s - memory.samples[-1].at_s > rules.stale_s
    sample = _Sample(now_s, needed(rules, load, rules.up_use)[0], needed(rules, load, rules.down_use)[0])
    oldest_s = now_s - max(rules.up_window_s, rules.down_window_s)
    kept = () if is_gap else tuple(each for each in memory.samples if each.at_s >= oldest_s)
    return replace(memory, samples=(*kept, sample)[-MAX_SAMPLES:], since_s=now_s if is_gap else memory.since_s)


def _scheduled(rules: Rules, current: int, moment: datetime) -> tuple[int, Reason] | None:
    """Return what the clock and the limits say, None when they leave it to the load."""
    if rules.closed and rules.closed.hold(moment) and rules.closed.hold(moment + timedelta(seconds=rules.ahead_s)):
        return 0, "closed"
    if current == 0:
        return rules.min_replicas, "opening"
    within = min(max(current, rules.min_replicas), rules.max_replicas)
    return None if within == current else (within, "limits")


def _by_load(rules: Rules, load: Load, current: int, now_s: float, memory: Memory) -> tuple[int, Reason]:
    if load.age_s > rules.stale_s:
        return current, "stale"
    up = _over(memory, now_s, rules.up_window_s, "up")
    if up is not None and up > current and current < rules.max_replicas:
        if now_s - memory.up_s < rules.up_cool_s:
            return current, "cooling"
        return min(up, current + rules.up_step, rules.max_replicas), needed(rules, load, rules.up_use)[1]
    return _fewer(rules, load, current, now_s, memory)


def _fewer(rules: Rules, load: Load, current: int, now_s: float, memory: Memory) -> tuple[int, Reason]:
    if load.silent:
        return current, "unsure"
    if load.asked < current and now_s - memory.up_s < rules.start_s:
        return current, "starting"
    down = _over(memory, now_s, rules.down_window_s, "down")
    if down is None:
        return current, "unsure"
    if max(down, rules.min_replicas) >= current:
        return current, "steady"
    if now_s - memory.changed_s < rules.down_cool_s:
        return current, "cooling"
    return max(down, current - rules.down_step, rules.min_replicas), "idle"


def _over(memory: Memory, now_s: float, window_s: float, side: Literal["up", "down"]) -> int | None:
    """Return the least ever needed (up) or the most (down) in the window, None when readings do not reach back so far."""
    if now_s - memory.since_s < window_s:
        return None
    found = [each for each in memory.samples if each.at_s >= now_s - window_s]
    return min(each.up for each in found) if side == "up" else max(each.down for each in found)
