"""From rules, a score and the state of the world to a decision with its reason; pure."""

from __future__ import annotations

from dataclasses import dataclass

from coordinator.routing.complexity import THRESHOLD, complexity
from coordinator.routing.rules import rule
from coordinator.routing.signals import read
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
    """In [0, 1]; the cloud is asked when the score reaches it. 0 asks it always, but for what rules keep here; above 1 never."""

    def decide(self, prompt: Prompt, conditions: Conditions) -> RoutingDecision:
        """Return where the prompt goes first, and why: a rule that holds comes before the score."""
        score = complexity(prompt)
        found = rule(prompt, read(prompt))
        if found is not None and (found.tier is Tier.EDGE or self.threshold <= 1):
            tier, reason = found.tier, found.reason
        elif score < self.threshold:
            tier, reason = Tier.EDGE, "below-threshold"
        else:
            tier, reason = Tier.CLOUD, "complex"
        if tier is Tier.CLOUD and not conditions.cloud_reachable:
            tier, reason = Tier.EDGE, "cloud-unreachable"
        return RoutingDecision(
            turn_id=prompt.turn_id, tier=tier, reason=reason, score=round(score, 4), threshold=self.threshold
        )
