from __future__ import annotations

from collections import Counter

import msgspec
import numpy as np
import pytest

from coordinator.routing.policy import Arm, Changes, Conditions, Policy, PoolTerms
from coordinator.routing.promise import Promise, Promises
from coordinator.routing.router import LaneState, Router, RouterState
from coordinator.routing.wording import plain
from coordinator.turns import RoutingDecision, Tier
from models.errors import ConfigError
from models.prompts import Image, Message, Prompt

HARD = "请详细分析电动汽车和燃油汽车的优缺点，比较它们的区别，并解释为什么"
THINK = "好好想一想，三个人分七个苹果怎么分"
SMALL = PoolTerms(name="qwen-14b", price=1.0, strength=0.8)
LARGE = PoolTerms(name="qwen-72b", price=4.0, strength=1.0)
EYES = PoolTerms(name="qwen-vl", price=4.0, strength=0.9, vision=True)
POOLS = (SMALL, LARGE, EYES)


class Predicted(msgspec.Struct, frozen=True):
    gain: float


class FakeModel:
    """Predicts the same gain always; half of the calibration prompts have less than 0, and gains spread evenly up to 1."""

    name = "fake"

    def __init__(self, gain: float = 0.5) -> None:
        self.gain = gain

    def covers(self, text: str) -> bool:
        return "unknown" not in text

    def predict(self, text: str) -> Predicted:
        assert text == plain(text)
        return Predicted(self.gain)

    def score(self, gain: float) -> float:
        return min(max((gain + 1) / 2, 0.0), 1.0)


def asked(
    question: str = "为什么天空是蓝色的", *, device: str = "d", private: bool = False, picture: bool = False
) -> Prompt:
    return Prompt(
        turn_id="t7",
        messages=(Message(role="user", text=question),),
        device_id=device,
        is_private=private,
        images=(Image(media_type="image/jpeg", data=b"jpeg"),) if picture else (),
    )


OPEN = Conditions()


def decided(
    policy: Policy, prompt: Prompt, *, gain: float | None = 0.5, conditions: Conditions = OPEN
) -> RoutingDecision:
    model = None if gain is None else FakeModel(gain)
    return Router(policy, model, now=lambda: 0.0).decide(prompt, conditions)


@pytest.mark.parametrize(
    ("question", "threshold", "reachable", "tier", "reason"),
    [
        ("你好", 0.7, True, Tier.EDGE, "below-threshold"),
        (HARD, 0.7, True, Tier.CLOUD, "complex"),
        (HARD, 0.7, False, Tier.EDGE, "cloud-unreachable"),
        ("你好", 0.7, False, Tier.EDGE, "below-threshold"),
        ("你好", 0.0, True, Tier.CLOUD, "complex"),
        (HARD, 1.1, True, Tier.EDGE, "below-threshold"),
    ],
)
def test_without_a_model_the_complexity_decides(
    question: str, threshold: float, reachable: bool, tier: Tier, reason: str
) -> None:
    decision = decided(
        Policy(threshold=threshold), asked(question), gain=None, conditions=Conditions(cloud_reachable=reachable)
    )
    assert (decision.turn_id, decision.tier, decision.reason) == ("t7", tier, reason)
    assert decision.threshold == min(threshold, 2)
    assert decision.gain == 0.0


@pytest.mark.parametrize(
    ("question", "private", "picture", "threshold", "reachable", "tier", "reason"),
    [
        (HARD, True, False, 0.0, True, Tier.EDGE, "private"),
        (HARD, True, True, 0.0, True, Tier.EDGE, "private"),
        ("这是什么？", False, True, 0.9, True, Tier.CLOUD, "picture"),
        ("这是什么？", False, True, 0.9, False, Tier.EDGE, "cloud-unreachable"),
        ("把客厅的灯打开", False, False, 0.0, True, Tier.EDGE, "device-command"),
        ("今天天气怎么样", False, False, 0.0, True, Tier.EDGE, "real-time"),
        (THINK, False, False, 0.9, True, Tier.CLOUD, "asked-to-think"),
        (THINK, False, False, 0.9, False, Tier.EDGE, "cloud-unreachable"),
        (THINK, False, False, 1.1, True, Tier.EDGE, "gain-below-threshold"),
    ],
)
def test_a_rule_that_holds_comes_before_the_score(
    question: str, private: bool, picture: bool, threshold: float, reachable: bool, tier: Tier, reason: str
) -> None:
    policy = Policy(threshold=threshold, pools=POOLS)
    prompt = asked(question, private=private, picture=picture)
    decision = decided(policy, prompt, conditions=Conditions(cloud_reachable=reachable))
    assert (decision.tier, decision.reason) == (tier, reason)
    assert bool(decision.pool) == (tier is Tier.CLOUD)


