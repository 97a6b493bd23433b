"""Every metric any process exports, in one table; built on a registry that is handed in."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from coordinator.turns import TurnRecord

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
"""Bucket bounds around the promises: 50 ms, 300 ms, 500 ms, 2 s, 3 s."""


class Metrics:
    """The table. The five names without ``voice_`` are what existing alert rules look for."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.registry = registry
        self.http_seconds = Histogram(
            "http_request_duration_seconds",
            'Requests by handler; handler="voice-turn" is end of speech to first audio',
            ["handler", "method", "status"],
            registry=registry,
            buckets=_SECONDS,
        )
        self.active_devices = Gauge("active_devices", "Devices connected to this gateway", registry=registry)
        self.inference_errors = Counter(
            "model_inference_errors", "Turns that failed, by stage and error code", ["stage", "code"], registry=registry
        )
        self.queue_size = Gauge("processing_queue_size", "Calls waiting for an engine", ["stage"], registry=registry)
        self.turns = Counter("voice_turns", "Finished turns", ["outcome", "tier"], registry=registry)
        self.turns_running = Gauge("voice_brain_turns_running", "Turns under way in this brain", registry=registry)
        self.sessions = Gauge("voice_brain_sessions", "Sessions open in this brain", registry=registry)
        self.stage_seconds = Histogram(
            "voice_stage_seconds", "Time of one stage of a turn", ["stage"], registry=registry, buckets=_SECONDS
        )
        self.first_audio_seconds = Histogram(
            "voice_first_audio_seconds", "End of speech to first audio", ["tier"], registry=registry, buckets=_SECONDS
        )
        self.dropped = Counter("voice_dropped", "Messages or packets dropped, by kind", ["kind"], registry=registry)
        self.violations = Counter("voice_device_violations", "What devices did wrong", ["code"], registry=registry)
        self.sessions_ended = Counter("voice_sessions_ended", "Ended sessions by reason", ["reason"], registry=registry)
        self.gap_seconds = Histogram(
            "voice_gap_seconds", "Silences inside answers, as devices heard them", registry=registry, buckets=_SECONDS
        )
        self.slot_wait_seconds = Histogram(
            "voice_slot_wait_seconds", "Waits for an engine's slot", ["slot"], registry=registry, buckets=_SECONDS
        )
        self.bus_connected = Gauge("voice_bus_connected", "1 while NATS answers", registry=registry)
        self.cloud_running = Gauge(
            "voice_cloud_requests_running", "Requests this worker has upstream", registry=registry
        )
        self.cloud_requests = Counter(
            "voice_cloud_requests", "Requests this worker took, by result", ["result"], registry=registry
        )
        self.edges_alive = Gauge("voice_edges_alive", "Edges heard of lately", registry=registry)
        Gauge("voice_build_info", "Version of this process", ["version"], registry=registry).labels(installed()).set(1)
        self._add_cache(registry)
        self._add_speaking(registry)
        self._add_doors(registry)
        self._add_routing(registry)

    def _add_cache(self, registry: CollectorRegistry) -> None:
        """Add what tells how much is remembered."""
        self._looked_up = 0
        self._hits = 0
        self.cache_hit_rate = Gauge("cache_hit_rate", "Share of cache look-ups answered, in [0, 1]", registry=registry)
        self.cache_requests = Counter(
            "voice_cache_requests",
            "Look-ups and writes by tier, kind of value and result",
            ["tier", "kind", "result"],
            registry=registry,
        )
        self.cache_samples = Counter(
            "voice_cache_samples",
            "Hits asked again: the answers agree or differ, or asking failed",
            ["result"],
            registry=registry,
        )
        self.preloads = Counter(
            "voice_preloads",
            "Contents this edge loaded or made before anybody asked, by what came of it",
            ["action", "result"],
            registry=registry,
        )
        self.preload_renders = Counter(
            "voice_preload_renders",
            "Contents any edge made before anybody asked: used if somebody asked within the hour, else wasted",
            ["result"],
            registry=registry,
        )
        self.cache_bytes = Gauge("voice_cache_bytes", "What a tier of this process holds", ["tier"], registry=registry)
        self.cache_entries = Gauge("voice_cache_entries", "Values a tier holds", ["tier"], registry=registry)

    def _add_speaking(self, registry: CollectorRegistry) -> None:
        """Add what tells how near its limits a brain is."""
        self.stage_limit = Gauge("voice_stage_limit", "Calls a stage takes in at once", ["stage"], registry=registry)
        self.stage_inflight = Gauge("voice_stage_inflight", "Calls of a stage under way", ["stage"], registry=registry)
        self.speech_sources = Counter(
            "voice_speech_sentences",
            "Sentences spoken: hit, joined or miss of the cache",
            ["source"],
            registry=registry,
        )
        self.encoding_level = Gauge(
            "voice_encoding_level", "0 is the best quality of speech, more is cheaper", registry=registry
        )

    def _add_doors(self, registry: CollectorRegistry) -> None:
        """Add what tells how those are served who come by HTTP."""
        self.api_requests = Counter(
            "voice_api_requests",
            "Chat completions, by pool that spoke and result",
            ["pool", "result"],
            registry=registry,
        )
        self.boots = Counter("voice_boots", "Boot requests of devices, by result", ["result"], registry=registry)
        self.photos = Counter("voice_photos", "Pictures that devices posted, by result", ["result"], registry=registry)

    def _add_routing(self, registry: CollectorRegistry) -> None:
        """Add what tells how prompts are shared out."""
        self.decisions = Counter(
            "voice_routing_decisions", "Where prompts went and why", ["tier", "pool", "reason"], registry=registry
        )
        self.breaker_closed = Gauge(
            "voice_pool_breaker_closed",
            "1 while a pool is asked, 0 while it is left alone",
            ["pool"],
            registry=registry,
        )
        self.hedges = Gauge("voice_hedged_calls", "Second calls made since the start", registry=registry)
        self.policy_version = Gauge(
            "voice_policy_version", "Version of the policy in force; 0 is the process's own", registry=registry
        )
        self.policy_refused = Counter(
            "voice_policy_refused", "Policies not put in force or not saved", ["reason"], registry=registry
        )

    def observe_turn(self, record: TurnRecord) -> None:
        """Count a finished turn and its times."""
        tier = record.decisions[-1].tier if record.decisions else "none"
        self.turns.labels(record.outcome, tier).inc()
        if record.marks.first_audio_ms is not None:
            seconds = (record.marks.endpoint_wait_ms + record.marks.first_audio_ms) / 1000
            self.first_audio_seconds.labels(tier).observe(seconds)
            self.http_seconds.labels("voice-turn", "TURN", record.outcome).observe(seconds)

    def observe_cache(self, kind: str, tier: str, result: str) -> None:
        """Count a look-up in, or a write to, one tier; the ladder's overall rate follows from the first tier's questions."""
        self.cache_requests.labels(tier, kind, result).inc()
        self._looked_up += tier == "memory"
        self._hits += result == "hit"
        if self._looked_up:
            self.cache_hit_rate.set(self._hits / self._looked_up)


def installed() -> str:
    """Return the installed version, "0" when run from a tree that is not installed."""
    try:
        return version("xiaozhi-fleet")
    except PackageNotFoundError:
        return "0"
