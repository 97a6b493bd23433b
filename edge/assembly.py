"""A brain put together by settings: engines behind their limits, memory, routing, voices; decides nothing itself."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial

from coordinator.bus import Bus
from coordinator.cache.answers import AnswerCache
from coordinator.cache.ladder import Ladder
from coordinator.hierarchy import Hierarchy
from coordinator.metrics import Metrics
from coordinator.routing.policy import Conditions
from coordinator.routing.router import Router
from coordinator.turns import RoutingDecision
from edge.brain.brain import Brain
from edge.brain.conversation import Limits as DialogueLimits
from edge.brain.groups import groups_from_json, is_one_of
from edge.brain.known_speech import KnownSpeech
from edge.brain.packets import SpeechMemory
from edge.brain.pipeline import Pipeline
from edge.brain.segmenter import Endpointing
from edge.brain.session import SessionOptions
from edge.brain.speaker import Speaker
from edge.brain.spoken_answers import SpokenAnswers
from edge.engines import Engines
from edge.observers import BrainMetrics
from edge.preloading.making import Maker
from edge.remembering import answers
from edge.routing import Roads, count_decision
from edge.sampling import HitSampler
from edge.settings import EdgeSettings
from models.engines import Completer, Recognizer
from models.errors import OverloadedError, RecognitionError, SynthesisError, VoiceError
from models.limited import LimitedCompleter, LimitedRecognizer, LimitedSynthesizer
from models.limits import AdaptiveLimit, Intake
from models.prompts import Prompt
from models.sightless import Sightless
from models.slots import Slots

LEEWAY = 4
"""How many times a stage's limit those who were let in may use: they are served, only nobody new comes in."""


@dataclass(frozen=True, slots=True)
class Intakes:
    """What each stage takes in at once, found from how long its calls take."""

    asr: Intake
    llm: Intake
    tts: Intake

    @property
    def are_full(self) -> bool:
        """Whether nobody new should be let in."""
        return self.asr.is_full or self.llm.is_full or self.tts.is_full

    @property
    def are_asked(self) -> bool:
        """Whether somebody is listened to or answered now."""
        return self.asr.inflight + self.llm.inflight > 0

    @property
    def are_busy(self) -> bool:
        """Whether any stage has anything to do."""
        return self.are_asked or self.tts.inflight > 0


def intakes(tolerance: float) -> Intakes:
    """Return the stages' limits, each under ``tolerance`` times the time its calls take in calm."""

    def intake(stage: str, refusal: type[VoiceError]) -> Intake:
        return Intake(stage, AdaptiveLimit(tolerance=tolerance, probes=False), leeway=LEEWAY, refusal=refusal)

    return Intakes(intake("asr", RecognitionError), intake("llm", OverloadedError), intake("tts", SynthesisError))


@dataclass(frozen=True, slots=True)
class Assembly:
    """A brain with what else uses its engines."""

    brain: Brain
    maker: Maker
    """Answers and speaks what nobody asked yet."""
    stages: Intakes


def _ignore(_key: str, _prompt: Prompt) -> None:
    """Count nothing."""


@asynccontextmanager
async def assembled(
    settings: EdgeSettings,
    engines: Engines,
    ladder: Ladder,
    router: Router,
    *,
    roads: Roads,
    nats: Bus,
    seam_bus: Bus,
    metrics: Metrics,
    asked: Callable[[str, Prompt], None] = _ignore,
) -> AsyncGenerator[Assembly, None]:
    """Yield a brain that is not running yet; its voices are closed when this is left. Raises ConfigError.

    ``asked`` hears of every memorable question with the key of its answer.
    """

    def observe(decision: RoutingDecision) -> None:
        brain.observe_decision(decision)
        count_decision(metrics, hierarchy, decision)

    stages = intakes(settings.stage_tolerance)
    speaker = _speaker(settings, engines, stages, ladder, metrics)
    edge, unhurried = Sightless(LimitedCompleter(engines.completer, stages.llm)), roads.unhurried()
    remembered = answers(settings, ladder)
    answering = partial(Hierarchy, router=router, conditions=partial(_conditions, nats))
    sampler = _sampler(settings, answering(edge, unhurried, AnswerCache(Ladder())), stages, metrics)
    hierarchy = answering(
        edge, roads, remembered, doubt_threshold=settings.doubt_below, observe=observe, recalled=sampler.hit
    )
    spoken = partial(SpokenAnswers, ladder, remembered, voice=engines.voice, qualities=speaker.qualities)
    known = spoken(observe=observe, recalled=sampler.hit, asked=asked)
    pipeline = Pipeline(_recognizer(settings, engines, stages, ladder), hierarchy, speaker, known)
    brain = _brain(settings, engines, stages, pipeline, nats, seam_bus, metrics)
    behind = answering(Sightless(engines.completer), unhurried, remembered)
    maker = Maker(pipeline, behind, remembered, spoken, language=settings.language, limits=_dialogue(settings))
    _show(metrics, brain, engines, stages, speaker)
    try:
        async with sampler.open():
            yield Assembly(brain, maker, stages)
    finally:
        await speaker.close()


