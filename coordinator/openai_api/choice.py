"""Which pools are asked, in which order, and why; pure but for the router's account.

``auto`` goes where the routing policy sends it. Should that pool not speak, the others follow before the first word: after a cloud pool
the stronger ones first and the edge's model last, after the edge's model the cheaper ones first. A model asked for by name is asked alone.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence, Set

from msgspec.structs import replace

from coordinator.openai_api.refusals import Refusal
from coordinator.openai_api.request import Ask
from coordinator.routing.policy import Conditions, Policy, PoolTerms
from coordinator.routing.router import Router
from coordinator.turns import RoutingDecision, Tier
from models.prompts import Prompt

AUTO = "auto"
EDGE = "edge"
"""Name of the pool whose workers stand in front of an edge's kind of model. An edge node's own model answers its own devices only."""
ASKED_FOR = "asked-for"
GLANCE_CHARS = 8_000
"""Reading 64,000 characters to score them takes up to 90 ms, so many 8 ms; the loop waits meanwhile."""
NO_EDGE = "no-edge-here"
"""Reason of a prompt that the policy would have kept at an edge."""


def models(pools: Collection[str]) -> tuple[str, ...]:
    """Return what ``model`` may be."""
    return (AUTO, *sorted(pools))


def candidates(
    ask: Ask, router: Router, pools: Collection[str], conditions: Conditions, sees: Collection[str] = ()
) -> tuple[RoutingDecision, ...] | Refusal:
    """Return the decision for each pool to ask in turn, or why there is none.

    ``sees`` are pools that take pictures although the policy does not say so; only who asks for them by name gets there with one.
    """
    policy = router.policy_for(ask.prompt.device_id)
    if ask.model != AUTO:
        by_policy = {terms.name for terms in policy.pools if terms.vision}
        return _asked_for(ask, router.policy.version, pools, by_policy.union(sees))
    able = [terms for terms in policy.pools if terms.name in pools and (terms.vision or not ask.prompt.images)]
    first = router.decide(_glance(ask.prompt), conditions)
    wanted = EDGE if first.tier is Tier.EDGE else first.pool
    order = [name for name in _order(wanted, able, policy) if name == EDGE or name not in conditions.closed_pools]
    if not ask.prompt.images and EDGE in pools and EDGE not in order:
        order = [EDGE, *order] if wanted == EDGE else [*order, EDGE]
    if not order:
        return Refusal(
            status=503, message=_nobody(ask, policy), type="unavailable_error", param="model", code="cloud-unreachable"
        )
    return tuple(_step(first, name, wanted) for name in order)


def _glance(prompt: Prompt) -> Prompt:
    """Return the prompt with as much of a long question as is read to route it: both its ends."""
    last = prompt.messages[-1]
    if len(last.text) <= GLANCE_CHARS:
        return prompt
    half = GLANCE_CHARS // 2
    return replace(
        prompt, messages=(*prompt.messages[:-1], replace(last, text=f"{last.text[:half]}\n{last.text[-half:]}"))
    )


def _asked_for(ask: Ask, version: int, pools: Collection[str], sees: Set[str]) -> tuple[RoutingDecision, ...] | Refusal:
    if ask.model not in pools:
        what = "no edge's model is offered here" if ask.model == EDGE else "there is no such model"
        message = f"{what}: take one of {', '.join(models(pools))}"
        return Refusal(status=404, message=message, param="model", code="model_not_found")
    if ask.prompt.images and ask.model not in sees:
        able = ", ".join(sorted(sees & set(pools))) or "none here does"
        message = f"this model takes no pictures: {able}"
        return Refusal(status=400, message=message, param="model", code="unsupported_value")
    tier = Tier.EDGE if ask.model == EDGE else Tier.CLOUD
    return (RoutingDecision(turn_id=ask.prompt.turn_id, tier=tier, pool=ask.model, reason=ASKED_FOR, policy=version),)


def _order(wanted: str, able: Sequence[PoolTerms], policy: Policy) -> list[str]:
    if wanted == EDGE:
        if policy.is_never_cloud:
            return []
        return [terms.name for terms in sorted(able, key=lambda terms: (terms.price, -terms.strength))]
    strongest_first = sorted(able, key=lambda terms: (terms.name != wanted, -terms.strength, terms.price))
    return [terms.name for terms in strongest_first]


def _step(first: RoutingDecision, name: str, wanted: str) -> RoutingDecision:
    tier = Tier.EDGE if name == EDGE else Tier.CLOUD
    reason = first.reason if name == wanted else NO_EDGE
    return replace(first, tier=tier, pool=name, reason=reason)


def _nobody(ask: Ask, policy: Policy) -> str:
    if ask.prompt.images:
        return "no pool that takes pictures can be asked now: try again later"
    if policy.is_never_cloud:
        return "the routing policy keeps every prompt from the cloud and no edge's model is offered here: name a model"
    return "no pool can be asked now: try again later"
