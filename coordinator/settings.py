"""Settings of a process: read once from its environment, checked whole, then handed on as values."""

from __future__ import annotations

import difflib
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from types import NoneType
from typing import Any, Literal, TypeVar, cast, get_args

import structlog
from pydantic import AliasChoices, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from coordinator.bus import without_password
from coordinator.nats_bus import CONNECT_S
from models.errors import ConfigError

MASK = "********"


class ProcessSettings(BaseSettings):
    """What every process can be told."""

    model_config = SettingsConfigDict(frozen=True, populate_by_name=True)

    nats_url: str = "nats://127.0.0.1:4222"
    """The leaf on an edge, the hub in the cloud."""
    nats_connect_s: float = Field(CONNECT_S, gt=0, le=600)
    """How long NATS may be away when the process starts."""
    nats_nkey_seed_file: Path | None = None
    """File holding this process's NKey user seed; none for a NATS without accounts."""
    http_host: str = "127.0.0.1"
    """Address of /metrics, /healthz and /readyz."""
    http_port: int = Field(0, ge=0, le=65535)
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["console", "json"] = "console"
    drain_s: float = Field(5.0, ge=0, le=600)
    """How long turns under way may go on after SIGTERM."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Take values from ``load`` only, so that nothing reads the environment behind its back."""
        return (init_settings,)

    @property
    def nkey_seed(self) -> str | None:
        """The seed's text; raise ConfigError when the file cannot be read or is empty."""
        if self.nats_nkey_seed_file is None:
            return None
        try:
            seed = self.nats_nkey_seed_file.read_text().strip()
        except OSError as error:
            raise ConfigError(f"cannot read the NKey seed file {self.nats_nkey_seed_file}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"the NKey seed file {self.nats_nkey_seed_file} is not text") from error
        if not seed:
            raise ConfigError(f"the NKey seed file {self.nats_nkey_seed_file} is empty")
        return seed


class CoordinatorSettings(ProcessSettings):
    """Settings of the coordinator service."""

    model_config = SettingsConfigDict(env_prefix="COORDINATOR_", frozen=True, populate_by_name=True)

    http_port: int = Field(8002, ge=0, le=65535)
    """Port of bootstrap (/xiaozhi/ota/) and of the probes."""
    device_token_secret: SecretStr = SecretStr("")
    """Shared with the edges' EDGE_DEVICE_TOKEN_SECRET; at least 16 characters."""
    token_ttl_s: int = Field(30 * 86_400, ge=60)
    websocket_url: str = ""
    """Address for devices while no edge is heard of; without it they are told to try again later."""
    protocol_version: int = Field(1, ge=1, le=3)
    """Binary framing devices are told to use."""
    timezone_offset_min: int = Field(480, ge=-720, le=840)
    """Minutes east of UTC for the devices' clocks."""
    edge_stale_s: float = Field(5.0, gt=0, le=600)
    """An edge not heard of for so long gets no new devices."""
    edge_nodes_discovery: Literal["nats", "kubernetes"] = Field(
        "nats", validation_alias=AliasChoices("COORDINATOR_EDGE_NODES_DISCOVERY", "EDGE_NODES_DISCOVERY")
    )
    """Edges are found by their beats on NATS; with "kubernetes" also by the endpoints of ``edge_service``."""
    edge_service: str = "edge-gateway.xiaozhi-edge:devices"
    """Service of the gateways, as service[.namespace][:port]; used with kubernetes only."""
    edge_websocket_url: str = ""
    """Address of an edge that does not beat, from {node}, {address}, {port}, {zone}; without it only edges that once beat have one."""
    cluster_mode: Literal["cloud"] = Field(
        "cloud", validation_alias=AliasChoices("COORDINATOR_CLUSTER_MODE", "CLUSTER_MODE")
    )
    """This service runs in the cloud only; any other value is refused."""
    jetstream_domain: str = "hub"
    """JetStream domain of the hub that keeps policy and turns; empty for a NATS server without domains."""
    api_keys: SecretStr = SecretStr("")
    """Keys of those who may ask /v1/chat/completions, with commas between them, at least 16 characters each; without any, only this
    machine itself may."""
    api_pools: str = "qwen-72b,qwen-14b,qwen-vl"
    """Pools offered there, with commas between them; add "edge" where workers serve a pool of that name. None when empty: no endpoint."""
    vision_pool: str = "qwen-vl"
    """The pool of them that takes pictures."""
    bucket_replicas: int = Field(1, ge=1, le=5)
    """Servers of a NATS cluster that keep them."""
    keep_turns_hours: float = Field(0.0, ge=0, le=8760)
    """How long finished turns are kept for explain and replay. They hold what people said; 0 deletes what was kept."""
    keep_turns_mib: int = Field(1024, ge=1, le=1_048_576)
    """Space for them; the oldest give way."""
    keep_usage_days: float = Field(7.0, ge=0, le=60)
    """How long the hub keeps which contents each edge was asked for, hour by hour: numbers by hash, and the words of memorable questions that
    two devices of one edge asked. The next hour is forecast from it; 0 deletes it and forecasts nothing."""


S = TypeVar("S", bound=ProcessSettings)


def load(cls: type[S], environ: Mapping[str, str] | None = None) -> S:
    """Return the settings in ``environ`` (the process's own by default); an empty variable leaves what may be None unset.

    Raises one ConfigError that lists each unknown variable of the prefix and each bad value. Values are never repeated in it.
    """
    environ = os.environ if environ is None else environ
    prefix = str(cls.model_config.get("env_prefix") or "")
    names = variables(cls)
    given: dict[str, str] = {}
    for variable, field in names.items():
        if environ.get(variable) or (variable in environ and not _may_be_none(cls, field)):
            given.setdefault(field, variable)
    problems = [
        f"{variable}: no such setting{_meant(variable, names)}"
        for variable in sorted(environ)
        if prefix and variable.startswith(prefix) and variable not in names and variable not in FOREIGN
    ]
    settings: S | None = None
    try:
        settings = cls(**cast("dict[str, Any]", {field: environ[variable] for field, variable in given.items()}))
    except ValidationError as error:
        for problem in error.errors(include_input=False, include_url=False):
            place = str(problem["loc"][0]) if problem["loc"] else ""
            variable = given.get(names.get(place, place), prefix + place.upper())
            problems.append(f"{variable}: {problem['msg']}")
    except ConfigError as error:
        problems.append(str(error))
    if problems or settings is None:
        raise ConfigError("; ".join(problems))
    return settings


FOREIGN = frozenset({"EDGE_NODES_DISCOVERY", "CLOUD_SDK_VERSION"})
"""Variables that only look like ours: the first is the coordinator's, the second is set in images that carry a cloud's SDK."""


def variables(cls: type[ProcessSettings]) -> dict[str, str]:
    """Return which field each environment variable of these settings fills; of several for one field the first counts."""
    prefix = str(cls.model_config.get("env_prefix") or "")
    found: dict[str, str] = {}
    for field, info in cls.model_fields.items():
        alias = info.validation_alias
        choices = (
            [str(choice) for choice in alias.choices] if isinstance(alias, AliasChoices) else [prefix + field.upper()]
        )
        found |= dict.fromkeys(choices, field)
    return found


def effective(settings: ProcessSettings) -> dict[str, object]:
    """Return every setting with its value in force, secrets and passwords in addresses masked, for --check-config."""
    shown: dict[str, object] = {}
    for field in type(settings).model_fields:
        value = getattr(settings, field)
        if isinstance(value, SecretStr):
            value = MASK if value.get_secret_value() else ""
        elif isinstance(value, str) and "://" in value:
            value = without_password(value)
        shown[field] = str(value) if isinstance(value, Path) else value
    return shown


def configure_logging(settings: ProcessSettings) -> None:
    """Send structured logs to standard error, as lines for people or JSON for machines."""
    renderer = structlog.processors.JSONRenderer() if settings.log_format == "json" else _for_people()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[settings.log_level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def _for_people() -> structlog.dev.ConsoleRenderer:
    return structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())


def _may_be_none(cls: type[ProcessSettings], field: str) -> bool:
    return NoneType in get_args(cls.model_fields[field].annotation)


def _meant(variable: str, names: Mapping[str, str]) -> str:
    close = difflib.get_close_matches(variable, names, n=1)
    return f"; did you mean {close[0]}?" if close else "; --check-config lists what there is"