@pytest.mark.parametrize(
    ("gain", "threshold", "tier", "reason"),
    [
        (0.5, 0.7, Tier.CLOUD, "gain-above-threshold"),
        (0.4, 0.7, Tier.CLOUD, "gain-above-threshold"),
        (0.3, 0.7, Tier.EDGE, "gain-below-threshold"),
        (-0.9, 0.0, Tier.CLOUD, "gain-above-threshold"),
    ],
)
def test_the_gains_place_among_known_gains_is_what_meets_the_threshold(
    gain: float, threshold: float, tier: Tier, reason: str
) -> None:
    decision = decided(Policy(threshold=threshold, version=4), asked(), gain=gain)
    assert (decision.tier, decision.reason) == (tier, reason)
    assert (decision.score, decision.threshold, decision.gain) == (pytest.approx((gain + 1) / 2), threshold, gain)
    assert (decision.policy, decision.arm) == (4, "")


def test_a_policy_may_ask_for_complexity_though_there_is_a_model() -> None:
    assert decided(Policy(router="complexity"), asked(HARD)).reason == "complex"


@pytest.mark.parametrize(
    ("gain", "threshold", "closed", "pool"),
    [
        (0.45, 0.7, (), "qwen-14b"),
        (0.95, 0.525, (), "qwen-72b"),
        (0.15, 0.525, (), "qwen-14b"),
        (0.45, 0.7, ("qwen-14b",), "qwen-72b"),
        (0.45, 0.7, ("qwen-14b", "qwen-72b"), "qwen-vl"),
        (-0.5, 0.0, (), "qwen-72b"),
        (0.5, 0.0, (), "qwen-72b"),
    ],
)
def test_the_pool_is_the_one_with_the_most_gain_beyond_its_price(
    gain: float, threshold: float, closed: tuple[str, ...], pool: str
) -> None:
    conditions = Conditions(closed_pools=frozenset(closed))
    assert decided(Policy(threshold=threshold, pools=POOLS), asked(), gain=gain, conditions=conditions).pool == pool


def test_with_all_pools_closed_the_edge_answers() -> None:
    conditions = Conditions(closed_pools=frozenset(pool.name for pool in POOLS))
    decision = decided(Policy(pools=POOLS), asked(), conditions=conditions)
    assert (decision.tier, decision.reason, decision.pool) == (Tier.EDGE, "pools-closed", "")


def test_a_picture_goes_to_a_pool_that_sees_or_stays() -> None:
    assert decided(Policy(pools=POOLS), asked(picture=True)).pool == "qwen-vl"
    assert decided(Policy(pools=(SMALL, LARGE)), asked(picture=True)).reason == "pools-closed"


def test_who_asks_to_think_gets_the_strongest_that_is_worth_its_price() -> None:
    assert decided(Policy(threshold=0.52, pools=POOLS), asked(THINK), gain=-0.5).pool == "qwen-72b"


def test_a_budget_becomes_a_price() -> None:
    clock = {"s": 0.0}
    router = Router(
        Policy(budget_per_day=100.0, pools=(SMALL,), utc_offset_h=0.0), model := FakeModel(), now=lambda: clock["s"]
    )
    rng = np.random.default_rng(1)
    reasons: Counter[str] = Counter()
    for second in np.sort(rng.uniform(0, 24, 1000)) * 3600:
        clock["s"] = float(second)
        model.gain = float(rng.uniform(-0.5, 0.9))
        decision = router.decide(asked(), OPEN)
        reasons[decision.reason] += 1
        if decision.tier is Tier.CLOUD:
            router.charge(decision)
            assert decision.gain * SMALL.strength > router.prices()[""] - 0.2
    assert set(reasons) == {"gain-above-threshold", "gain-below-threshold", "budget"}
    budget = router.state[""].budget
    assert budget
    assert budget.spent == pytest.approx(100, abs=5)
    assert reasons["gain-above-threshold"] == budget.spent


