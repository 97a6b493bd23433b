"""Who speaks first: the cloud within its deadline, the edge in its place or beside it. Nothing was said yet, so all can change.

What holds:
    a cloud that fails, or is silent for the first-token time, is replaced: by another pool while there is time, else by the edge;
    a cloud that has begun gets half that time more for its first clause, the least a voice can say, and the edge stands by meanwhile;
    an edge asked beside a late cloud (a hedge) speaks if it is first; one that only stands by (as above, for its own doubt, or for a pool
    that is tried after failing) speaks when the cloud does not in time;
    an edge that is full hands over, if the prompt may leave.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from math import inf
from typing import Protocol

from msgspec.structs import replace

from coordinator.attempt import Attempt, Gate
from coordinator.clauses import Clauses, Passing
from coordinator.continuation import continued
from coordinator.doubt import Doubt
from coordinator.pools import Pools, next_pool
from coordinator.routing.policy import Conditions, Policy
from coordinator.turns import RoutingDecision, Tier
from models.engines import Completer
from models.errors import CompletionError, DeadlineError
from models.prompts import Prompt

CLAUSE_SHARE = 0.5
"""Part of the first-token time that a cloud gets for its first clause once it has begun."""
NEXT_POOL_SHARE = 0.5
"""Part of the first-token time within which a failure leaves time to ask another pool."""
PICTURE_FIRST_TOKEN_S = 12.0
"""How long a pool may look at a picture at least: no edge can answer in its place. A guess that leaves a device's 30 s room."""
EDGE_NEEDS_S = 1.0
"""What a turn must have left for the edge when a pool that failed is tried with it. A guess."""
HEDGED, DOUBTS, FINISHES, POOLS_CLOSED = "edge-was-faster", "doubt", "edge-finishes", "pools-closed"
_SCORED = {"below-threshold", "gain-below-threshold"}
"""Reasons for the edge that its own doubt may overrule; rules it may not."""
_SOON_S = 1e-6
"""A timer this near is due: clocks are not exact."""


class Routes(Protocol):
    """Decides and keeps the account: the Router."""

    def decide(self, prompt: Prompt, conditions: Conditions) -> RoutingDecision:
        """Return where the prompt goes first, and why."""
        ...

    def charge(self, decision: RoutingDecision) -> None:
        """Count a cloud answer that was really paid for."""
        ...

    def policy_for(self, device_id: str) -> Policy:
        """Return the policy the device follows."""
        ...

    def prices(self) -> dict[str, float]:
        """Return by arm the gain that one unit of money must bring now."""
        ...


@dataclass(frozen=True, slots=True)
class Desk:
    """What the turns of one edge share."""

    edge: Completer
    pools: Pools
    routes: Routes
    conditions: Callable[[], Conditions]
    observe: Callable[[RoutingDecision], None]
    doubt_threshold: float | None = None


