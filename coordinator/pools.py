"""The cloud's pools as one edge knows them: how to reach each, how it fared lately, and which may be asked."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Mapping

from coordinator.breaker import Breaker, Call, State
from coordinator.hedge import FirstTokens, HedgeBudget
from coordinator.routing.policy import Policy, PoolTerms
from models.engines import Completer


class Pools:
    """Breakers and first tokens by pool, and the budget for second calls."""

    def __init__(
        self,
        clouds: Mapping[str, Completer],
        *,
        now: Callable[[], float] = time.monotonic,
        dice: random.Random | None = None,
    ) -> None:
        self.hedges = HedgeBudget()
        self._clouds = clouds
        self._now = now
        self._dice = dice or random.Random()  # noqa: S311 - jitter is no secret
        self._breakers: dict[str, Breaker] = {}
        self._first_tokens: dict[str, FirstTokens] = {}

    def completer(self, name: str) -> Completer:
        """Return the way to a pool."""
        return self._clouds[name]

    def breaker(self, name: str) -> Breaker:
        """Return the pool's breaker."""
        return self._breakers.setdefault(name, Breaker(now=self._now, dice=self._dice))

    def first_tokens(self, name: str) -> FirstTokens:
        """Return how long the pool took to its first tokens."""
        return self._first_tokens.setdefault(name, FirstTokens())

    def states(self) -> dict[str, State]:
        """Return the state of each breaker that was ever needed, by pool."""
        return {name: breaker.state for name, breaker in self._breakers.items()}

    def closed(self, policy: Policy) -> frozenset[str]:
        """Return the policy's pools that are not to be asked now: no way to them, or an open breaker."""
        names = {pool.name for pool in policy.pools}
        return frozenset(name for name in names if name not in self._clouds or not self.breaker(name).takes_calls)

    def begin(self, name: str, *, may_probe: bool) -> Call | None:
        """Return a call to the pool, None when it is not to be asked, or only to be tried and ``may_probe`` says no."""
        if name not in self._clouds:
            return None
        breaker = self.breaker(name)
        if breaker.state is State.HALF_OPEN and not may_probe:
            return None
        return breaker.begin()


def next_pool(
    pools: Collection[PoolTerms], closed: Collection[str], *, gain_per_price: float, needs_vision: bool
) -> PoolTerms | None:
    """Return the strongest pool that is open, able, and worth its price if the cloud were sure to be right; None when there is none.

    ``gain_per_price`` is the gain that one unit of money must bring. Of equally strong ones the cheapest.
    """
    able = [
        pool
        for pool in pools
        if pool.name not in closed and (pool.vision or not needs_vision) and pool.strength > gain_per_price * pool.price
    ]
    return max(able, key=lambda pool: (pool.strength, -pool.price), default=None)
