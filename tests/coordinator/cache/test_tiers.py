from __future__ import annotations

import pytest

from coordinator.cache.memory import MemoryTier
from coordinator.cache.object_store import ObjectStoreTier
from coordinator.cache.redis_tier import RedisTier
from coordinator.cache.tiers import FarTier, Leasing, NearTier


@pytest.mark.parametrize(("tier", "leases"), [(MemoryTier, False), (RedisTier, True), (ObjectStoreTier, False)])
def test_redis_alone_lets_one_node_at_a_time_make_a_value(tier: type, leases: bool) -> None:
    assert isinstance(tier.__new__(tier), Leasing) is leases


@pytest.mark.parametrize(
    ("tier", "contract"), [(MemoryTier, NearTier), (RedisTier, FarTier), (ObjectStoreTier, FarTier)]
)
def test_a_tier_has_every_verb_of_its_contract(tier: type, contract: type) -> None:
    verbs = {name for name in vars(contract) if not name.startswith("_")}
    assert verbs <= set(dir(tier))