class Opening:
    """One turn until somebody speaks. What it starts is put on ``stack``, which the turn closes."""

    def __init__(self, desk: Desk, prompt: Prompt, decision: RoutingDecision, stack: AsyncExitStack) -> None:
        self.policy = desk.routes.policy_for(prompt.device_id)
        self.first_token_s = self.policy.first_token_ms / 1000
        if prompt.images:
            self.first_token_s = max(self.first_token_s, PICTURE_FIRST_TOKEN_S)
        self._desk = desk
        self._prompt = prompt
        self._decision = decision
        self._stack = stack
        self._changed = asyncio.Event()
        self._began_s = _now_s()
        self._cloud: Attempt | None = None
        self._first_asked_s = inf
        """When the first pool was asked."""
        self._tried: set[str] = set()
        self._edge: Attempt | None = None
        self._edge_error: CompletionError | None = None
        self._stands_by = False
        self._hedge_s = inf
        self._may_doubt = self._doubt_is_wanted()

    async def speaker(self) -> Attempt:
        """Return the attempt that has words to say, all others dropped; raise the CompletionError of the last one that failed."""
        if self._decision.tier is Tier.CLOUD:
            self._desk.pools.hedges.earn(self.policy.hedge_share)
            self._ask_cloud(self._decision)
        else:
            self._desk.observe(self._decision)
            self._ask_edge(self._decision)
        while (speaker := self._settle()) is None:
            await self._until_changed()
        for attempt in (self._cloud, self._edge):
            if attempt is not None and attempt is not speaker:
                self._drop(attempt)
        return speaker

    def finish(self, begun: str) -> Attempt:
        """Return the edge's attempt at the rest of an answer of which ``begun`` was said."""
        decision = self._at_edge(FINISHES)
        self._desk.observe(decision)
        return self._edge_attempt(begun, decision, Passing())

    # One step: what came is looked at, what follows is done

    def _settle(self) -> Attempt | None:
        """Do what is due and return who speaks, None for nobody yet; raise when nobody will."""
        self._review_cloud()
        self._review_edge()
        cloud, edge = self._cloud, self._edge
        if cloud is not None and cloud.is_ready:
            return cloud
        if edge is not None and edge.is_ready:
            if cloud is None:
                return edge
            if not self._stands_by and cloud.begun_s is None:
                self._desk.observe(self._at_edge(HEDGED))
                return edge
        if cloud is not None and edge is None and self._edge_error is None:
            if self._hedge_is_due(cloud):
                self._ask_edge(self._at_edge(HEDGED))
            elif _is_due(self._stand_by_s):
                self._stand_by()
        return None

    def _review_cloud(self) -> None:
        cloud = self._cloud
        if cloud is None or cloud.is_ready:
            return
        error = cloud.error
        if error is None and _is_due(self._cloud_until_s(cloud)):
            waited_s = _now_s() - cloud.asked_s
            error = DeadlineError(f"{cloud.decision.pool}: no first words within {waited_s:.3g} s")
            self._note_wait(cloud)
        if error is not None:
            cloud.fail(error)
            self._cloud_failed(error, error.code)

    def _cloud_failed(self, error: CompletionError, reason: str) -> None:
        """Go on without the pool that was asked last: with another one, or with the edge."""
        self._cloud = None
        if self._is_early and self._ask_other_pool(reason):
            return
        if self._edge_error is not None:
            raise self._edge_error if self._decision.tier is Tier.CLOUD else error
        decision = self._at_edge(reason)
        self._desk.observe(decision)
        if self._edge is None:
            self._ask_edge(decision)

    def _review_edge(self) -> None:
        edge = self._edge
        if edge is None:
            return
        error = edge.error
        if error is None and not edge.is_ready and self._left_s <= 0:
            error = DeadlineError(f"edge: no first word within {self._prompt.budget_ms / 1000:g} s")
        if error is not None:
            edge.fail(error)
            self._edge, self._edge_error = None, error
            is_first = not self._tried
            if self._cloud is None and not (is_first and error.retryable and self._ask_other_pool(error.code)):
                raise error
        elif edge.is_ready and self._may_doubt:
            self._may_doubt = False
            if self._doubts(edge):
                self._stands_by = self._ask_other_pool(DOUBTS)

    # Asking

    def _ask_other_pool(self, reason: str) -> bool:
        """Ask the best pool not asked yet, and tell why; return False when there is none or the prompt may not leave."""
        conditions = self._desk.conditions()
        if self._prompt.is_private or not conditions.cloud_reachable or self.policy.is_never_cloud:
            return False
        closed = conditions.closed_pools | self._desk.pools.closed(self.policy) | self._tried
        prices = self._desk.routes.prices()
        pool = next_pool(
            self.policy.pools,
            closed,
            gain_per_price=prices.get(self._decision.arm, 0.0),
            needs_vision=bool(self._prompt.images),
        )
        return pool is not None and self._ask_cloud(
            replace(self._decision, tier=Tier.CLOUD, pool=pool.name, reason=reason), is_first=False
        )

    def _ask_cloud(self, decision: RoutingDecision, *, is_first: bool = True) -> bool:
        """Ask the pool the decision names; return whether its breaker lets it. The first one must be replaced when it does not."""
        self._tried.add(decision.pool)
        may_probe = self._left_s >= (1 + CLAUSE_SHARE) * self.first_token_s + EDGE_NEEDS_S
        call = self._desk.pools.begin(decision.pool, may_probe=may_probe)
        if is_first or call is not None:
            self._desk.observe(decision)
        if call is None:
            if is_first:
                self._cloud_failed(CompletionError(f"{decision.pool}: not to be asked now"), POOLS_CLOSED)
            return False
        self._first_asked_s = min(self._first_asked_s, _now_s())
        self._cloud = Attempt(
            self._desk.pools.completer(decision.pool),
            continued(self._prompt, "", self._left_s),
            decision,
            self._changed,
            gate=Clauses(),
            call=call,
            begun=self._cloud_begun,
        )
        self._stack.push_async_callback(self._cloud.close)
        p95_s = self._desk.pools.first_tokens(decision.pool).p95_s
        self._hedge_s = inf if p95_s is None else self._cloud.asked_s + p95_s
        if call.is_probe and self._edge is None and self._edge_error is None:
            self._stand_by()
        return True

    def _stand_by(self) -> None:
        """Ask the edge, to speak only when the cloud does not."""
        self._stands_by = True
        self._ask_edge(self._at_edge(HEDGED))

    def _ask_edge(self, decision: RoutingDecision) -> None:
        gate: Gate = Doubt() if self._may_doubt else Passing()
        self._edge = self._edge_attempt("", decision, gate)

    def _edge_attempt(self, begun: str, decision: RoutingDecision, gate: Gate) -> Attempt:
        prompt = continued(self._prompt, begun, self._left_s)
        attempt = Attempt(self._desk.edge, prompt, decision, self._changed, gate=gate, ahead=1)
        self._stack.push_async_callback(attempt.close)
        return attempt

    def _at_edge(self, reason: str) -> RoutingDecision:
        return replace(self._decision, tier=Tier.EDGE, pool="", reason=reason)

    # What came of it

    def _cloud_begun(self, cloud: Attempt) -> None:
        self._note_wait(cloud)
        self._desk.routes.charge(cloud.decision)

    def _note_wait(self, cloud: Attempt) -> None:
        self._desk.pools.first_tokens(cloud.decision.pool).add(_now_s() - cloud.asked_s)

    def _drop(self, attempt: Attempt) -> None:
        if attempt is self._cloud and attempt.begun_s is None:
            self._note_wait(attempt)
        attempt.drop()

    # Conditions

    @property
    def _left_s(self) -> float:
        return self._prompt.budget_ms / 1000 - (_now_s() - self._began_s)

    def _cloud_until_s(self, cloud: Attempt) -> float:
        """Return until when the cloud must have its first clause, or be writing it; other pools before it used up the same time."""
        share = 1.0 if cloud.begun_s is None else 1 + CLAUSE_SHARE
        return self._first_asked_s + share * self.first_token_s

    @property
    def _stand_by_s(self) -> float:
        """From when the edge stands by, should the cloud have begun by then and not be ready."""
        return self._first_asked_s + self.first_token_s

    @property
    def _is_early(self) -> bool:
        """Whether there is time to ask another pool."""
        return _now_s() <= self._first_asked_s + NEXT_POOL_SHARE * self.first_token_s

    def _hedge_is_due(self, cloud: Attempt) -> bool:
        if cloud.begun_s is not None or not _is_due(self._hedge_s):
            return False
        self._hedge_s = inf
        return self._desk.pools.hedges.spend()

    def _doubt_is_wanted(self) -> bool:
        decision = self._decision
        is_calibrated = self.policy.doubt and self._desk.doubt_threshold is not None
        return is_calibrated and decision.tier is Tier.EDGE and decision.reason in _SCORED

    def _doubts(self, edge: Attempt) -> bool:
        threshold = self._desk.doubt_threshold
        return threshold is not None and isinstance(edge.gate, Doubt) and edge.gate.doubts(threshold)

    async def _until_changed(self) -> None:
        """Return when an attempt moved or the next timer is due."""
        timers_s = [self._began_s + self._prompt.budget_ms / 1000]
        if self._cloud is not None:
            timers_s.append(self._cloud_until_s(self._cloud))
            if self._edge is None and self._edge_error is None:
                timers_s.append(self._hedge_s if self._cloud.begun_s is None else self._stand_by_s)
        self._changed.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(min(timers_s)):
                await self._changed.wait()


def _is_due(timer_s: float) -> bool:
    return _now_s() >= timer_s - _SOON_S


def _now_s() -> float:
    return asyncio.get_running_loop().time()
