from __future__ import annotations

from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from coordinator.cache.ladder import Ladder
from coordinator.cache.memory import MemoryTier
from coordinator.memory_bus import MemoryBus
from coordinator.metrics import Metrics
from edge.assembly import LEEWAY, assembled, intakes, session_options
from edge.brain.groups import endpointing_of
from edge.engines import Engines
from edge.routing import Roads, routed
from edge.settings import EdgeSettings
from models.errors import ConfigError, OverloadedError, RecognitionError, SynthesisError, VoiceError
from models.scripted import ScriptedCompleter, ScriptedDetector, ScriptedRecognizer, ScriptedSynthesizer
from tests.real_time import run


def settings(**fields: Any) -> EdgeSettings:
    return EdgeSettings.model_validate({"engines": "scripted", "auth": "off", **fields})


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


@pytest.mark.parametrize(
    ("stage", "refusal"), [("asr", RecognitionError), ("llm", OverloadedError), ("tts", SynthesisError)]
)
def test_a_stage_beyond_its_leeway_refuses_with_its_own_error(stage: str, refusal: type[VoiceError]) -> None:
    stages = intakes(3.0)
    intake = getattr(stages, stage)
    calls = [intake.call() for _ in range(intake.limit * LEEWAY)]
    for call in calls[: intake.limit - 1]:
        call.__enter__()
    assert not stages.are_full
    for call in calls[intake.limit - 1 :]:
        call.__enter__()
    assert stages.are_full
    with pytest.raises(refusal), intake.call():
        pass


def test_silences_out_of_order_are_put_in_order() -> None:
    rules = session_options(settings(end_silence_ms=2000, hint_silence_ms=180, turn_wait_ms=1500)).endpointing
    assert (rules.hint_silence_ms, rules.end_silence_ms, rules.turn_wait_ms) == (180, 2000, 2000)
    rules = session_options(settings(end_silence_ms=100, hint_silence_ms=180)).endpointing
    assert (rules.hint_silence_ms, rules.end_silence_ms) == (100, 100)


def test_a_group_of_devices_is_listened_to_by_its_own_rules() -> None:
    patient = '[{"devices": "AA:*", "endpointing": {"end_by": "silence", "end_silence_ms": 1200}}]'
    options = session_options(settings(endpointing=patient))
    assert endpointing_of("aa:01", options.groups, options.endpointing).end_silence_ms == 1200
    assert endpointing_of("bb:01", options.groups, options.endpointing).end_silence_ms == 500


@pytest.mark.parametrize(
    "text", ["{", "[1]", '[{"devices": "*", "silence": 3}]', '[{"devices": "*", "endpointing": {"speech_on": 7}}]']
)
def test_groups_that_cannot_be_read_are_a_config_error(text: str) -> None:
    with pytest.raises(ConfigError, match="endpointing"):
        session_options(settings(endpointing=text))


def test_an_assembled_brain_shows_its_stages_in_the_metrics() -> None:
    async def scenario() -> None:
        metrics = Metrics(CollectorRegistry())
        engines = Engines(
            ScriptedDetector(),
            ScriptedRecognizer(),
            ScriptedCompleter(),
            ScriptedSynthesizer(),
            waiting={"llm": lambda: 3},
        )
        bus = MemoryBus()
        async with (
            routed(settings(), metrics) as router,
            assembled(
                settings(),
                engines,
                Ladder(MemoryTier()),
                router,
                roads=Roads(bus, "edge-1"),
                nats=bus,
                seam_bus=bus,
                metrics=metrics,
            ) as assembly,
        ):
            assert assembly.brain.sessions == 0
            assert not assembly.stages.are_busy
            assert value(metrics, "processing_queue_size", stage="llm") == 3
            assert value(metrics, "processing_queue_size", stage="opus") == 0
            assert (value(metrics, "voice_stage_limit", stage="asr") or 0) > 0
            assert value(metrics, "voice_stage_inflight", stage="tts") == 0

    run(scenario())


@pytest.mark.parametrize(("text", "patterns"), [("", ()), (" aa:* ,,bb:* ", ("aa:*", "bb:*"))])
def test_private_devices_are_read_as_patterns(text: str, patterns: tuple[str, ...]) -> None:
    assert session_options(settings(private_devices=text)).private_devices == patterns
