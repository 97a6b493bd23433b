"""What a cloud worker can be told, by environment variables with the prefix CLOUD_."""

from __future__ import annotations

import os
import socket
from pathlib import Path
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

    cluster_config: Path | None = None
    """The cluster's configuration file (cloud_cluster: in YAML); without it this worker serves the one pool below."""
    served_pools: str = ""
    """Pools of the cluster's file that this worker serves, with commas; all of them when empty."""
    pool: str = "qwen-14b"
    """Name edges ask for without a cluster's file: qwen-72b, qwen-14b or qwen-vl."""
    worker_id: str = Field(default_factory=_default_worker_id)
    """Name of this worker among the pool's; host and process id when not set."""
    upstream_url: str = "http://127.0.0.1:8000"
    """Base addresses of the pool's OpenAI-compatible servers, without /v1, with commas, or kubernetes://service[.namespace][:port].

    With a cluster's file it is where pools without urls have their replicas, and {pool} in it stands for the pool's name.
    """
    upstream_model: str = ""
    """Model to ask for without a cluster's file; the pool's name when empty."""
    upstream_vision: bool = False
    """Whether the model of the one pool sees pictures."""
    upstream_api_key: SecretStr = SecretStr("")
    max_running: int = Field(8, ge=1, le=4096)
    """Requests at once to each replica of the one pool; more are refused, so that their edges answer."""
    max_waiting: int = Field(0, ge=0, le=4096)
    """Requests that may wait for a place; more, and those whose first token would come too late, are refused."""
    edge_rate_hz: float = Field(0.0, ge=0, le=100_000)
    """Requests a second one edge may ask in the long run; 0 for any number."""
    edge_burst: int = Field(32, ge=1, le=100_000)
    """Requests it may ask at once after a pause."""
    max_per_device: int = Field(0, ge=0, le=4096)
    """Requests of one device that may run and wait; 0 for any number."""
    preload_share: float = Field(0.5, gt=0, le=1)
    """Part of the places that work for later may fill."""
    timeout_s: float = Field(30.0, gt=0, le=600)
    """How long a whole answer may take without a cluster's file."""
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
