from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from coordinator import wire
from coordinator.breaker import Outcome
from coordinator.buckets import MemoryBucket
from coordinator.cache.answers import AnswerCache
from coordinator.cache.ladder import Ladder
from coordinator.hierarchy import Hierarchy
from coordinator.memory_bus import MemoryBus
from coordinator.metrics import Metrics
from coordinator.remote import Asker
from coordinator.routing.policy import Conditions, Policy, policy_document
from coordinator.turns import RoutingDecision, Tier
from coordinator.wire import POLICY_KEY
from edge.routing import Roads, count_decision, routed
from edge.settings import EdgeSettings
from models.errors import ConfigError
from models.prompts import Message, Prompt
from models.scripted import ScriptedCompleter
from tests.real_time import run

HARD = Prompt(
    turn_id="t", messages=(Message(role="user", text="think hard about the meaning of it all, step by step"),)
)


def settings(**fields: Any) -> EdgeSettings:
    return EdgeSettings(engines="scripted", auth="off", **fields)


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


async def in_force(metrics: Metrics, version: int) -> None:
    async with asyncio.timeout(60):
        while value(metrics, "voice_policy_version") != version:  # noqa: ASYNC110 - a metric tells nobody
            await asyncio.sleep(0.01)


def test_the_settings_are_the_policy_until_the_fleet_has_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        metrics, bucket = Metrics(CollectorRegistry()), MemoryBucket()
        here = settings(pool="qwen-72b", router="complexity", threshold=0.4, first_token_s=2, state_dir=tmp_path)
        async with routed(here, metrics, bucket) as router:
            policy = router.policy
            assert (policy.router, policy.threshold, policy.first_token_ms) == ("complexity", 0.4, 2000)
            assert router.decide(HARD, Conditions()).pool == "qwen-72b"

            await bucket.put(POLICY_KEY, policy_document(Policy(version=7, threshold=2.0)))
            await in_force(metrics, 7)
            assert router.decide(HARD, Conditions()).tier is Tier.EDGE

            await bucket.put(POLICY_KEY, b'{"threshold": "high"}')
            async with asyncio.timeout(60):
                while value(metrics, "voice_policy_refused_total", reason="invalid") != 1:  # noqa: ASYNC110 - a metric tells nobody
                    await asyncio.sleep(0.01)
            assert router.policy.version == 7
        # The next start knows it without a bucket that answers.
        metrics = Metrics(CollectorRegistry())
        async with routed(here, metrics, MemoryBucket()):
            await in_force(metrics, 7)

    run(scenario())


def test_promises_that_cannot_be_read_are_a_config_error(tmp_path: Path) -> None:
    async def scenario() -> None:
        with pytest.raises(ConfigError, match=r"no\.json"):
            async with routed(settings(promises=tmp_path / "no.json"), Metrics(CollectorRegistry())):
                pass

    run(scenario())


def test_there_is_a_road_to_every_pool_a_policy_may_name() -> None:
    roads = Roads(MemoryBus(), "edge-1")
    assert "qwen-vl" in roads
    assert 3 not in roads
    assert roads["qwen-vl"] is roads["qwen-vl"]
    assert list(roads) == ["qwen-vl"]
    assert len(roads) == 1
    with pytest.raises(ConfigError, match="subject"):
        _ = roads["a.b"]


def test_what_nobody_waits_for_takes_the_same_roads_at_the_lowest_priority() -> None:
    async def scenario() -> None:
        bus = MemoryBus()
        async with bus.subscribe("voice.complete.p.edge-1") as requests, Asker.open(bus, "edge-1") as asker:
            for roads, priority in (
                (here := Roads(bus, "edge-1", asker=asker), wire.TURN),
                (here.unhurried(), wire.PRELOAD),
            ):
                async with aclosing(roads["p"].complete(HARD)) as deltas:
                    asking = asyncio.create_task(anext(deltas))
                    request = wire.decode_request((await anext(aiter(requests))).payload)
                    assert request.priority == priority
                    asking.cancel()
                    await asyncio.wait([asking])

    run(scenario())


def test_decisions_and_breakers_are_shown() -> None:
    async def scenario() -> None:
        metrics = Metrics(CollectorRegistry())
        cloud = ScriptedCompleter()
        async with routed(settings(), metrics) as router:
            hierarchy = Hierarchy(cloud, {"qwen-14b": cloud}, AnswerCache(Ladder()), router)
            decision = RoutingDecision(turn_id="t", tier=Tier.CLOUD, pool="qwen-14b", reason="complex")
            count_decision(metrics, hierarchy, decision)
            labels = {"tier": "cloud", "pool": "qwen-14b", "reason": "complex"}
            assert value(metrics, "voice_routing_decisions_total", **labels) == 1
            assert value(metrics, "voice_pool_breaker_closed", pool="qwen-14b") == 1
            assert value(metrics, "voice_hedged_calls") == 0
            for _ in range(5):
                breaker = hierarchy.pools.breaker("qwen-14b")
                call = breaker.begin()
                assert call is not None
                call.ended(Outcome.BAD)
            assert value(metrics, "voice_pool_breaker_closed", pool="qwen-14b") == 0

    run(scenario())