def test_no_budget_is_never() -> None:
    assert decided(Policy(budget_per_day=0.0), asked()).reason == "budget"
    assert decided(Policy(cloud_share=0.0), asked()).reason == "gain-below-threshold"


def test_a_spent_budget_keeps_even_those_who_ask_to_think() -> None:
    router = Router(Policy(budget_per_day=2.0), FakeModel(0.9), now=lambda: 0.0)
    for _ in range(50):
        router.charge(RoutingDecision(turn_id="t", tier=Tier.CLOUD, reason="r", pool="qwen-14b"))
    assert router.decide(asked(THINK), OPEN).tier is Tier.CLOUD  # before the first plan
    assert router.decide(asked(THINK), OPEN).reason == "budget"
    assert router.decide(asked(), OPEN).reason == "budget"


def test_a_share_of_cloud_answers_is_met_by_what_is_paid_for() -> None:
    model, rng = FakeModel(), np.random.default_rng(3)
    router = Router(Policy(cloud_share=0.1), model, now=lambda: 0.0)
    sent = 0
    for number in range(12_000):
        model.gain = float(rng.uniform(0.2, 0.8))
        decision = router.decide(asked("你好"), OPEN)
        if decision.tier is Tier.CLOUD:
            router.charge(decision)
            sent += number >= 4000
    assert sent / 8000 == pytest.approx(0.1, abs=0.01)


def test_turns_while_the_cloud_is_away_are_not_owed_to_it() -> None:
    router = Router(Policy(cloud_share=0.1), FakeModel(), now=lambda: 0.0)
    for conditions in (Conditions(cloud_reachable=False), Conditions(closed_pools=frozenset({"qwen-14b"}))):
        for _ in range(1000):
            router.decide(asked(), conditions)
    assert router.decide(asked(), OPEN).threshold == pytest.approx(0.9, abs=0.001)


LEVELS = tuple(
    Promise(allowed=allowed, threshold=threshold, upper=allowed, cloud_share=1 - threshold)
    for allowed, threshold in ((0.02, 0.3), (0.05, 0.5))
)
PROMISES = Promises(model="fake", turns=1000, levels=LEVELS)


@pytest.mark.parametrize(("floor", "threshold"), [(0.95, 0.5), (0.97, 0.3), (0.9, 0.5)])
def test_a_quality_floor_takes_the_threshold_that_was_proven_and_the_strongest_pool(
    floor: float, threshold: float
) -> None:
    router = Router(Policy(quality_floor=floor, pools=POOLS), FakeModel(0.05), promises=PROMISES)
    decision = router.decide(asked(), OPEN)
    assert (decision.threshold, decision.pool) == (threshold, "qwen-72b")


@pytest.mark.parametrize(
    ("promises", "model", "floor", "said"),
    [
        (None, FakeModel(), 0.95, "needs a gain model and promises"),
        (PROMISES, None, 0.95, "needs a gain model and promises"),
        (PROMISES, FakeModel(), 0.99, r"only 0\.98, 0\.95"),
        (msgspec.structs.replace(PROMISES, model="older"), FakeModel(), 0.95, "made for the scores of older"),
    ],
)
def test_a_floor_nothing_was_proven_for_is_refused_and_the_old_policy_stays(
    promises: Promises | None, model: FakeModel | None, floor: float, said: str
) -> None:
    router = Router(Policy(threshold=0.4, version=1), model, promises=promises)
    with pytest.raises(ConfigError, match=said):
        router.change(Policy(quality_floor=floor, version=2))
    assert router.policy.version == router.decide(asked(), OPEN).policy == 1


ARMED = Policy(
    version=2,
    arms=(
        Arm(name="stay", share=0.5, changes=Changes(threshold=1.5)),
        Arm(name="go", share=0.5, changes=Changes(threshold=0.0, doubt=True)),
    ),
)


