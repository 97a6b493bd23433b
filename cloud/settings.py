"""What a cloud worker can be told, by environment variables with the prefix CLOUD_."""

from __future__ import annotations

import os
import socket
from typing import Literal

from pydantic import AliasChoices, Field, SecretStr, field_validator
from pydantic_settings import SettingsConfigDict

from coordinator.settings import ProcessSettings
from coordinator.wire import token
from models.errors import ConfigError


def _default_worker_id() -> str:
    return f"{socket.gethostname().replace('.', '-')[:48]}-{os.getpid()}"


class CloudSettings(ProcessSettings):
    """Settings of one worker."""

    model_config = SettingsConfigDict(env_prefix="CLOUD_", frozen=True, populate_by_name=True)

    pool: str = "qwen-14b"
    """Name edges ask for: qwen-72b, qwen-14b or qwen-vl."""
    worker_id: str = Field(default_factory=_default_worker_id)
    """Name of this worker among the pool's; host and process id when not set."""
    upstream_url: str = "http://127.0.0.1:8000"
    """Base address of the OpenAI-compatible server, without /v1."""
    upstream_model: str = ""
    """Model to ask it for; the pool's name when empty."""
    upstream_api_key: SecretStr = SecretStr("")
    max_running: int = Field(8, ge=1, le=4096)
    """Requests at once; more are refused, so that their edges answer."""
    first_token_s: float = Field(20.0, gt=0, le=600)
    """How long the upstream may take to its first token."""
    stall_s: float = Field(10.0, gt=0, le=600)
    """How long the upstream may pause between two tokens."""
    http_port: int = Field(8003, ge=0, le=65535)
    """Port of the probes."""
    cluster_mode: Literal["cloud"] = Field("cloud", validation_alias=AliasChoices("CLOUD_CLUSTER_MODE", "CLUSTER_MODE"))

    @field_validator("pool", "worker_id")
    @classmethod
    def _fits_a_subject(cls, name: str) -> str:
        try:
            return token(name)
        except ConfigError as error:
            raise ValueError("use 1 to 64 letters, digits, '-' or '_'") from error
