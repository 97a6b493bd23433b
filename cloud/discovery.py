"""Which replicas a pool has: a list somebody wrote, or whoever Kubernetes says answers for a Service."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from coordinator.bus import without_password
from coordinator.cluster.api import KubernetesApi
from coordinator.cluster.endpoints import Endpoint, ServicePort, ready_urls, service_port
from coordinator.cluster.watch import RESYNC_S, EndpointWatch, SliceApi, State
from models.errors import ConfigError

MAX_STATIC = 1000
"""A list longer than that is a mistake; the largest pool anybody runs has a few dozen replicas."""
_SCHEMES = {"kubernetes": "http", "kubernetes+https": "https"}

Changed = Callable[[frozenset[str]], None]
"""Hears the base addresses of all replicas, without /v1, whenever they are others than before; on the event loop."""


@dataclass(frozen=True, slots=True)
class StaticReplicas:
    """Replicas that do not come and go."""

    urls: frozenset[str]


@dataclass(frozen=True, slots=True)
class ServiceReplicas:
    """Replicas that Kubernetes knows."""

    where: ServicePort
    scheme: str = "http"


class Discovery(Protocol):
    """What keeps the replicas known."""

    @property
    def problem(self) -> str:
        """Why the replicas known may be old, "" while they are kept up; in words for /readyz."""
        ...


@dataclass(frozen=True, slots=True)
class _Settled:
    problem: str = ""


def is_service(text: str) -> bool:
    """Return whether a Service of Kubernetes is written, not a list of addresses."""
    return text.strip().partition("://")[0] in _SCHEMES


def replicas(text: str) -> StaticReplicas | ServiceReplicas:
    """Return what is written: ``http://a:8000,http://b:8000`` or ``kubernetes://service[.namespace][:port]``; raise ConfigError.

    ``kubernetes+https://`` is for replicas that speak TLS.
    """
    scheme, _, rest = text.strip().partition("://")
    if scheme in _SCHEMES:
        return ServiceReplicas(service_port(rest.rstrip("/")), _SCHEMES[scheme])
    urls = [_base(word) for word in text.replace(",", " ").split()]
    if not urls:
        raise ConfigError(
            "no replicas: write http://host:port, several with commas, or kubernetes://service.namespace:port"
        )
    if len(urls) > MAX_STATIC:
        raise ConfigError(f"{len(urls)} replicas are listed; at most {MAX_STATIC} are taken")
    return StaticReplicas(frozenset(urls))


@asynccontextmanager
async def discover(
    place: StaticReplicas | ServiceReplicas,
    changed: Changed,
    *,
    connect: Callable[[], SliceApi] = KubernetesApi,
    observe: Callable[[State], None] = lambda _state: None,
    resync_s: float = RESYNC_S,
) -> AsyncGenerator[Discovery, None]:
    """Tell ``changed`` of the replicas while open; a list is told before this yields, Kubernetes whenever it answers.

    While the API is away the last replicas stay. A Service without replicas is told as the empty set: it was scaled to zero.
    Raises ConfigError when the kubernetes library is needed and missing.
    """
    if isinstance(place, StaticReplicas):
        changed(place.urls)
        yield _Settled()
        return
    told: frozenset[str] | None = None

    def heard(endpoints: frozenset[Endpoint]) -> None:
        nonlocal told
        urls = ready_urls(endpoints, place.scheme)
        if urls != told:
            told = urls
            changed(urls)

    async with EndpointWatch(place.where, heard, connect=connect, observe=observe, resync_s=resync_s) as watch:
        yield watch


def _base(url: str) -> str:
    """Return the address without what belongs to single requests."""
    wrong = ConfigError(f"{without_password(url)!r} is no replica's address: write http://host:port")
    try:
        split = urlsplit(url)
        port = split.port
    except ValueError as error:
        raise wrong from error
    if split.scheme not in {"http", "https"} or not split.hostname or port == 0 or split.query or split.fragment:
        raise wrong
    return url.rstrip("/").removesuffix("/v1").rstrip("/")
