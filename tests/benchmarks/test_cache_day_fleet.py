from __future__ import annotations

import msgspec
import numpy as np
import pytest

from benchmarks.cache_day_fleet import Setup, foresee, run
from benchmarks.cache_day_traffic import HOUR_S, HOURS, Fleet, Traffic, traffic_of

FLEET = Fleet(intents=200, edges=2, groups=1, devices=20, days=3)


@pytest.fixture(scope="module")
def traffic() -> Traffic:
    return traffic_of(FLEET, 1)


def test_same_day_with_lru_gives_the_same_figures(traffic: Traffic) -> None:
    foresight = foresee(traffic)
    setup = Setup(near_bytes=1_000_000, policy="lru", near_days=3)
    assert run(traffic, foresight, setup) == run(traffic, foresight, setup)


def test_forecast_of_an_hour_does_not_depend_on_what_comes_later(traffic: Traffic) -> None:
    hour = 2 * HOURS + 12
    kept = traffic.at_s < hour * HOUR_S
    cut = msgspec.structs.replace(
        traffic, at_s=traffic.at_s[kept], edge=traffic.edge[kept], content=traffic.content[kept]
    )
    whole, blind = foresee(traffic), foresee(cut)
    assert np.array_equal(whole.at_edge[hour], blind.at_edge[hour])
    assert np.array_equal(whole.in_fleet[hour], blind.in_fleet[hour])


def test_tiers_that_keep_nothing_hit_nothing(traffic: Traffic) -> None:
    setup = Setup(near_bytes=0, preloads=False, redis_ttl_s=0, store_ttl_s=1e-9, near_days=3)
    assert run(traffic, foresee(traffic), setup).rate() == 0


def test_new_voice_empties_all_tiers_and_the_wanted_is_made_ahead(traffic: Traffic) -> None:
    foresight = foresee(traffic)
    setup = Setup(near_bytes=10_000_000, near_days=3)
    upgraded = msgspec.structs.replace(setup, upgrade_hour=18)
    plain, after = run(traffic, foresight, setup), run(traffic, foresight, upgraded)
    assert after.rate() < plain.rate()
    assert after.made > 0
    assert after.made_never <= after.made_not_in_hour <= after.made


def test_rates_of_kinds_and_tiers_add_up(traffic: Traffic) -> None:
    outcome = run(traffic, foresee(traffic), Setup(near_bytes=500_000, near_days=3))
    assert sum(outcome.rate(tier=tier) for tier in ("near", "redis", "store")) == pytest.approx(outcome.rate())
    assert outcome.asked["answer"] == outcome.asked["speech"]
    assert outcome.rate(kind="answer") == pytest.approx(outcome.rate(kind="speech"), abs=0.02)
