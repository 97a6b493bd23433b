"""Edges as Kubernetes lists them: from the endpoints of the gateways' Service to entries of the registry."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager

from coordinator.cluster.api import KubernetesApi
from coordinator.cluster.endpoints import Endpoint, ServicePort
from coordinator.cluster.watch import RESYNC_S, EndpointWatch, SliceApi, State
from coordinator.fleet.registry import ListedEdge, Registry
from models.errors import ConfigError

_PLACES = ("node", "address", "port", "zone")
_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
"""Names of nodes, pods and zones, which become part of an address."""


def check_template(template: str) -> str:
    """Return the template of edges' addresses, "" for none; raise ConfigError when it cannot become one."""
    filled = template
    for place in _PLACES:
        filled = filled.replace(f"{{{place}}}", "1")
    if template and (not filled.startswith(("ws://", "wss://")) or "{" in filled or "}" in filled or " " in filled):
        places = ", ".join(f"{{{place}}}" for place in _PLACES)
        raise ConfigError(f"{template!r} is no template of an address: write ws:// or wss://, with any of {places}")
    return template


def listed(endpoints: Iterable[Endpoint], template: str = "") -> list[ListedEdge]:
    """Return the edges that have gateways, by node; ready when any of a node's gateways is.

    An edge's id is its node's name, which is what the manifests give gateways as NODE_ID. A gateway whose node is not told goes by
    its pod's name. The zone is the region. Without a template, the address is only known from the edge's beats: that of a pod means
    nothing to a device.
    """
    found: dict[str, ListedEdge] = {}
    for endpoint in sorted(endpoints, key=lambda each: (not each.is_ready, each.host)):
        name = endpoint.node or endpoint.target or endpoint.host.replace(":", "-")
        if _NAME.fullmatch(name) and name not in found:
            found[name] = ListedEdge(name, endpoint.is_ready, _filled(template, endpoint), endpoint.zone)
    return sorted(found.values(), key=lambda edge: edge.edge_id)


@asynccontextmanager
async def follow_edges(
    edges: Registry,
    where: ServicePort,
    *,
    template: str = "",
    connect: Callable[[], SliceApi] = KubernetesApi,
    observe: Callable[[State], None] = lambda _state: None,
    resync_s: float = RESYNC_S,
) -> AsyncGenerator[EndpointWatch, None]:
    """Keep the registry's list up with Kubernetes while open; raise ConfigError when the library is missing."""

    def changed(endpoints: frozenset[Endpoint]) -> None:
        edges.lists(listed(endpoints, template), lambda: watch.is_current)

    watch = EndpointWatch(where, changed, connect=connect, observe=observe, resync_s=resync_s)
    async with watch:
        yield watch


def _filled(template: str, endpoint: Endpoint) -> str:
    address = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
    values = {"node": endpoint.node, "address": address, "port": str(endpoint.port), "zone": endpoint.zone}
    for place, value in values.items():
        if f"{{{place}}}" not in template:
            continue
        if place in {"node", "zone"} and not _NAME.fullmatch(value):
            return ""
        template = template.replace(f"{{{place}}}", value)
    return template