def test_each_device_follows_its_arm() -> None:
    router = Router(ARMED, FakeModel(-0.5))
    found = {(d := router.decide(asked(device=str(number)), OPEN)).arm: d.tier for number in range(50)}
    assert found == {"stay": Tier.EDGE, "go": Tier.CLOUD}
    device = next(str(number) for number in range(50) if router.policy_for(str(number)).doubt)
    assert router.decide(asked(device=device), OPEN).arm == "go"
    assert [policy.threshold for policy in router.policies()] == [0.7, 1.5, 0.0]


def test_a_change_holds_from_the_next_turn_on_and_old_decisions_can_still_be_charged() -> None:
    router = Router(ARMED, FakeModel(-0.5))
    gone = next(d for number in range(50) if (d := router.decide(asked(device=str(number)), OPEN)).arm == "go")
    router.change(Policy(version=3, budget_per_day=10.0, pools=(LARGE,)))
    router.charge(gone)
    budget = router.state[""].budget
    assert budget
    assert budget.spent == 1.0
    assert router.decide(asked(), OPEN).policy == 3


def test_money_spent_stays_spent_over_a_change_and_a_restart() -> None:
    router = Router(Policy(budget_per_day=50.0), FakeModel(), now=lambda: 0.0)
    for _ in range(7):
        router.charge(RoutingDecision(turn_id="t", tier=Tier.CLOUD, reason="r", pool="qwen-14b"))
    router.change(Policy(budget_per_day=80.0, version=2))
    kept = msgspec.json.decode(msgspec.json.encode(router.state), type=dict[str, LaneState])
    for model in (FakeModel(), None):
        budget = Router(router.policy, model, state=kept, now=lambda: 0.0).state[""].budget
        assert budget
        assert budget.spent == 7.0


def test_a_learned_threshold_outlives_a_restart_but_no_other_share() -> None:
    router = Router(Policy(cloud_share=0.3), FakeModel())
    for _ in range(500):
        router.decide(asked("你好", device="x"), Conditions(cloud_reachable=True))
    learned = router.decide(asked(), OPEN).threshold
    assert learned < 0.69
    assert Router(Policy(cloud_share=0.3), FakeModel(), state=router.state).decide(
        asked(), Conditions()
    ).threshold == pytest.approx(learned, abs=0.001)
    assert Router(Policy(cloud_share=0.4), FakeModel(), state=router.state).decide(asked(), OPEN).threshold == 0.6


def test_an_arms_budget_is_its_share_of_the_whole() -> None:
    arms = (Arm(name="a", share=0.25), Arm(name="b", share=0.75))
    router = Router(Policy(budget_per_day=1000.0, arms=arms), FakeModel(), now=lambda: 0.0)
    for _ in range(300):
        for name in ("a", "b"):
            router.charge(RoutingDecision(turn_id="t", tier=Tier.CLOUD, reason="r", pool="qwen-14b", arm=name))
    assert {router.decide(asked(device=str(number)), OPEN).arm for number in range(40)} == {"a", "b"}
    assert router.prices()["b"] < 1 < router.prices()["a"]


def test_money_spent_today_stays_spent_under_a_policy_without_a_budget_between() -> None:
    def routed(policy: Policy, state: RouterState) -> Router:
        return Router(policy, None, state=state, now=lambda: 1_700_000_000.0)

    budget = Policy(budget_per_day=10.0, router="complexity")
    first = routed(budget, {})
    first.charge(first.decide(asked(THINK), OPEN))
    spent = first.state[""].budget
    assert spent is not None
    assert spent.spent > 0
    between = routed(Policy(threshold=0.5, router="complexity"), first.state)
    between.change(budget)
    again = between.state[""].budget
    assert again is not None
    assert (again.day, again.spent) == (spent.day, spent.spent)


def test_a_text_the_model_does_not_know_is_scored_by_complexity() -> None:
    router = Router(Policy(threshold=0.5), FakeModel(0.9))
    assert router.decide(asked("an unknown tongue"), OPEN).reason == "below-threshold"
    assert router.decide(asked("a known tongue"), OPEN).reason == "gain-above-threshold"
