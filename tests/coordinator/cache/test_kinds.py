from __future__ import annotations

import pytest

from coordinator.cache.keys import key_of
from coordinator.cache.kinds import TERMS, Kind, Terms, TierName, kind_of


@pytest.mark.parametrize("kind", Kind)
def test_a_key_names_its_kind(kind: Kind) -> None:
    assert kind_of(key_of(kind, "a", "b")) == kind


@pytest.mark.parametrize(("tier", "ttl_s"), list(zip(TierName, (604_800.0, 86_400.0, 2_592_000.0), strict=True)))
def test_every_kind_is_kept_a_week_in_memory_a_day_in_redis_and_a_month_in_s3(tier: TierName, ttl_s: float) -> None:
    assert {TERMS.of(tier, kind) for kind in Kind} == {ttl_s}


def test_what_is_not_named_is_not_kept() -> None:
    terms = Terms(ttl_s={TierName.REDIS: {Kind.ANSWER: 5.0}})
    assert terms.of(TierName.REDIS, Kind.ANSWER) == 5.0
    assert terms.of(TierName.REDIS, Kind.SPEECH) == terms.of(TierName.MEMORY, Kind.ANSWER) == 0.0
