"""What an edge node can be told, by environment variables with the prefix EDGE_."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from coordinator.doubt import DOUBTFUL
from coordinator.routing.complexity import THRESHOLD
from coordinator.settings import ProcessSettings
from coordinator.wire import token
from edge.brain.groups import groups_from_json
from models.variants import Variant

SCRIPTED = "scripted"
"""Name of engines that answer nothing real."""
MIN_SECRET_CHARS = 16
"""Shorter secrets can be guessed."""


def _half_the_cores() -> int:
    return max(1, (os.cpu_count() or 2) // 2)


class EdgeSettings(ProcessSettings):
    """Settings of the gateway, the brain, or both in one process."""

    model_config = SettingsConfigDict(env_prefix="EDGE_", frozen=True, populate_by_name=True)

    node_id: str = Field("edge-1", validation_alias=AliasChoices("EDGE_NODE_ID", "NODE_ID"))
    """Name of this node on NATS and in bootstrap; 1 to 64 letters, digits, '-' or '_'."""
    region: str = ""
    """Where the node stands; bootstrap prefers an edge of the device's region."""
    http_port: int = Field(8001, ge=0, le=65535)
    """Port of /metrics, /healthz and /readyz."""

    gateway_host: str = "127.0.0.1"
    gateway_port: int = Field(8000, ge=0, le=65535)
    """Port devices connect to."""
    public_websocket_url: str = ""
    """Address devices are told; made of gateway_host and gateway_port when empty."""
    vision_host: str = "127.0.0.1"
    vision_port: int = Field(0, ge=0, le=65535)
    """Port to which devices' cameras post pictures, in the brain's process. 0 takes a free one if the gateway is the same process; else
    no pictures are taken."""
    public_vision_url: str = ""
    """Address devices are told for it; made of vision_host and vision_port when empty."""
    max_devices: int = Field(150, ge=1, le=100_000)
    max_refusing: int = Field(50, ge=0, le=1000)
    """Devices beyond max_devices that are told at once that there is no room; more get an HTTP 503."""
    stage_tolerance: float = Field(3.0, ge=1, le=20)
    """How many times its calm time a stage may take before devices are turned away; a guess."""
    auth: Literal["token", "off"] = "token"
    """"off" lets every device in: for a bench without bootstrap only."""
    device_token_secret: SecretStr = SecretStr("")
    """The coordinator's COORDINATOR_DEVICE_TOKEN_SECRET; needed by the gateway unless auth is off."""
    idle_s: float = Field(110.0, gt=0, lt=120)
    """Silence after which a session is closed; devices misbehave after 120 s."""

    engines: Literal["real", "scripted"] = "real"
    """"scripted" answers nothing real and says so at start: for load tests only."""
    models_root: Path | None = None
    """Directory of models; $XIAOZHI_FLEET_MODELS or ~/.cache/xiaozhi-fleet/models when not set."""
    providers: str = "CPUExecutionProvider"
    """Execution providers of ONNX Runtime with commas between them, most wanted first, e.g.
    "TensorrtExecutionProvider,CUDAExecutionProvider,CPUExecutionProvider"; those this machine lacks are passed over."""
    vad_variant: Variant | Literal["auto"] = "auto"
    """Variant of the voice detector; others than fp32 are made by: xiaozhi-fleet models quantize silero-vad. "auto" is "batched" (the same
    numbers, half the work) where that was made, else fp32."""
    vad_wait_ms: float = Field(5.0, ge=0, le=20)
    """How long a frame may wait for those of other devices."""
    turn_model: str = ""
    """Model that tells a pause from the end of a turn, e.g. smart-turn-v3.2; silence alone decides when empty."""
    llm_model: str = "qwen2.5-coder-0.5b-instruct-q4_k_m"
    """Name in the catalogue, the path of a GGUF file (with a "/"), or "scripted" for load tests."""
    llm_slots: int = Field(8, ge=1, le=64)
    """Answers written at the same time; more wait."""
    llm_context_tokens: int = Field(4096, ge=256, le=32_768)
    """Longest dialogue with its answer."""
    llm_cache_tokens: int = Field(8192, ge=256, le=1_048_576)
    """Memory that all dialogues share, running and idle: 12 KiB a token with the 0.5B model, 192 KiB with Qwen1.5-1.8B."""
    llm_max_waiting: int = Field(16, ge=0, le=256)
    """Prompts that may wait for a slot; more are refused, and the cloud is asked."""
    asr_model: str = "whisper-base"
    """Name in the catalogue or the path (with a "/") of a directory: Whisper for CTranslate2, or SenseVoice as FunASR exports it."""
    asr_batch: int = Field(0, ge=0, le=32)
    """Utterances SenseVoice hears in one call; 0 lets it choose: 8 on a GPU, 1 on a CPU, where more gain nothing and delay the first."""
    asr_workers: int = Field(2, ge=1, le=64)
    """Calls of SenseVoice at once, one thread each."""
    asr_itn: bool = True
    """Whether SenseVoice writes numbers as digits and sets punctuation."""
    mandarin_voice: str = "kokoro-voice-zf_xiaobei"
    english_voice: str = "piper-en-us-joe-medium"
    asr_threads: int = Field(2, ge=1, le=64)
    """Threads of Whisper."""
    llm_threads: int = Field(default_factory=_half_the_cores, ge=1, le=64)
    """Half the cores when not set: llama.cpp's threads wait for each other at every step, so one that has to share its core stalls all."""
    tts_threads: int = Field(2, ge=1, le=64)
    encode_threads: int = Field(1, ge=1, le=64)
    """Threads that encode Opus: one encodes for 150 devices."""
    scripted_first_token_s: float = Field(0.2, ge=0, le=60)
    scripted_token_s: float = Field(0.0, ge=0, le=10)
    """Pace of a scripted language model."""
    scripted_answer: str = "这是{turn}的回答。它有两句话。"
    """What it answers; {turn} becomes the turn's id, {count} the number of answers so far."""
    language: Literal["zh", "en"] = "zh"
    """Language of devices whose record names none."""
    end_silence_ms: int = Field(500, ge=100, le=5000)
    """Silence that ends an utterance."""
    hint_silence_ms: int = Field(180, ge=60, le=5000)
    """Silence after which transcribing begins, at most end_silence_ms; thrown away when the person goes on speaking."""
    turn_threshold: float = Field(0.9, ge=0, le=1)
    """Probability from which the turn model's word ends an utterance at once; Smart Turn's own 0.5 cuts off twice as often."""
    turn_wait_ms: int = Field(1500, ge=100, le=10_000)
    """Silence that ends an utterance of which the turn model said that it goes on; at least end_silence_ms."""
    endpointing: str = ""
    """Device groups as a JSON list: [{"devices": "aa:bb:*", "endpointing": {"end_by": "silence", "end_silence_ms": 900}}]."""
    private_devices: str = ""
    """Shell patterns of device ids with commas between them, e.g. "aa:bb:*,cc:*": what these ask never leaves the edge, and is not
    remembered."""
    partial_ms: int = Field(600, ge=0, le=10_000)
    """Speech after which what is said over an answer is transcribed while it goes on; 0 for never."""
    max_tokens: int = Field(128, ge=8, le=4096)
    """Longest answer; 128 tokens are about 40 s of speech."""
    budget_s: float = Field(30.0, gt=0, le=600)
    """How long a turn may go on without saying anything new."""

    pool: str = "qwen-14b"
    """Cloud pool that gets the hard prompts. This and the next three are the policy until the fleet has one (xiaozhi-fleet policy)."""
    vision_pool: str = "qwen-vl"
    """Cloud pool that looks at pictures; none are taken when empty."""
    router: Literal["gain", "complexity"] = "complexity"
    """What is scored: what the cloud would gain, or how hard a prompt looks."""
    threshold: float = Field(THRESHOLD, ge=0, le=2)
    """Score from which the cloud is asked; above 1 it never is."""
    first_token_s: float = Field(4.0, gt=0, le=60)
    """How long the cloud may be silent before the edge answers."""
    jetstream_domain: str = "hub"
    """JetStream domain of the hub that keeps the policy; empty for a NATS server without domains."""
    state_dir: Path | None = None
    """Directory in which the policy in force and today's spending outlive a restart; made when needed, not kept when not set."""
    doubt_below: float = Field(DOUBTFUL, ge=-20, le=0)
    """Mean log-probability of its first tokens below which the edge model hands over, where the policy has "doubt"; measured for the
    starter model."""
    promises: Path | None = None
    """Promises for a policy with a quality floor, made from known outcomes; those shipped with the gain model when not set."""

    answer_cache: bool = True
    """Whether answers are remembered; off for load tests in which everybody says the same."""
    transcript_cache: bool = False
    """Whether the very same sound is recognised only once: for benches that play recordings, for people never say a thing twice so."""
    cache_sample: float = Field(0.0, ge=0, le=1)
    """Share of the hits that are asked again in the background and compared, while nobody waits: voice_cache_samples tells how often the
    answers differ. It costs what asking costs."""
    cache_other_words: bool = False
    """Whether a question asked in other words is answered from memory as well, where both surely mean the same; figures:
    python -m benchmarks cache."""
    cache_scope: Literal["all", "group", "device"] = "all"
    """For whom an answer is remembered: everybody, the edges of the same EDGE_REGION, or the device that asked."""
    cache_mib: int = Field(64, ge=0, le=65536)
    """First cache tier, this process's memory: answers and spoken sentences as Opus packets; 64 MiB are about 4 hours of speech."""
    cache_config: Path | None = None
    """File with CACHE_CONFIG: L1_memory, L2_redis, L3_storage, each with size, ttl and types. All kinds for a week, a day and 30 days when
    not set; a node with neither Redis nor S3 keeps everything for 30 days, as far as it has room."""
    preload_mib: int = Field(32, ge=0, le=65536)
    """Memory, beside cache_mib, for what this edge will be asked for in the hour, as the coordinator foretells it. 0 prepares nothing, and
    reports nothing of what is asked."""
    preload_confidence: float = Field(0.8, ge=0.5, le=1)
    """Probability over which an answer nobody has yet is made before anybody asks."""
    preload_budget_s: float = Field(120.0, ge=0, le=3600)
    """Engines' time each hour may take for that, in which nobody needs them."""
    preload_calm_s: float = Field(5.0, ge=0.1, le=3600)
    """Seconds in which nobody was heard or answered, before something is made."""
    preload_questions: Path | None = None
    """File of questions, one a line ("en: ..." for English ones), that are answered and spoken at the start beside greetings."""
    redis_url: str = ""
    """Second cache tier, e.g. redis://redis:6379/0, or redis+cluster://node:6379 for a cluster; none when empty."""
    s3_url: str = ""
    """Third cache tier, e.g. http://object-store:8333; none when empty."""
    s3_bucket: str = "xiaozhi-cache"
    s3_access_key: str = ""
    s3_secret_key: SecretStr = SecretStr("")

    @field_validator("node_id")
    @classmethod
    def _fits_a_subject(cls, node_id: str) -> str:
        return token(node_id.replace(".", "-"))

    @field_validator("endpointing")
    @classmethod
    def _can_be_read(cls, endpointing: str) -> str:
        groups_from_json(endpointing)
        return endpointing

    @property
    def execution_providers(self) -> tuple[str, ...]:
        """Providers of ONNX Runtime, most wanted first."""
        return tuple(name.strip() for name in self.providers.split(",") if name.strip())

    @property
    def llm_name(self) -> str:
        """Name of the edge's language model in answers and cache keys."""
        return Path(self.llm_model).stem if "/" in self.llm_model else self.llm_model

    @property
    def private_patterns(self) -> tuple[str, ...]:
        """Shell patterns of the devices of which nothing leaves the edge."""
        return tuple(filter(None, map(str.strip, self.private_devices.split(","))))

    def vision_url(self, port: int) -> str:
        """Return the address devices are told for their cameras' pictures, which are taken at ``port``."""
        return self.public_vision_url or f"http://{self.vision_host}:{port}/xiaozhi/vision/"

    @property
    def websocket_url(self) -> str:
        """Address devices are told."""
        return self.public_websocket_url or f"ws://{self.gateway_host}:{self.gateway_port}/xiaozhi/v1/"
