from __future__ import annotations

import pytest

from coordinator.routing.policy import Conditions, Policy
from coordinator.turns import Tier
from models.prompts import Message, Prompt

HARD = "请详细分析电动汽车和燃油汽车的优缺点，比较它们的区别，并解释为什么"


@pytest.mark.parametrize(
    ("question", "threshold", "reachable", "tier", "reason"),
    [
        ("你好", 0.7, True, Tier.EDGE, "below-threshold"),
        (HARD, 0.7, True, Tier.CLOUD, "complex"),
        (HARD, 0.7, False, Tier.EDGE, "cloud-unreachable"),
        ("你好", 0.0, True, Tier.CLOUD, "complex"),
        (HARD, 1.1, True, Tier.EDGE, "below-threshold"),
    ],
)
def test_decision_follows_score_threshold_and_conditions(
    question: str, threshold: float, reachable: bool, tier: Tier, reason: str
) -> None:
    prompt = Prompt(turn_id="t7", messages=(Message(role="user", text=question),))
    decision = Policy(threshold=threshold).decide(prompt, Conditions(cloud_reachable=reachable))
    assert (decision.turn_id, decision.tier, decision.reason, decision.threshold) == ("t7", tier, reason, threshold)
