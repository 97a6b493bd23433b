"""From a score and the state of the world to a decision with its reason; pure."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.routing.complexity import THRESHOLD, complexity
from coordinator.turns import RoutingDecision, Tier
from models.prompts import Prompt


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the decision needs to know of the world."""

    cloud_reachable: bool = True
    """False when this process knows that a request would not leave it."""


@dataclass(frozen=True, slots=True)
class Policy:
    """The rule in force."""

    threshold: float = THRESHOLD
    """In [0, 1]; the cloud is asked when the score reaches it. 0 asks it always, above 1 never."""

    def decide(self, prompt: Prompt, conditions: Conditions) -> RoutingDecision:
        """Return where the prompt goes first, and why."""
        score = complexity(prompt)
        if score < self.threshold:
            tier, reason = Tier.EDGE, "below-threshold"
        elif not conditions.cloud_reachable:
            tier, reason = Tier.EDGE, "cloud-unreachable"
        else:
            tier, reason = Tier.CLOUD, "complex"
        return RoutingDecision(
            turn_id=prompt.turn_id, tier=tier, reason=reason, score=round(score, 4), threshold=self.threshold
        )
