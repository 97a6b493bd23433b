"""Which pods go when a pool shrinks, so that Kubernetes takes the ones that have nothing to do; pure.

Kubernetes chooses which pods of a Deployment end. It takes those that are not ready first, then those with the lowest
pod-deletion-cost. So a pod that should go passes three states, each read back from the pod itself before the next: *draining* (its
label no longer matches the Service, so every worker's discovery drops it and no new work comes), *first to go* (idle for a while, so
its cost is lowered), and only then does the Deployment's number go down.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

SETTLE_S = 10.0
"""How long a draining pod must be idle: a worker may still choose it until its watch has heard, and one reading may miss a request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Replica:
    """A pod that was not told to end."""

    name: str
    is_ready: bool = True
    is_draining: bool = False
    is_first_to_go: bool = False
    requests: int | None = 0
    """Running and waiting in it, None when it did not say."""
    idle_s: float = 0.0
    """For how long it is draining without a request; 0 when it has one."""

    @property
    def can_go(self) -> bool:
        """Whether nobody would miss it now."""
        if not self.is_ready:
            return not self.requests
        return self.is_draining and self.is_first_to_go and self.requests == 0 and self.idle_s >= SETTLE_S


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do now; the next reading says what to do then."""

    drain: tuple[str, ...] = ()
    """Take these out of choice."""
    lower: tuple[str, ...] = ()
    """Put these first in line to go."""
    keep: tuple[str, ...] = ()
    """Give these work again."""
    replicas: int = 0
    """What the Deployment may be set to now."""


def plan(replicas: Sequence[Replica], wanted: int) -> Plan:
    """Return how to get from these pods to ``wanted`` ones without ending any work."""
    surplus = max(0, len(replicas) - wanted)
    going = sorted(replicas, key=_order)[:surplus]
    names = {each.name for each in going}
    can_go = 0 if _blocks(replicas) else sum(each.can_go for each in going)
    return Plan(
        drain=tuple(each.name for each in going if each.is_ready and not each.is_draining),
        lower=tuple(each.name for each in going if _is_settled(each) and not each.is_first_to_go),
        keep=tuple(each.name for each in replicas if each.is_draining and each.name not in names),
        replicas=len(replicas) - can_go if surplus else wanted,
    )


def _order(each: Replica) -> tuple[bool, bool, bool, float, str]:
    """Sort as Kubernetes would choose; then whom we chose before, so that no second pod is drained for the first; then the idlest."""
    requests = math.inf if each.requests is None else each.requests
    return each.is_ready, not each.is_first_to_go, not each.is_draining, requests, each.name


def _is_settled(each: Replica) -> bool:
    return each.is_ready and each.is_draining and each.requests == 0 and each.idle_s >= SETTLE_S


def _blocks(replicas: Sequence[Replica]) -> bool:
    """Whether Kubernetes might take a pod that works: one whose probe fails under its load, or one that got work after all."""
    return any(each.requests if not each.is_ready else each.is_first_to_go and each.requests != 0 for each in replicas)
