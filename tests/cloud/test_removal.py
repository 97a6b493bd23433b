from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.removal import SETTLE_S, Plan, Replica, plan

READY = Replica(name="a")
BUSY = Replica(name="b", requests=3)
STARTING = Replica(name="c", is_ready=False, requests=None)
DRAINING = Replica(name="d", is_draining=True, requests=1)
EMPTIED = Replica(name="e", is_draining=True, idle_s=SETTLE_S)
LOWERED = Replica(name="f", is_draining=True, is_first_to_go=True, idle_s=SETTLE_S)
SILENT = Replica(name="g", requests=None)
STRAINED = Replica(name="h", is_ready=False, requests=2)
WOKEN = Replica(name="i", is_draining=True, is_first_to_go=True, requests=1)


@pytest.mark.parametrize(
    ("replicas", "wanted", "steps"),
    [
        ([READY, BUSY], 2, Plan(replicas=2)),
        ([READY, BUSY], 3, Plan(replicas=3)),
        ([], 1, Plan(replicas=1)),
        ([], 0, Plan(replicas=0)),
        ([READY, BUSY], 1, Plan(drain=("a",), replicas=2)),  # the idlest
        ([SILENT, BUSY], 1, Plan(drain=("b",), replicas=2)),  # who says nothing may have more to do
        ([BUSY, DRAINING], 1, Plan(replicas=2)),  # wait
        ([BUSY, EMPTIED], 1, Plan(lower=("e",), replicas=2)),
        ([BUSY, LOWERED], 1, Plan(replicas=1)),
        ([BUSY, STARTING], 1, Plan(replicas=1)),  # Kubernetes takes it first
        ([LOWERED, STARTING], 1, Plan(keep=("f",), replicas=1)),  # so the drained one stays
        ([LOWERED, STRAINED], 1, Plan(keep=("f",), replicas=2)),  # it would take the strained one, which works
        ([LOWERED, WOKEN, READY], 1, Plan(replicas=3)),  # it might take either of the lowered
        ([READY, BUSY, LOWERED], 0, Plan(drain=("a", "b"), replicas=2)),
        ([DRAINING, EMPTIED, LOWERED], 3, Plan(keep=("d", "e", "f"), replicas=3)),  # the load came back
        ([READY, BUSY], -1, Plan(drain=("a", "b"), replicas=2)),
    ],
)  # fmt: skip
def test_pods_go_step_by_step(replicas: list[Replica], wanted: int, steps: Plan) -> None:
    assert plan(replicas, wanted) == steps


def test_a_pod_idle_for_a_moment_stays() -> None:
    hasty = Replica(name="a", is_draining=True, idle_s=SETTLE_S - 0.1)
    assert plan([hasty], 0) == Plan(replicas=1)


_replicas = st.lists(
    st.builds(
        Replica,
        name=st.uuids().map(str),
        is_ready=st.booleans(),
        is_draining=st.booleans(),
        is_first_to_go=st.booleans(),
        requests=st.none() | st.integers(0, 3),
        idle_s=st.sampled_from([0.0, SETTLE_S]),
    ),
    max_size=8,
)


@given(_replicas, st.integers(0, 9))
def test_nobody_who_works_is_ever_taken(replicas: list[Replica], wanted: int) -> None:
    steps = plan(replicas, wanted)
    assert steps.replicas >= min(wanted, len(replicas))
    gone = len(replicas) - steps.replicas
    if gone <= 0:
        return
    # Whom Kubernetes may take: not ready first, then lowest cost; among equals, anybody.
    ranked = sorted(replicas, key=lambda each: (each.is_ready, not each.is_first_to_go))
    last = (ranked[gone - 1].is_ready, not ranked[gone - 1].is_first_to_go)
    at_risk = [each for each in replicas if (each.is_ready, not each.is_first_to_go) <= last]
    assert not [each for each in at_risk if each.requests or (each.is_ready and each.requests is None)]


@given(_replicas, st.integers(0, 9))
def test_steps_never_contradict_each_other(replicas: list[Replica], wanted: int) -> None:
    steps = plan(replicas, wanted)
    named = [*steps.drain, *steps.lower, *steps.keep]
    assert len(named) == len(set(named))
    assert len(steps.drain) <= max(0, len(replicas) - wanted)
