"""Recorded turns through another policy, before it goes live: which of them would have gone elsewhere, and what that would cost."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable

import msgspec

from coordinator.routing.policy import Conditions
from coordinator.routing.router import Router
from coordinator.turns import RoutingDecision, Tier, TurnRecord
from models.prompts import Image, Message, Prompt

MAX_MESSAGES = 40
"""Of a session, before a question; more say nothing new to a router. A guess."""

_UNSEEN = Image(media_type="image/jpeg", data=b"")
"""Stands for a picture: records keep none, and a router asks only whether there is one."""


class ChangedTurn(msgspec.Struct, frozen=True, kw_only=True):
    """A turn that would be sent elsewhere; without the person's words."""

    turn_id: str
    was: str
    """"edge", "cloud", or "cloud/POOL"."""
    was_reason: str
    now: str
    now_reason: str
    score: float
    threshold: float


class Replayed(msgspec.Struct, frozen=True, kw_only=True):
    """What a policy would have made of recorded turns; shares and prices are of the turns decided anew."""

    turns: int
    """Decided anew."""
    skipped: int
    """Without words or without a decision."""
    remembered: int
    """Answered from the cache, as they would be again."""
    changed: tuple[ChangedTurn, ...]
    cloud_share_before: float
    cloud_share_after: float
    price_before: float
    """Of all turns, by the new policy's prices."""
    price_after: float
    unpriced: int
    """Turns sent to a pool the new policy does not name, which therefore cost nothing in ``price_before``."""
    reasons: dict[str, int]
    """How often each reason would decide."""


def replay(turns: Iterable[TurnRecord], router: Router) -> Replayed:
    """Return what the router's policy makes of the turns, in their order, under the conditions they met; the router's loops move on.

    A budget needs the clock of the turns: let ``turns`` be a generator that sets the router's clock before it yields each.
    """
    tally = _Tally(router)
    sessions: dict[str, list[Message]] = defaultdict(list)
    for turn in turns:
        past = sessions[turn.session_id]
        tally.add(turn, past)
        if turn.heard:
            past.append(Message(role="user", text=turn.heard))
        if turn.answer:
            past.append(Message(role="assistant", text=turn.answer))
        del past[:-MAX_MESSAGES]
    return tally.result()


class _Tally:
    def __init__(self, router: Router) -> None:
        self._router = router
        self._counts: Counter[str] = Counter()
        self._prices = {"before": 0.0, "after": 0.0}
        self._reasons: Counter[str] = Counter()
        self._changed: list[ChangedTurn] = []

    def add(self, turn: TurnRecord, past: list[Message]) -> None:
        if not turn.heard or not turn.decisions:
            self._counts["skipped"] += 1
            return
        old = turn.decisions[0]
        new = self._router.decide(_prompt(turn, old, past), _conditions(self._router, old))
        if old.tier is Tier.CACHE:
            self._counts["remembered"] += 1
            return
        if new.tier is Tier.CLOUD:
            self._router.charge(new)
        self._count(old, new)

    def _count(self, old: RoutingDecision, new: RoutingDecision) -> None:
        known = {pool.name: pool.price for arm in self._router.policies() for pool in arm.pools}
        self._counts["turns"] += 1
        self._counts["before"] += old.tier is Tier.CLOUD
        self._counts["after"] += new.tier is Tier.CLOUD
        self._counts["unpriced"] += old.tier is Tier.CLOUD and old.pool not in known
        self._prices["before"] += known.get(old.pool, 0.0)
        self._prices["after"] += known.get(new.pool, 0.0)
        self._reasons[new.reason] += 1
        if (old.tier, old.pool) != (new.tier, new.pool):
            self._changed.append(
                ChangedTurn(
                    turn_id=old.turn_id,
                    was=_place(old),
                    was_reason=old.reason,
                    now=_place(new),
                    now_reason=new.reason,
                    score=new.score,
                    threshold=new.threshold,
                )
            )

    def result(self) -> Replayed:
        turns = self._counts["turns"]
        return Replayed(
            turns=turns,
            skipped=self._counts["skipped"],
            remembered=self._counts["remembered"],
            changed=tuple(self._changed),
            cloud_share_before=self._counts["before"] / max(turns, 1),
            cloud_share_after=self._counts["after"] / max(turns, 1),
            price_before=self._prices["before"],
            price_after=self._prices["after"],
            unpriced=self._counts["unpriced"],
            reasons=dict(self._reasons.most_common()),
        )


def _prompt(turn: TurnRecord, old: RoutingDecision, past: list[Message]) -> Prompt:
    return Prompt(
        turn_id=turn.turn_id,
        messages=(*past, Message(role="user", text=turn.heard)),
        device_id=turn.device_id,
        language=turn.language,
        images=(_UNSEEN,) if old.reason == "picture" else (),
        is_private=old.reason == "private",
    )


def _conditions(router: Router, old: RoutingDecision) -> Conditions:
    """Return the conditions a record tells of: what could not be asked then cannot be asked now."""
    every = frozenset(pool.name for policy in router.policies() for pool in policy.pools)
    return Conditions(
        cloud_reachable=old.reason != "cloud-unreachable",
        closed_pools=every if old.reason == "pools-closed" else frozenset(),
    )


def _place(decision: RoutingDecision) -> str:
    return f"{decision.tier}/{decision.pool}" if decision.pool else str(decision.tier)
