from __future__ import annotations

import pytest

from coordinator.routing.policy import Conditions, Policy
from coordinator.turns import Tier
from models.prompts import Image, Message, Prompt

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


@pytest.mark.parametrize(
    ("question", "private", "picture", "threshold", "reachable", "tier", "reason"),
    [
        (HARD, True, False, 0.0, True, Tier.EDGE, "private"),
        (HARD, True, True, 0.0, True, Tier.EDGE, "private"),
        ("这是什么？", False, True, 0.7, True, Tier.CLOUD, "picture"),
        ("把客厅的灯打开", False, False, 0.0, True, Tier.EDGE, "device-command"),
        ("今天天气怎么样", False, False, 0.0, True, Tier.EDGE, "real-time"),
        ("好好想一想，三个人分七个苹果怎么分", False, False, 0.7, True, Tier.CLOUD, "asked-to-think"),
        ("好好想一想，三个人分七个苹果怎么分", False, False, 0.7, False, Tier.EDGE, "cloud-unreachable"),
        ("好好想一想，三个人分七个苹果怎么分", False, False, 1.1, True, Tier.EDGE, "below-threshold"),
    ],
)
def test_a_rule_that_holds_comes_before_the_score(
    question: str, private: bool, picture: bool, threshold: float, reachable: bool, tier: Tier, reason: str
) -> None:
    prompt = Prompt(
        turn_id="t",
        messages=(Message(role="user", text=question),),
        images=(Image(media_type="image/jpeg", data=b"jpeg"),) if picture else (),
        is_private=private,
    )
    decision = Policy(threshold=threshold).decide(prompt, Conditions(cloud_reachable=reachable))
    assert (decision.tier, decision.reason) == (tier, reason)
