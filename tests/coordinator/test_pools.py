from __future__ import annotations

import pytest

from coordinator.breaker import Outcome
from coordinator.pools import Pools, next_pool
from coordinator.routing.policy import PoolTerms
from tests.coordinator.sources import OTHER, POOL, Source, policy_of

BIG = PoolTerms(name="big", price=4.0, strength=1.0)
SMALL = PoolTerms(name="small", price=1.0, strength=0.8)
CHEAP = PoolTerms(name="cheap", price=0.5, strength=0.8)
EYES = PoolTerms(name="eyes", price=4.0, strength=0.7, vision=True)


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def broken(pools: Pools, name: str) -> None:
    for _ in range(5):
        call = pools.begin(name, may_probe=False)
        assert call is not None
        call.ended(Outcome.BAD)


def test_a_pool_is_closed_behind_its_breaker_or_without_a_way_to_it() -> None:
    pools = Pools({POOL: Source(), "third": Source()}, now=Clock())
    policy = policy_of([POOL, OTHER])
    assert pools.closed(policy) == {OTHER}
    assert pools.begin(OTHER, may_probe=True) is None
    broken(pools, POOL)
    assert pools.closed(policy) == {POOL, OTHER}
    assert pools.begin(POOL, may_probe=True) is None
    assert pools.states()[POOL] == "open"
    assert pools.closed(policy_of(["third"])) == frozenset(), "each pool has its own"


def test_a_pool_is_tried_by_one_call_that_may() -> None:
    clock = Clock()
    pools = Pools({POOL: Source()}, now=clock)
    broken(pools, POOL)
    clock.now_s = 1.3
    assert pools.begin(POOL, may_probe=False) is None
    call = pools.begin(POOL, may_probe=True)
    assert call is not None
    assert call.is_probe
    assert pools.closed(policy_of()) == {POOL}
    call.ended(Outcome.GOOD)
    assert pools.closed(policy_of()) == frozenset()


@pytest.mark.parametrize(
    ("closed", "gain_per_price", "needs_vision", "name"),
    [
        ((), 0.0, False, "big"),
        (("big",), 0.0, False, "cheap"),
        (("big", "cheap"), 0.0, False, "small"),
        ((), 0.3, False, "cheap"),
        ((), 2.0, False, None),
        ((), 0.0, True, "eyes"),
        (("eyes",), 0.0, True, None),
        (("big", "small", "cheap", "eyes"), 0.0, False, None),
    ],
)
def test_the_next_pool_is_the_strongest_that_may_be_asked(
    closed: tuple[str, ...], gain_per_price: float, needs_vision: bool, name: str | None
) -> None:
    found = next_pool((SMALL, BIG, CHEAP, EYES), closed, gain_per_price=gain_per_price, needs_vision=needs_vision)
    assert (found and found.name) == name
