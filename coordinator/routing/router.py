"""From a prompt and the state of the world to a decision with its reason: rules, then the gain against what the cloud costs now."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import msgspec
from msgspec.structs import replace

from coordinator.routing.arms import arm_of
from coordinator.routing.budget import BINS, BudgetLoop, BudgetState, ShareLoop
from coordinator.routing.complexity import complexity
from coordinator.routing.policy import Arm, Conditions, Policy, PoolTerms
from coordinator.routing.promise import Promises
from coordinator.routing.rules import rule
from coordinator.routing.signals import scored_text
from coordinator.routing.wording import plain
from coordinator.turns import RoutingDecision, Tier
from models.errors import ConfigError
from models.prompts import Prompt

_GRID = 400
"""Steps of gain from -1 to 1 by which scores are turned back into gains."""


class Predicted(Protocol):
    """What a gain model says of a text."""

    @property
    def gain(self) -> float:
        """Probability that the cloud is right minus that the edge is, in [-1, 1]."""


class Predictor(Protocol):
    """A gain model, as ``gain.GainModel``."""

    name: str

    def predict(self, text: str) -> Predicted:
        """Return the probabilities for a plain text."""

    def covers(self, text: str) -> bool:
        """Return whether anything is known of such texts; others are scored by complexity."""

    def score(self, gain: float) -> float:
        """Return the share in [0, 1] of calibration prompts with less gain."""


class LaneState(msgspec.Struct, kw_only=True):
    """What the loop of one arm must remember."""

    scale: str = ""
    """Name of the gain model the figures are in, "" for complexity; others begin anew."""
    cloud_share: float | None = None
    threshold: float | None = None
    """At which ``cloud_share`` was met lately."""
    budget: BudgetState | None = None


RouterState = dict[str, LaneState]
"""By arm, "" for devices outside all; plain data for msgspec."""


class _Rating(NamedTuple):
    score: float
    """In [0, 1]."""
    worth: float
    """What the cloud would gain; the score itself where no gain is predicted."""


class _Lane:
    """A policy as one arm follows it, with the loop that moves its threshold or its price."""

    def __init__(self, policy: Policy, share: float, scale: _Scale, threshold: float | None, state: LaneState) -> None:
        self.policy = policy
        self.scale = scale
        efficiency = max(pool.strength / pool.price for pool in policy.pools)
        self._efficiency = efficiency
        self._fixed = threshold
        self.shares = ShareLoop(policy.cloud_share, _threshold_of(state, policy, scale)) if policy.cloud_share else None
        self.budget: BudgetLoop | None = None
        self._other_budget = _budget_of(state, scale)
        if policy.budget_per_day:
            self.budget = BudgetLoop(
                policy.budget_per_day * max(share, 1e-6),
                policy.pools,
                utc_offset_h=policy.utc_offset_h,
                expected=scale.expected,
                state=self._other_budget,
                now=scale.now,
            )

    @property
    def threshold(self) -> float:
        """Score from which the cloud is asked now."""
        if self.budget is not None:
            return self.scale.score(min(self.budget.price / self._efficiency, 1.0))
        if self.shares is not None:
            return self.shares.threshold
        return 1.0 if self._fixed is None else self._fixed

    @property
    def price(self) -> float:
        """Gain that a unit of money must bring now."""
        if self.budget is not None:
            return self.budget.price
        if self.policy.quality_floor is not None:
            return 0.0  # the promise was made for the strongest
        return max(self.scale.gain(self.threshold), 0.0) * self._efficiency

    def pool_for(self, worth: float, pools: Sequence[PoolTerms]) -> PoolTerms | None:
        """Return the pool with the largest gain beyond its price; with a budget, None when none is worth its price."""
        price = self.price
        best, most = None, (float("-inf"), 0.0)
        for pool in pools:
            value = (pool.strength * max(worth, 0.0) - price * pool.price, pool.strength)
            if value > most:
                best, most = pool, value
        return None if self.budget is not None and most[0] <= 0 else best

    def observe(self, worth: float | None, *, is_open: bool) -> None:
        """Count a turn; ``worth`` is None for one that a rule kept here, ``is_open`` whether the cloud could be asked."""
        if self.shares is not None and is_open:
            self.shares.observe()
        if self.budget is not None and worth is not None:
            self.budget.observe(worth)

    def state(self) -> LaneState:
        return LaneState(
            scale=self.scale.name,
            cloud_share=self.policy.cloud_share,
            threshold=self.shares.threshold if self.shares else None,
            budget=self.budget.state if self.budget else self._other_budget,
        )


class _Scale:
    """From gains to scores and back: by the model's calibration, or one and the same without a model."""

    def __init__(self, model: Predictor | None, now: Callable[[], float]) -> None:
        self.now = now
        self.name = model.name if model else ""
        self._model = model
        self._marks = [model.score(2 * step / _GRID - 1) for step in range(_GRID + 1)] if model else []
        self.expected = self._expected() if model else ()

    def score(self, gain: float) -> float:
        return self._model.score(gain) if self._model else min(max(gain, 0.0), 1.0)

    def gain(self, score: float) -> float:
        if not self._model:
            return score
        return 2 * min(bisect_left(self._marks, score), _GRID) / _GRID - 1

    def _expected(self) -> tuple[float, ...]:
        ends = [self.score(step / BINS) for step in range(BINS + 1)]
        shares = [max(high - low, 0.0) for low, high in zip(ends, [*ends[1:-1], 1.0], strict=False)]
        return (*shares, ends[0])


