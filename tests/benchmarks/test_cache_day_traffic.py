from __future__ import annotations

import numpy as np
import pytest

from benchmarks.cache_day_traffic import HOUR_S, HOURS, RHYTHM, Fleet, traffic_of

FLEET = Fleet(intents=1000, edges=4, groups=2, devices=50, days=3)


def test_traffic_is_the_same_for_a_seed() -> None:
    one, same = traffic_of(FLEET, 1), traffic_of(FLEET, 1)
    assert np.array_equal(one.at_s, same.at_s)
    assert np.array_equal(one.content, same.content)


def test_lookups_are_in_order_of_time_and_follow_the_day() -> None:
    traffic = traffic_of(FLEET, 1)
    assert np.all(np.diff(traffic.at_s) >= 0)
    by_hour = np.bincount((traffic.at_s // HOUR_S).astype(int) % HOURS, minlength=HOURS)
    assert by_hour / by_hour.sum() == pytest.approx(np.array(RHYTHM) / sum(RHYTHM), abs=0.01)
    assert set(traffic.edge.tolist()) == {0, 1, 2, 3}


def test_new_contents_are_not_asked_for_before_they_came_up() -> None:
    traffic = traffic_of(FLEET, 1)
    assert np.all(traffic.at_s >= traffic.born_s[traffic.content])
    assert len(traffic.born_s) == pytest.approx(1000 + 3 * 20, abs=6)
    assert (traffic.content >= 1000).any()


def test_steeper_popularity_asks_for_fewer_contents() -> None:
    flat, steep = (traffic_of(Fleet(intents=1000, days=1, alpha=alpha), 1) for alpha in (0.7, 1.2))
    assert len(np.unique(steep.content)) < len(np.unique(flat.content))


def test_sizes_have_the_stated_means() -> None:
    traffic = traffic_of(Fleet(days=1), 1)
    assert traffic.speech_bytes.mean() == pytest.approx(24_500, rel=0.05)
    assert traffic.answer_bytes.mean() == pytest.approx(310, rel=0.05)
