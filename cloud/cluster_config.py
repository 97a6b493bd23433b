"""The cluster's configuration file, ``cloud_cluster:`` in YAML, as checked pools; also inside the ConfigMap that carries it.

Each field is honoured, told as not ours in a note (what a cluster's own tools do: dashboards, log stores, backups), or refused with
its name and the reason. See ``_NOT_OURS`` and the fields' docstrings for which.
"""

from __future__ import annotations

import difflib
from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import httpx
import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from coordinator.bus import without_password
from coordinator.wire import token
from models.errors import ConfigError

MAX_FILE_BYTES = 256 * 1024
"""A ConfigMap holds 1 MiB; a cluster's file is a few hundred lines."""
_MOST_SHOWN = 20
"""Problems named at once; after these the file is another one."""


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _subject(name: str) -> str:
    try:
        return token(name)
    except ConfigError as error:
        raise ValueError("use 1 to 64 letters, digits, '-' or '_'") from error


def _address(url: str) -> str:
    wrong = f"{without_password(url)!r} is no address; write http://host:port"
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ValueError(wrong) from error
    if parsed.scheme not in {"http", "https"} or not parsed.host:
        raise ValueError(wrong)
    return url


class PoolConfig(_Part):
    """One pool of replicas of one model."""

    name: Annotated[str, AfterValidator(_subject)]
    """What edges ask for."""
    replicas: int = Field(default=1, ge=0, le=10_000)
    """How many are wanted: what metrics compare with and scaling starts from."""
    gpu_per_replica: int = Field(default=1, ge=0, le=1024)
    """GPUs one replica takes; what scaling counts against the cluster's."""
    max_batch_size: int = Field(default=8, ge=1, le=4096)
    """Requests a replica gets at once, vLLM's --max-num-seqs."""
    model: str = Field(default="", max_length=200)
    """Ours: the model to ask the replicas for; the pool's name when empty."""
    urls: tuple[Annotated[str, AfterValidator(_address)], ...] = Field(default=(), max_length=1000, strict=False)
    """Ours: replicas that do not come and go."""
    vision: bool = False
    """Ours: whether it sees pictures."""

    @property
    def asked_as(self) -> str:
        """The model's name in requests."""
        return self.model or self.name


class LoadBalancing(_Part):
    """How requests find a replica."""

    strategy: Literal["complexity_aware"] = "complexity_aware"
    """Edges choose the pool by the prompt's expected gain; inside a pool the less busy of two replicas answers."""
    fallback_enabled: bool = True
    """Whether a replica that fails before the first word is followed by another; from pool to pool and to the edge it is the edges' policy."""
    timeout: float = Field(default=30.0, gt=0, le=600)
    """Seconds a whole answer may take; a request's own budget may be shorter."""


class _LlmService(_Part):
    models: tuple[PoolConfig, ...] = Field(max_length=64, strict=False)
    load_balancing: LoadBalancing = LoadBalancing()

    @model_validator(mode="after")
    def _names_differ(self) -> _LlmService:
        if not self.models:
            raise ValueError("models is empty; name at least one")
        seen: set[str] = set()
        for pool in self.models:
            if pool.name in seen:
                raise ValueError(f"two models have the name {pool.name}; give each its own")
            seen.add(pool.name)
        return self


class _Monitoring(_Part):
    prometheus: Literal[True] = True
    grafana: bool = False
    alertmanager: bool = False


class _Logging(_Part):
    elasticsearch: bool = False
    kibana: bool = False
    log_retention: str | None = None


class _Backup(_Part):
    schedule: str | None = None
    retention: str | None = None
    storage: str | None = None


class _Management(_Part):
    monitoring: _Monitoring = _Monitoring()
    logging: _Logging = _Logging()
    backup: _Backup = _Backup()


class _Cluster(_Part):
    llm_service: _LlmService
    management: _Management = _Management()


class Note(_Part):
    """A field of the file that is not ours to honour, and why that does no harm."""

    field: str
    reason: str


class ClusterConfig(_Part):
    """What the file says."""

    pools: tuple[PoolConfig, ...]
    load_balancing: LoadBalancing
    notes: tuple[Note, ...] = ()

    def chosen(self, names: str) -> tuple[PoolConfig, ...]:
        """Return the pools of these comma-separated names, all for ""; raise ConfigError for one that the file has not."""
        wanted = [name.strip() for name in names.split(",") if name.strip()]
        known = {pool.name: pool for pool in self.pools}
        for name in wanted:
            if name not in known:
                raise ConfigError(f"the cluster's file has no pool {name[:80]!r}; it has {', '.join(sorted(known))}")
        return tuple(known[name] for name in dict.fromkeys(wanted)) if wanted else self.pools


_NOT_OURS = {
    "monitoring.grafana": "every process serves /metrics; which dashboards read it is the cluster's",
    "monitoring.alertmanager": "the alert rules' metrics are served; who is called is the cluster's",
    "logging.elasticsearch": "logs go to standard error as JSON (CLOUD_LOG_FORMAT=json); who collects them is the cluster's",
    "logging.kibana": "who shows the logs is the cluster's",
    "logging.log_retention": "who keeps the logs decides for how long",
    "backup.schedule": "workers hold no state; JetStream and the object store are backed up by the cluster's own job",
    "backup.retention": "see backup.schedule",
    "backup.storage": "see backup.schedule",
}
"""Fields under ``management`` that others honour."""
_HINTS = {
    "cloud_cluster.llm_service.load_balancing.strategy": "edges choose by complexity_aware routing; no other is built",
    "cloud_cluster.management.monitoring.prometheus": "/metrics is always served; remove it or write true",
}


