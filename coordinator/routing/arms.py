"""Which devices are in which arm of a comparison, and how each arm's turns go on this node; for recorded turns see ``coordinator.arms``."""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Sequence

import msgspec

from coordinator.routing.policy import Arm
from coordinator.turns import Tier, TurnRecord

FIRST_TOKEN_BOUNDS_MS = (100, 200, 300, 500, 750, 1000, 1500, 2000, 3000, 5000, 10_000)
"""Upper ends of the counted spans; one more counts the slower ones."""


def arm_of(device_id: str, arms: Sequence[Arm]) -> Arm | None:
    """Return the device's arm, None outside all; it stays the same until arms are added, renamed or given other shares."""
    if not arms:
        return None
    names = "|".join(arm.name for arm in arms)
    digest = hashlib.blake2b(f"{names}|{device_id}".encode(), digest_size=8).digest()
    place = int.from_bytes(digest) / 2**64
    for arm in arms:
        place -= arm.share
        if place < 0:
            return arm
    return None


class ArmTally(msgspec.Struct, kw_only=True):
    """Running figures of one arm; sums, so those of several nodes can be added."""

    turns: int = 0
    """In which somebody was asked."""
    cloud: int = 0
    """Answered by the cloud."""
    remembered: int = 0
    """Answered from the cache."""
    fell_back: int = 0
    """Sent to the cloud, answered elsewhere."""
    interrupted: int = 0
    failed: int = 0
    first_tokens: int = 0
    """Turns with a first token, of which ``first_token_ms`` is the sum of milliseconds."""
    first_token_ms: float = 0.0
    first_token_counts: list[int] = msgspec.field(default_factory=lambda: [0] * (len(FIRST_TOKEN_BOUNDS_MS) + 1))
    """By ``FIRST_TOKEN_BOUNDS_MS``; a span has its upper end in it."""

    def observe(self, turn: TurnRecord) -> None:
        """Add a finished turn with at least one decision."""
        last = turn.decisions[-1].tier
        self.turns += 1
        self.cloud += last is Tier.CLOUD
        self.remembered += last is Tier.CACHE
        self.fell_back += last is Tier.EDGE and any(decision.tier is Tier.CLOUD for decision in turn.decisions)
        self.interrupted += turn.outcome == "interrupted"
        self.failed += turn.outcome == "failed"
        if turn.marks.first_token_ms is not None:
            self.first_tokens += 1
            self.first_token_ms += turn.marks.first_token_ms
            self.first_token_counts[bisect_left(FIRST_TOKEN_BOUNDS_MS, turn.marks.first_token_ms)] += 1


def observe_arms(tallies: dict[str, ArmTally], turn: TurnRecord) -> None:
    """Add a finished turn to its arm, "" outside a comparison; one in which nothing was decided counts nowhere."""
    if turn.decisions:
        tallies.setdefault(turn.decisions[0].arm, ArmTally()).observe(turn)
