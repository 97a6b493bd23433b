"""What an edge node can be told, by environment variables with the prefix EDGE_."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from coordinator.routing.complexity import THRESHOLD
from coordinator.settings import ProcessSettings
from coordinator.wire import token

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
    max_devices: int = Field(150, ge=1, le=100_000)
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
    llm_model: str = "qwen2.5-coder-0.5b-instruct-q4_k_m"
    asr_model: str = "whisper-base"
    mandarin_voice: str = "kokoro-voice-zf_xiaobei"
    english_voice: str = "piper-en-us-joe-medium"
    asr_threads: int = Field(2, ge=1, le=64)
    llm_threads: int = Field(default_factory=_half_the_cores, ge=1, le=64)
    """Half the cores when not set: llama.cpp's threads wait for each other at every step, so one that has to share its core stalls all."""
    tts_threads: int = Field(2, ge=1, le=64)
    language: Literal["zh", "en"] = "zh"
    """Language of devices whose record names none."""
    end_silence_ms: int = Field(500, ge=100, le=5000)
    """Silence that ends an utterance."""
    hint_silence_ms: int = Field(180, ge=60, le=5000)
    """Silence after which transcribing begins; thrown away when the person goes on speaking."""
    max_tokens: int = Field(128, ge=8, le=4096)
    """Longest answer; 128 tokens are about 40 s of speech."""
    budget_s: float = Field(30.0, gt=0, le=600)
    """How long a turn may go on without saying anything new."""

    pool: str = "qwen-14b"
    """Cloud pool that gets the hard prompts."""
    threshold: float = Field(THRESHOLD, ge=0, le=2)
    """Complexity from which the cloud is asked; above 1 it never is."""
    first_token_s: float = Field(4.0, gt=0, le=60)
    """How long the cloud may be silent before the edge answers."""

    redis_url: str = ""
    """Second cache tier, e.g. redis://redis:6379/0; none when empty."""
    s3_url: str = ""
    """Third cache tier, e.g. http://object-store:8333; none when empty."""
    s3_bucket: str = "xiaozhi-cache"
    s3_access_key: str = ""
    s3_secret_key: SecretStr = SecretStr("")

    @field_validator("node_id")
    @classmethod
    def _fits_a_subject(cls, node_id: str) -> str:
        return token(node_id.replace(".", "-"))

    @property
    def websocket_url(self) -> str:
        """Address devices are told."""
        return self.public_websocket_url or f"ws://{self.gateway_host}:{self.gateway_port}/xiaozhi/v1/"