def read_cluster_config(path: Path) -> ClusterConfig:
    """Return what the file at ``path`` says; raise one ConfigError that names each problem by its field."""
    try:
        with path.open("rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot read the cluster's file {path}: {error.strerror}") from error
    if len(content) > MAX_FILE_BYTES:
        raise ConfigError(f"the cluster's file {path} is longer than {MAX_FILE_BYTES} bytes")
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(f"the cluster's file {path} is not UTF-8 text") from error
    try:
        return parse_cluster_config(text)
    except ConfigError as error:
        raise ConfigError(f"the cluster's file {path}: {error}") from error


def parse_cluster_config(text: str) -> ClusterConfig:
    """Return what a bare document or the ConfigMap around one says; raise one ConfigError that names each problem by its field."""
    notes: list[Note] = []
    found = [cluster for document in _documents(text) for cluster in _clusters(document, notes)]
    if len(found) != 1:
        raise ConfigError(
            f"it has {len(found)} documents with cloud_cluster; write exactly one, bare or in a ConfigMap"
        )
    try:
        cluster = _Cluster.model_validate(found[0])
    except ValidationError as error:
        raise ConfigError("; ".join(_problems(error))) from error
    service = cluster.llm_service
    return ClusterConfig(
        pools=service.models,
        load_balancing=service.load_balancing,
        notes=(*notes, *_notes_on(cluster.management)),
    )


class _Loader(yaml.SafeLoader):
    """Refuses aliases, which can make a short text endless, tags, and keys given twice, of which YAML would take the last."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise ConfigError("it refers to an anchor (*name); write the value itself")
        if getattr(self.peek_event(), "tag", None):  # type: ignore[no-untyped-call]  # the stubs leave it out
            raise ConfigError("it has a tag (!name); write the plain value")
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - the library's signature
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        twice = next((key for key in keys if keys.count(key) > 1), None)
        if twice is not None:
            raise ConfigError(f"{str(twice)[:80]!r} is given twice in one place")
        return super().construct_mapping(node, deep=deep)


def _documents(text: str) -> list[Any]:
    try:
        return [document for document in yaml.load_all(text, _Loader) if document is not None]
    except yaml.MarkedYAMLError as error:
        where = f" in line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise ConfigError(f"it is no YAML{where}: {error.problem or error.context}") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ConfigError(f"it is no YAML: {type(error).__name__}") from error


def _clusters(document: Any, notes: list[Note]) -> Iterator[Any]:
    """Yield what stands under ``cloud_cluster`` in a document, or in the texts of a ConfigMap; note other Kubernetes objects."""
    if not isinstance(document, dict):
        raise ConfigError("it is no mapping; begin with cloud_cluster:")
    if document.get("kind") == "ConfigMap":
        texts = document.get("data")
        for text in texts.values() if isinstance(texts, dict) else ():
            if isinstance(text, str):
                inner = [found for found in _documents(text) if isinstance(found, dict) and "cloud_cluster" in found]
                yield from (_only_cluster(found) for found in inner)
    elif "kind" in document and "apiVersion" in document:
        name = f"{str(document['kind'])[:40]}"
        notes.append(Note(field=name, reason="an object for Kubernetes, not part of the configuration"))
    else:
        yield _only_cluster(document)


def _only_cluster(document: dict[Any, Any]) -> Any:
    for key in document:
        if key != "cloud_cluster":
            raise ConfigError(f"{str(key)[:80]}: no such field{_meant(str(key), ['cloud_cluster'])}")
    return document.get("cloud_cluster")


def _notes_on(management: _Management) -> Iterator[Note]:
    for section in ("monitoring", "logging", "backup"):
        part = getattr(management, section)
        for name in type(part).model_fields:
            reason = _NOT_OURS.get(f"{section}.{name}")
            if reason and name in part.model_fields_set and getattr(part, name):
                yield Note(field=f"cloud_cluster.management.{section}.{name}", reason=reason)


def _problems(error: ValidationError) -> Iterator[str]:
    for problem in error.errors(include_input=False, include_url=False)[:_MOST_SHOWN]:
        place = ".".join(["cloud_cluster", *(str(step)[:80] for step in problem["loc"])])
        if problem["type"] == "extra_forbidden":
            yield f"{place}: no such field{_meant(str(problem['loc'][-1]), _siblings(problem['loc']))}"
        else:
            hint = _HINTS.get(place)
            yield f"{place}: {problem['msg'].removeprefix('Value error, ')}{f' ({hint})' if hint else ''}"


def _siblings(place: tuple[int | str, ...]) -> list[str]:
    """Return the fields known where an unknown one was found."""
    part: Any = _Cluster
    for step in place[:-1]:
        if isinstance(step, int):
            continue
        found = part.model_fields[step].annotation
        part = found.__args__[0] if hasattr(found, "__args__") else found
    return list(part.model_fields)


def _meant(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; there is {', '.join(known)}"
