from __future__ import annotations

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, generate_latest

from cloud.pool_metrics import PoolMetrics
from cloud.replica import ReplicaLoad, State


@dataclass
class Told:
    name: str
    told: list[ReplicaLoad]
    refused: int = 0
    retried: int = 3

    def loads(self) -> list[ReplicaLoad]:
        return self.told


def load(name: str, state: State = State.READY, **more: float) -> ReplicaLoad:
    return ReplicaLoad(
        **{"name": name, "state": state, "outstanding": 0, "limit": 8, "failures": 0, "ejections": 0, **more}
    )


def shown(*pools: Told, wanted: dict[str, int] | None = None) -> set[str]:
    registry = CollectorRegistry()
    registry.register(PoolMetrics(pools, wanted or {}))
    return {line for line in generate_latest(registry).decode().splitlines() if not line.startswith("#")}


def test_each_replica_has_its_figures_under_its_pool_and_name() -> None:
    pool = Told("qwen-72b", [load("a", outstanding=3, ejections=2, running=5, waiting=1, kv_usage=0.5)], refused=7)
    assert shown(pool, wanted={"qwen-72b": 8, "other": 1}) == {
        'voice_cloud_replica_state{pool="qwen-72b",replica="a",state="ready"} 1.0',
        'voice_cloud_replica_outstanding{pool="qwen-72b",replica="a"} 3.0',
        'voice_cloud_replica_ejections_total{pool="qwen-72b",replica="a"} 2.0',
        'voice_cloud_replica_running{pool="qwen-72b",replica="a"} 5.0',
        'voice_cloud_replica_waiting{pool="qwen-72b",replica="a"} 1.0',
        'voice_cloud_replica_kv_usage{pool="qwen-72b",replica="a"} 0.5',
        'voice_cloud_pool_refused_total{pool="qwen-72b"} 7.0',
        'voice_cloud_pool_retried_total{pool="qwen-72b"} 3.0',
        'voice_cloud_pool_replicas_wanted{pool="qwen-72b"} 8.0',
    }


def test_what_is_not_known_is_not_shown() -> None:
    assert not [line for line in shown(Told("p", [load("a")])) if "running" in line or "kv_usage" in line]


def test_a_replica_that_left_leaves_no_series() -> None:
    pool = Told("p", [load("a"), load("b")])
    registry = CollectorRegistry()
    registry.register(PoolMetrics([pool], {}))
    assert b'replica="b"' in generate_latest(registry)
    pool.told = [load("a")]
    assert b'replica="b"' not in generate_latest(registry)


def test_a_name_that_drains_and_is_back_is_shown_once() -> None:
    for told in ([load("a", State.DRAINING), load("a")], [load("a"), load("a", State.DRAINING)]):
        states = [line for line in shown(Told("p", told)) if "state=" in line]
        assert states == ['voice_cloud_replica_state{pool="p",replica="a",state="ready"} 1.0']


def test_pools_are_told_apart() -> None:
    lines = shown(Told("p", [load("a")]), Told("q", [load("a", State.AWAY)]))
    assert 'voice_cloud_replica_state{pool="q",replica="a",state="away"} 1.0' in lines
    assert 'voice_cloud_replica_state{pool="p",replica="a",state="ready"} 1.0' in lines