def _conditions(nats: Bus) -> Conditions:
    return Conditions(cloud_reachable=nats.is_connected)


def _sampler(settings: EdgeSettings, fresh: Completer, stages: Intakes, metrics: Metrics) -> HitSampler:
    return HitSampler(
        fresh,
        share=settings.cache_sample,
        is_busy=lambda: stages.llm.inflight > 0,
        observe=lambda result: metrics.cache_samples.labels(result).inc(),
    )


def _brain(
    settings: EdgeSettings,
    engines: Engines,
    stages: Intakes,
    pipeline: Pipeline,
    nats: Bus,
    seam_bus: Bus,
    metrics: Metrics,
) -> Brain:
    return Brain(
        seam_bus,
        node_id=settings.node_id,
        edge_id=settings.node_id,
        brain_id=f"{settings.node_id}-brain",
        detector=engines.detector,
        turn_detector=engines.turn_detector,
        pipeline=pipeline,
        options=session_options(settings),
        max_sessions=settings.max_devices,
        is_overloaded=lambda: stages.are_full,
        observer=BrainMetrics(metrics),
        records=nats,
    )


def _recognizer(settings: EdgeSettings, engines: Engines, stages: Intakes, ladder: Ladder) -> Recognizer:
    limited = LimitedRecognizer(engines.recognizer, stages.asr)
    if not settings.transcript_cache:
        return limited
    return KnownSpeech(
        limited, ladder, settings.asr_model, lambda device_id: is_one_of(device_id, settings.private_patterns)
    )


def _speaker(settings: EdgeSettings, engines: Engines, stages: Intakes, ladder: Ladder, metrics: Metrics) -> Speaker:
    return Speaker(
        LimitedSynthesizer(engines.synthesizer, stages.tts),
        voice=engines.voice,
        words=engines.words,
        slots=Slots("opus", settings.encode_threads, max_waiting=8 * settings.max_devices, refusal=SynthesisError),
        memory=SpeechMemory(ladder),
        observe=lambda source: metrics.speech_sources.labels(source).inc(),
    )


def _dialogue(settings: EdgeSettings) -> DialogueLimits:
    return DialogueLimits(max_tokens=settings.max_tokens)


def session_options(settings: EdgeSettings) -> SessionOptions:
    """Return how devices are listened to; raise ConfigError for groups that cannot be read."""
    return SessionOptions(
        endpointing=Endpointing(
            end_silence_ms=settings.end_silence_ms,
            hint_silence_ms=min(settings.hint_silence_ms, settings.end_silence_ms),
            turn_threshold=settings.turn_threshold,
            turn_wait_ms=max(settings.turn_wait_ms, settings.end_silence_ms),
        ),
        groups=groups_from_json(settings.endpointing),
        private_devices=settings.private_patterns,
        limits=_dialogue(settings),
        language=settings.language,
        budget_s=settings.budget_s,
        partial_ms=settings.partial_ms,
    )


def _show(metrics: Metrics, brain: Brain, engines: Engines, stages: Intakes, speaker: Speaker) -> None:
    """Let the metrics read what is going on."""
    metrics.turns_running.set_function(lambda: brain.turns)
    for stage, waiting in {**engines.waiting, "opus": lambda: speaker.waiting}.items():
        metrics.queue_size.labels(stage).set_function(waiting)
    for stage, intake in {"asr": stages.asr, "llm": stages.llm, "tts": stages.tts}.items():
        metrics.stage_limit.labels(stage).set_function(partial(getattr, intake, "limit"))
        metrics.stage_inflight.labels(stage).set_function(partial(getattr, intake, "inflight"))
    metrics.encoding_level.set_function(lambda: speaker.quality.level)
