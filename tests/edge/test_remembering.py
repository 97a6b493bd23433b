from __future__ import annotations

import json
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from coordinator.cache.keys import key_of
from coordinator.cache.kinds import TERMS, Kind, TierName
from coordinator.metrics import Metrics
from edge.remembering import answers, lasting, remembering
from models.errors import ConfigError
from models.prompts import Message, Prompt
from tests import virtual_time
from tests.edge.test_app import settings

PROMPT = Prompt(turn_id="t", device_id="d", messages=(Message(role="user", text="水的沸点是多少度"),))


@pytest.mark.parametrize(
    ("named", "names"),
    [
        ({}, []),
        ({"redis_url": "redis://127.0.0.1:1/0"}, ["redis"]),
        ({"redis_url": "redis+cluster://127.0.0.1:1"}, ["redis"]),
        ({"s3_url": "http://127.0.0.1:1"}, ["object-store"]),
        ({"redis_url": "redis://127.0.0.1:1/0", "s3_url": "http://127.0.0.1:1"}, ["redis", "object-store"]),
    ],
)
def test_the_settings_name_the_tiers_and_none_need_be_up(named: dict[str, str], names: list[str]) -> None:
    async def work() -> None:
        async with remembering(settings(**named), Metrics(CollectorRegistry())) as tiers:
            assert list(tiers.ladder.writes_waiting) == names
            assert tiers.has_far is bool(names)

    virtual_time.run(work())


def test_a_node_with_nothing_beyond_its_memory_keeps_as_long_as_any_tier_would() -> None:
    terms = lasting(TERMS)
    assert {terms.of(TierName.MEMORY, kind) for kind in Kind} == {30 * 86_400.0}
    assert terms.of(TierName.REDIS, Kind.ANSWER) == 0.0


def test_a_file_of_the_seeds_says_what_is_kept_where(tmp_path: Path) -> None:
    path = tmp_path / "cache.json"
    path.write_text(json.dumps({"L1_memory": {"size": "1MB", "ttl": 10, "types": ["llm_responses"]}}))

    async def work() -> None:
        async with remembering(settings(cache_config=path), Metrics(CollectorRegistry())) as tiers:
            for kind in Kind:
                tiers.ladder.put(key_of(kind, "a"), b"v")
                assert (tiers.ladder.near(key_of(kind, "a")) is not None) is (kind is Kind.ANSWER)

    virtual_time.run(work())


def test_a_file_that_cannot_be_read_ends_the_start(tmp_path: Path) -> None:
    async def work() -> None:
        async with remembering(settings(cache_config=tmp_path / "none"), Metrics(CollectorRegistry())):
            pass

    with pytest.raises(ConfigError, match="none"):
        virtual_time.run(work())


def test_answers_are_not_remembered_when_the_settings_say_so_and_are_of_the_models_in_force() -> None:
    async def work() -> None:
        async with remembering(settings(), Metrics(CollectorRegistry())) as tiers:
            assert answers(settings(answer_cache=False), tiers.ladder).key(PROMPT) is None
            keys = {
                answers(settings(**changes), tiers.ladder).key(PROMPT)
                for changes in ({}, {"llm_model": "other"}, {"pool": "other"}, {"cache_scope": "device"})
            }
            assert len(keys) == 4

    virtual_time.run(work())


def test_what_is_held_is_shown() -> None:
    async def work() -> None:
        metrics = Metrics(CollectorRegistry())
        async with remembering(settings(), metrics) as tiers:
            tiers.ladder.put(key_of(Kind.ANSWER, "a"), b"v" * 1000)
            held = metrics.registry.get_sample_value("voice_cache_bytes", {"tier": "memory"})
            assert held is not None
            assert held > 1000
            assert metrics.registry.get_sample_value("voice_cache_entries", {"tier": "memory"}) == 1

    virtual_time.run(work())
