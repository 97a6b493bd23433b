"""What the process that scales a pool can be told, by environment variables with the prefix SCALER_."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator
from pydantic_settings import SettingsConfigDict

from cloud.hours import hours
from cloud.scaling import Rules
from coordinator.settings import ProcessSettings
from models.errors import ConfigError


class ScalerSettings(ProcessSettings):
    """Settings of one scaler; one scales one Deployment. What each limit means stands at ``cloud.scaling.Rules``."""

    model_config = SettingsConfigDict(env_prefix="SCALER_", frozen=True, populate_by_name=True)

    deployment: str = Field("vllm-qwen-72b", pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    namespace: str = Field("", pattern=r"^([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)?$")
    """This process's own when empty."""
    replica_port: int = Field(8000, ge=1, le=65535)
    """Where replicas have their /metrics."""
    dry_run: bool = False
    """Have Kubernetes check what would be written, and keep none of it."""
    tick_s: float = Field(5.0, ge=1, le=10)
    """How often it looks."""
    min_replicas: int = Field(1, ge=1, le=1000)
    max_replicas: int = Field(8, ge=1, le=1000)
    max_running: int = Field(32, ge=1, le=4096)
    """Requests a replica runs at once: vLLM's --max-num-seqs."""
    service_s: float = Field(4.0, gt=0, le=600)
    """How long a request takes, about."""
    wait_s: float = Field(1.0, gt=0, le=60)
    """In what time requests that wait should have begun."""
    up_use: float = Field(0.75, gt=0, le=1)
    down_use: float = Field(0.5, gt=0, le=1)
    up_window_s: float = Field(30.0, ge=0, le=3600)
    down_window_s: float = Field(600.0, ge=0, le=7200)
    up_cool_s: float = Field(120.0, ge=0, le=7200)
    down_cool_s: float = Field(300.0, ge=0, le=7200)
    up_step: int = Field(2, ge=1, le=100)
    down_step: int = Field(1, ge=1, le=100)
    start_s: float = Field(1800.0, ge=0, le=7200)
    """How long a replica may take to be ready."""
    closed_hours: str = ""
    """Hours without any replica, as in 23:30-06:30 Asia/Shanghai; never when empty."""
    open_ahead_s: float = Field(900.0, ge=0, le=7200)
    """How long before the closed hours end replicas are started."""
    http_port: int = Field(8004, ge=0, le=65535)
    """Port of the probes."""

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        try:
            _ = self.rules
        except ConfigError as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def rules(self) -> Rules:
        """The limits as one value; raises ConfigError when they contradict each other."""
        return Rules(
            min_replicas=self.min_replicas,
            max_replicas=self.max_replicas,
            max_running=self.max_running,
            service_s=self.service_s,
            wait_s=self.wait_s,
            up_use=self.up_use,
            down_use=self.down_use,
            up_window_s=self.up_window_s,
            down_window_s=self.down_window_s,
            up_cool_s=self.up_cool_s,
            down_cool_s=self.down_cool_s,
            up_step=self.up_step,
            down_step=self.down_step,
            start_s=self.start_s,
            closed=hours(self.closed_hours),
            ahead_s=self.open_ahead_s,
        )
