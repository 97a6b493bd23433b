from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.routing_scores import (
    apgr,
    cpt,
    curve,
    difference,
    figures,
    interval,
    oracle,
    realised,
    replicates,
    shares,
)

EDGE = np.array([0.0, 0, 1, 1, 1])
CLOUD = np.array([1.0, 1, 1, 0, 1])


def test_equal_scores_are_as_good_as_random():
    assert apgr(np.zeros(5), CLOUD - EDGE) == pytest.approx(0.5)


def test_oracle_takes_gains_first_and_losses_last():
    # corners of the curve in fifths: 0, 1, 2, 2, 2, 1 of a gap of 1
    assert apgr(oracle(EDGE, CLOUD), CLOUD - EDGE) == pytest.approx((0.5 + 1.5 + 2 + 2 + 1.5) / 5)


@given(st.permutations(range(5)))
def test_order_of_equal_scores_does_not_matter(order):
    scores, gain = np.array([2.0, 1, 1, 1, 0]), CLOUD - EDGE
    assert apgr(scores[list(order)], gain[list(order)]) == pytest.approx(apgr(scores, gain))


def test_curve_runs_from_none_to_all():
    found = curve(np.arange(5.0), CLOUD - EDGE)
    assert (found.calls[0], found.calls[-1]) == (0, 1)
    assert found.gained[-1] == pytest.approx(np.mean(CLOUD - EDGE))


@pytest.mark.parametrize(("share", "calls"), [(0.5, 0.1), (1.0, 0.2), (0.0, 0.0)])
def test_cpt_is_the_first_share_of_calls_that_recovers_enough(share, calls):
    assert cpt(oracle(EDGE, CLOUD), CLOUD - EDGE, share) == pytest.approx(calls)


def test_without_a_gap_there_is_no_figure():
    assert np.isnan(apgr(np.arange(2.0), np.array([1.0, -1])))
    assert np.isnan(cpt(np.arange(2.0), np.array([1.0, -1]), 0.5))


def test_shares_count_who_is_right():
    found = shares(EDGE, CLOUD)
    assert (found["both_wrong"], found["edge_only_right"], found["cloud_only_right"]) == (0.0, 0.2, 0.4)


def test_interval_holds_the_figure_and_is_the_same_again():
    rng = np.random.default_rng(1)
    gain = (rng.random(400) < 0.4).astype(float)
    scores = gain + rng.normal(size=400)
    found = figures(scores, np.zeros(400), gain)
    assert found["interval"][0] < found["apgr"] < found["interval"][1]
    assert found == figures(scores, np.zeros(400), gain)


def test_a_resampling_counts_ties_like_the_figure_does():
    gain = np.array([1.0, 0, 1, 0, 1, 1])
    assert replicates(np.zeros(6), gain, count=7) == pytest.approx(np.full(7, 0.5))


def test_whole_clusters_widen_the_interval():
    rng = np.random.default_rng(1)
    clusters = np.repeat(np.arange(20), 20)
    gain = (rng.random(20) < 0.5).astype(float)[clusters]
    scores = rng.random(20)[clusters]
    alone, together = (interval(replicates(scores, gain, clusters=c)) for c in (None, clusters))
    assert together[1] - together[0] > 2 * (alone[1] - alone[0])


def test_a_router_does_not_differ_from_itself():
    scores, gain = np.arange(5.0), CLOUD - EDGE
    assert difference(scores, scores, gain) == {"apgr": 0.0, "interval": [0.0, 0.0]}


def test_a_threshold_brings_calls_and_loss():
    found = realised(np.array([0.9, 0.1, 0.1, 0.8, 0.1]), 0.7, EDGE, CLOUD, price=2.0)
    assert found == {"cloud_share": 0.4, "cost": 0.8, "quality": 0.6, "loss": 0.2}
