"""An edge's routing put together by settings: the policy in force and where it comes from, the ways to the pools, what metrics show of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from coordinator import wire
from coordinator.breaker import State
from coordinator.buckets import Bucket
from coordinator.bus import Bus
from coordinator.hierarchy import Hierarchy
from coordinator.metrics import Metrics
from coordinator.policy_watch import PolicyWatch
from coordinator.remote import Asker, RemoteCompleter
from coordinator.router_state import kept_state, read_state
from coordinator.routing.gain import GainModel
from coordinator.routing.policy import Policy, PoolTerms
from coordinator.routing.promise import PACKAGED, read_promises
from coordinator.routing.router import Router
from coordinator.turns import RoutingDecision
from edge.background import running
from edge.settings import EdgeSettings
from models.engines import Completer


@asynccontextmanager
async def routed(
    settings: EdgeSettings, metrics: Metrics, policies: Bucket | None = None
) -> AsyncGenerator[Router, None]:
    """Yield a router that follows the policy in ``policies``, and the settings' own until there is one; raise ConfigError."""
    router = await asyncio.to_thread(_router, settings)
    metrics.policy_version.set_function(lambda: router.policy.version)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(kept_state(router, settings.state_dir))
        if policies is not None:
            watch = PolicyWatch(
                policies,
                router.change,
                state_dir=settings.state_dir,
                refused=lambda reason: metrics.policy_refused.labels(reason).inc(),
            )
            await stack.enter_async_context(running(watch.run(), "policy-watch"))
        yield router


def _router(settings: EdgeSettings) -> Router:
    """Return the router with the settings' own policy in force. Blocks; raises ConfigError."""
    policy = Policy(
        router=settings.router,
        threshold=settings.threshold,
        pools=_pools(settings),
        first_token_ms=1000 * settings.first_token_s,
    )
    promises = read_promises(settings.promises or PACKAGED)
    return Router(policy, GainModel.load(), promises=promises, state=read_state(settings.state_dir))


def _pools(settings: EdgeSettings) -> tuple[PoolTerms, ...]:
    """Return the settings' pools; the one that sees answers text only in place of the other."""
    text = PoolTerms(name=settings.pool, vision=settings.pool == settings.vision_pool)
    if not settings.vision_pool or text.vision:
        return (text,)
    return text, PoolTerms(name=settings.vision_pool, vision=True, strength=_EYES_STRENGTH)


_EYES_STRENGTH = 0.5
"""Of the pool that sees, for text: below the other's, so that it is asked last. A guess."""


class Roads(Mapping[str, Completer]):
    """A way over NATS to every pool a policy may name, made when first asked for; whether somebody serves it is found out by asking."""

    def __init__(
        self,
        nats: Bus,
        edge_id: str,
        *,
        asker: Asker | None = None,
        first_token_ms: Callable[[], int] = lambda: 0,
        priority: int = wire.TURN,
    ) -> None:
        """``asker`` is the process's ear, without one each request has its own; ``first_token_ms`` is how long a first token is waited for."""
        self._nats = nats
        self._edge_id = edge_id
        self._asker = asker
        self._first_token_ms = first_token_ms
        self._priority = priority
        self._made: dict[str, Completer] = {}

    def unhurried(self) -> Roads:
        """Return the same ways for what nobody waits for."""
        return Roads(self._nats, self._edge_id, asker=self._asker, priority=wire.PRELOAD)

    def __getitem__(self, pool: str) -> Completer:
        """Return the way; raise ConfigError for a name that cannot stand in a subject."""
        if pool not in self._made:
            self._made[pool] = RemoteCompleter(
                self._nats,
                wire.token(pool),
                self._edge_id,
                asker=self._asker,
                first_token_ms=self._first_token_ms,
                priority=self._priority,
            )
        return self._made[pool]

    def __contains__(self, pool: object) -> bool:
        """Return whether it is a name at all."""
        return isinstance(pool, str)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the pools asked so far."""
        return iter(self._made)

    def __len__(self) -> int:
        """Return how many were asked so far."""
        return len(self._made)


@asynccontextmanager
async def asking(settings: EdgeSettings, nats: Bus, router: Router) -> AsyncGenerator[Roads, None]:
    """Yield the ways to the pools, with one ear for all answers; raise CloudUnreachableError when NATS does not confirm it."""
    async with Asker.open(nats, settings.node_id) as asker:
        yield Roads(nats, settings.node_id, asker=asker, first_token_ms=lambda: round(router.policy.first_token_ms))


def count_decision(metrics: Metrics, hierarchy: Hierarchy, decision: RoutingDecision) -> None:
    """Count a decision, and show the breaker of the pool it names from now on."""
    metrics.decisions.labels(decision.tier, decision.pool, decision.reason).inc()
    metrics.hedges.set(hierarchy.pools.hedges.seconds)
    if decision.pool:
        breaker = hierarchy.pools.breaker(decision.pool)
        metrics.breaker_closed.labels(decision.pool).set_function(lambda: breaker.state is State.CLOSED)