def _threshold_of(state: LaneState, policy: Policy, scale: _Scale) -> float | None:
    is_same = (state.scale, state.cloud_share) == (scale.name, policy.cloud_share)
    return state.threshold if is_same else None


def _budget_of(state: LaneState, scale: _Scale) -> BudgetState | None:
    if state.budget is None or state.scale == scale.name:
        return state.budget
    return replace(state.budget, gains=[])  # money and hours are the same whatever is predicted


class Router:
    """Decides each turn by the policy in force. Called on the loop, not thread-safe; costs what reading and predicting cost."""

    def __init__(
        self,
        policy: Policy,
        model: Predictor | None,
        *,
        promises: Promises | None = None,
        state: RouterState | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """Put the policy in force; ``now`` is seconds since 1970. Raises ConfigError for a floor nothing was proven for."""
        self._model = model
        self._promises = promises
        self._gains, self._complexities = _Scale(model, now), _Scale(None, now)
        self._prices: dict[str, float] = {}
        self._lanes = self._lanes_of(policy, state or {})
        self._policy = policy

    @property
    def policy(self) -> Policy:
        """The policy in force, arms and all."""
        return self._policy

    def policy_for(self, device_id: str) -> Policy:
        """Return the policy as the device's arm follows it."""
        return self._lane(device_id)[1].policy

    def policies(self) -> tuple[Policy, ...]:
        """Return the policy as the arms follow it, that of the devices outside all first."""
        return tuple(lane.policy for lane in self._lanes.values())

    @property
    def state(self) -> RouterState:
        """What to keep for a restart; a copy."""
        return {name: lane.state() for name, lane in self._lanes.items()}

    def prices(self) -> dict[str, float]:
        """Return for each arm the gain that one unit of money must bring now."""
        return {name: lane.price for name, lane in self._lanes.items()}

    def change(self, policy: Policy) -> None:
        """Put another policy in force for the turns to come; money spent today stays spent. Raises ConfigError, the old one then stays."""
        self._lanes = self._lanes_of(policy, self.state)
        self._policy = policy

    def charge(self, decision: RoutingDecision) -> None:
        """Count a cloud answer that was really paid for, by the pool in the decision."""
        lane = self._lanes.get(decision.arm, self._lanes[""])
        if lane.shares is not None:
            lane.shares.charge()
        if lane.budget is not None:
            lane.budget.charge(self._prices.get(decision.pool, 0.0))

    def decide(self, prompt: Prompt, conditions: Conditions) -> RoutingDecision:
        """Return where the prompt goes first, and why: a rule that holds comes before the score."""
        arm, lane = self._lane(prompt.device_id)
        text = plain(prompt.question)
        found = rule(prompt, text)
        gain = self._predicted(lane.policy, scored_text(prompt, text))
        score = complexity(prompt) if gain is None else self._gains.score(gain)
        decision = RoutingDecision(
            turn_id=prompt.turn_id,
            tier=Tier.EDGE,
            reason="",
            score=round(score, 4),
            threshold=round(lane.threshold, 4),
            gain=round(gain or 0.0, 4),
            policy=self._policy.version,
            arm=arm,
        )
        open_pools = _open_pools(lane.policy, conditions, needs_vision=found is not None and found.needs_vision)
        if found is not None and found.tier is Tier.EDGE:
            lane.observe(None, is_open=bool(open_pools))
            return replace(decision, reason=found.reason)
        rating = _Rating(score, score if gain is None else gain)
        worth = rating.worth if found is None else 1.0
        is_wanted, reason = _wanted(lane, rating, forced=found.reason if found else "", is_predicted=gain is not None)
        pool = lane.pool_for(worth, open_pools)
        lane.observe(worth, is_open=bool(open_pools))
        if not is_wanted:
            return replace(decision, reason=reason)
        if pool is None:
            return replace(decision, reason="pools-closed" if conditions.cloud_reachable else "cloud-unreachable")
        if lane.budget is not None:
            lane.budget.buy(pool.price)
        return replace(decision, tier=Tier.CLOUD, reason=reason, pool=pool.name)

    def _predicted(self, policy: Policy, text: str) -> float | None:
        if self._model is None or policy.router == "complexity" or not self._model.covers(text):
            return None
        return self._model.predict(text).gain

    def _lane(self, device_id: str) -> tuple[str, _Lane]:
        arm = arm_of(device_id, self._policy.arms)
        name = arm.name if arm else ""
        return name, self._lanes[name]

    def _lanes_of(self, policy: Policy, states: RouterState) -> dict[str, _Lane]:
        rest = max(1 - sum(arm.share for arm in policy.arms), 0.0)
        everyone = Arm(name="rest", share=rest)
        lanes = {"": self._lane_of(policy, everyone, states.get(""))}
        for arm in policy.arms:
            try:
                lanes[arm.name] = self._lane_of(policy, arm, states.get(arm.name))
            except ValueError as error:
                raise ConfigError(f"policy: arm {arm.name}: {error}") from error
        for lane in lanes.values():
            self._prices |= {pool.name: pool.price for pool in lane.policy.pools}
        return lanes

    def _lane_of(self, policy: Policy, arm: Arm, state: LaneState | None) -> _Lane:
        own = policy.in_arm(arm)
        is_predicted = self._model is not None and own.router == "gain"
        scale = self._gains if is_predicted else self._complexities
        return _Lane(own, arm.share, scale, self._threshold(own, is_predicted=is_predicted), state or LaneState())

    def _threshold(self, policy: Policy, *, is_predicted: bool) -> float | None:
        if policy.quality_floor is None:
            return policy.threshold
        if not is_predicted or self._model is None or self._promises is None:
            raise ConfigError("policy: quality_floor needs a gain model and promises made for it from known outcomes")
        if self._promises.model != self._model.name:
            raise ConfigError(
                f"policy: quality_floor: the promises were made for the scores of {self._promises.model}, not of {self._model.name}"
            )
        threshold = self._promises.threshold(policy.quality_floor)
        if threshold is None:
            proven = ", ".join(f"{1 - level.allowed:g}" for level in self._promises.levels)
            raise ConfigError(f"policy: quality_floor: nothing so strict was proven, only {proven or 'nothing'}")
        return threshold


def _wanted(lane: _Lane, rating: _Rating, *, forced: str, is_predicted: bool) -> tuple[bool, str]:
    """Return whether the cloud is worth asking at all, were every pool open, and why."""
    above, below = ("gain-above-threshold", "gain-below-threshold") if is_predicted else ("complex", "below-threshold")
    if lane.policy.is_never_cloud:
        return False, "budget" if lane.policy.budget_per_day == 0 else below
    if lane.budget is not None:
        if lane.pool_for(1.0 if forced else rating.worth, lane.policy.pools) is None:
            return False, "budget" if forced or rating.worth > 0 else below
        return True, forced or above
    if forced:
        return True, forced
    return (True, above) if rating.score >= lane.threshold else (False, below)


def _open_pools(policy: Policy, conditions: Conditions, *, needs_vision: bool) -> list[PoolTerms]:
    if not conditions.cloud_reachable:
        return []
    open_pools = [pool for pool in policy.pools if pool.name not in conditions.closed_pools]
    return [pool for pool in open_pools if pool.vision] if needs_vision else open_pools
