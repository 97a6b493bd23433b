from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from coordinator.buckets import MemoryBucket
from coordinator.memory_bus import MemoryBus
from coordinator.metrics import Metrics
from edge.assembly import assembled
from edge.engines import Engines
from edge.preloading.first_words import FIRST_WORDS
from edge.preloading.service import is_wanted, preloading, reporter
from edge.remembering import remembering
from edge.routing import Roads, routed
from edge.settings import EdgeSettings
from models.errors import ConfigError
from models.scripted import ScriptedCompleter, ScriptedDetector, ScriptedRecognizer, ScriptedSynthesizer
from tests.real_time import run


def settings(**fields: Any) -> EdgeSettings:
    return EdgeSettings.model_validate({"engines": "scripted", "auth": "off", **fields})


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [({}, True), ({"preload_mib": 0}, False), ({"answer_cache": False}, False), ({"cache_scope": "device"}, False)],
)
def test_nothing_is_prepared_where_nothing_could_be_used(fields: dict[str, Any], *, wanted: bool) -> None:
    assert is_wanted(settings(**fields)) is wanted


async def prepare(here: EdgeSettings, metrics: Metrics, made: int) -> ScriptedCompleter:
    """Run the preloading of a node until so many contents were made."""
    completer = ScriptedCompleter(unknown="你好。")
    engines = Engines(ScriptedDetector(), ScriptedRecognizer(), completer, ScriptedSynthesizer(ms_per_character=10))
    bus, bucket = MemoryBus(), MemoryBucket()
    reports = reporter(here, bus)
    async with (
        remembering(here, metrics) as tiers,
        routed(here, metrics) as router,
        assembled(
            here,
            engines,
            tiers.ladder,
            router,
            roads=Roads(bus, "edge-1"),
            nats=bus,
            seam_bus=bus,
            metrics=metrics,
            asked=reports.asked,
        ) as assembly,
        preloading(here, assembly, tiers, bucket, reports, metrics),
        asyncio.timeout(20),
    ):
        while value(metrics, action="make", result="done") < made:  # noqa: ASYNC110  # made in threads: nothing to wait on
            await asyncio.sleep(0.01)
    return completer


def value(metrics: Metrics, **labels: str) -> float:
    return metrics.registry.get_sample_value("voice_preloads_total", labels) or 0.0


def test_a_node_that_is_idle_prepares_what_people_say_first_and_the_operators_own_questions(tmp_path: Path) -> None:
    path = tmp_path / "questions.txt"
    path.write_text("熊猫吃什么\n", encoding="utf-8")
    metrics = Metrics(CollectorRegistry())
    words = sum(map(len, FIRST_WORDS.values())) + 1
    completer = run(prepare(settings(preload_calm_s=0.1, preload_questions=path), metrics, words))
    assert len(completer.prompts) == words
    assert completer.prompts[-1].question == "熊猫吃什么"


def test_a_file_of_questions_that_is_not_there_ends_the_start(tmp_path: Path) -> None:
    metrics = Metrics(CollectorRegistry())
    with pytest.raises(ConfigError, match="questions"):
        run(prepare(settings(preload_questions=tmp_path / "questions.txt"), metrics, 1))


def test_a_node_that_prepares_nothing_runs_all_the_same() -> None:
    metrics = Metrics(CollectorRegistry())
    completer = run(prepare(settings(preload_mib=0), metrics, 0))
    assert not completer.prompts
