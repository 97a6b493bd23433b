"""What a worker's pools look like at /metrics, read when somebody asks, so that a replica that left leaves no series behind."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cloud.replica import ReplicaLoad, State


class Pool(Protocol):
    """What is read of a pool."""

    name: str
    refused: int
    retried: int

    def loads(self) -> Sequence[ReplicaLoad]:
        """Return what is known of each replica."""
        ...


class PoolMetrics(Collector):
    """Register it once; ``wanted`` is the replicas each pool should have, by its name."""

    def __init__(self, pools: Iterable[Pool], wanted: Mapping[str, int]) -> None:
        self._pools = tuple(pools)
        self._wanted = wanted

    def describe(self) -> Iterator[Metric]:
        """Yield nothing: the registry then does not read the pools to learn the names."""
        yield from ()

    def collect(self) -> Iterator[Metric]:
        """Yield the families as they are now; where two replicas have one name, the one that does not drain counts."""
        at_pool, at_replica = ["pool"], ["pool", "replica"]
        state = GaugeMetricFamily("voice_cloud_replica_state", "1 at its state", labels=[*at_replica, "state"])
        outstanding = GaugeMetricFamily(
            "voice_cloud_replica_outstanding", "Requests this worker has there", labels=at_replica
        )
        ejections = CounterMetricFamily("voice_cloud_replica_ejections", "Times it was left alone", labels=at_replica)
        running = GaugeMetricFamily("voice_cloud_replica_running", "Requests it says it computes", labels=at_replica)
        waiting = GaugeMetricFamily("voice_cloud_replica_waiting", "Requests it says wait in it", labels=at_replica)
        usage = GaugeMetricFamily("voice_cloud_replica_kv_usage", "Its KV cache in use, in [0, 1]", labels=at_replica)
        refused = CounterMetricFamily("voice_cloud_pool_refused", "Requests refused for want of room", labels=at_pool)
        retried = CounterMetricFamily("voice_cloud_pool_retried", "Tries followed by another replica", labels=at_pool)
        wanted = GaugeMetricFamily("voice_cloud_pool_replicas_wanted", "Replicas it should have", labels=at_pool)
        for pool in self._pools:
            refused.add_metric([pool.name], pool.refused)
            retried.add_metric([pool.name], pool.retried)
            if pool.name in self._wanted:
                wanted.add_metric([pool.name], self._wanted[pool.name])
            for load in _by_name(pool.loads()):
                labels = [pool.name, load.name]
                state.add_metric([*labels, load.state.value], 1)
                outstanding.add_metric(labels, load.outstanding)
                ejections.add_metric(labels, load.ejections)
                for family, value in ((running, load.running), (waiting, load.waiting), (usage, load.kv_usage)):
                    if value is not None:
                        family.add_metric(labels, value)
        yield from (state, outstanding, ejections, running, waiting, usage, refused, retried, wanted)


def _by_name(loads: Sequence[ReplicaLoad]) -> Iterable[ReplicaLoad]:
    ordered = sorted(loads, key=lambda load: load.state is not State.DRAINING)
    return {load.name: load for load in ordered}.values()
