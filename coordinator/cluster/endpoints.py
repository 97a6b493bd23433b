"""From the EndpointSlices of one Service to the addresses that answer for it; pure.

The rules are those of the API's own field comments (discovery.k8s.io/v1): an unknown ``ready`` counts as ready, several slices are
joined, an endpoint may be in two of them while they are rebalanced, and only the first of an endpoint's addresses is used. What
terminates is never chosen, not even when nothing else is left: a model server that ends aborts what it answers.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from models.errors import ConfigError

SERVICE_LABEL = "kubernetes.io/service-name"
"""Names the Service a slice belongs to (k8s.io/api/discovery/v1, LabelServiceName)."""
MAX_SLICES = 1000
"""Slices of one Service that are looked at; each holds up to 1000 endpoints, a pool has a few dozen."""
MAX_ENDPOINTS = 10_000
"""Endpoints of one Service that are looked at, as many as the registry takes edges."""
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""A DNS label, as Services, namespaces and ports are named (RFC 1123)."""
_HOST = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", re.IGNORECASE)
_MAX_PORT = 65_535


class Meta(msgspec.Struct, frozen=True, rename="camel"):
    """What every object of the API says of itself, as far as it is used here."""

    name: str = ""
    resource_version: str = ""


class _Conditions(msgspec.Struct, frozen=True):
    ready: bool | None = None
    terminating: bool | None = None


class _Target(msgspec.Struct, frozen=True):
    kind: str = ""
    name: str = ""
    uid: str = ""


class _Endpoint(msgspec.Struct, frozen=True, rename="camel"):
    addresses: list[str] | None = None
    conditions: _Conditions | None = None
    node_name: str | None = None
    zone: str | None = None
    target_ref: _Target | None = None


class _Port(msgspec.Struct, frozen=True):
    name: str | None = None
    port: int | None = None


class Slice(msgspec.Struct, frozen=True, rename="camel"):
    """An EndpointSlice, any part of which may be missing."""

    metadata: Meta = Meta()
    address_type: str = ""
    endpoints: list[_Endpoint] | None = None
    ports: list[_Port] | None = None


class SliceList(msgspec.Struct, frozen=True):
    """A list as the API answers it; items are decoded one by one, so that a broken one costs only itself."""

    metadata: Meta = Meta()
    items: list[msgspec.Raw] | None = None


class WatchEvent(msgspec.Struct, frozen=True):
    """One line of a watch."""

    type: str
    object: msgspec.Raw


class Status(msgspec.Struct, frozen=True):
    """What the API answers instead of what was asked for, and the object of an ERROR event."""

    code: int = 0
    reason: str = ""
    message: str = ""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A pod behind a Service, or whatever else answers for it."""

    host: str
    """IPv6 without brackets."""
    port: int
    is_ready: bool
    """Takes new work; what terminates does not."""
    node: str = ""
    zone: str = ""
    target: str = ""
    """Name of the pod."""

    def url(self, scheme: str = "http") -> str:
        """Return the base address, without a path."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{scheme}://{host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ServicePort:
    """Which Service's endpoints are meant, and which of its ports."""

    service: str
    namespace: str = ""
    """This process's own when empty."""
    port: str = ""
    """Name or number; the only one when empty."""

    def __str__(self) -> str:
        return f"{self.service}{self.namespace and '.' + self.namespace}{self.port and ':' + self.port}"


def service_port(text: str) -> ServicePort:
    """Return what ``service[.namespace][:port]`` means; raise ConfigError when it is not of that form."""
    place, colon, port = text.strip().partition(":")
    service, dot, namespace = place.partition(".")
    namespace = namespace.removesuffix(".svc")
    names = [service, *([namespace] if dot else []), *([port] if colon else [])]
    if not all(_NAME.fullmatch(name) for name in names):
        raise ConfigError(f"{text!r} names no Service: write service, service.namespace or service.namespace:port")
    return ServicePort(service, namespace, port)


class Slices:
    """The slices of one Service as last seen, kept up with what a watch says."""

    def __init__(self) -> None:
        self._slices: dict[str, Slice] = {}

    def replace(self, slices: Iterable[Slice]) -> None:
        """Take a list for the whole truth."""
        self._slices = {}
        for each in slices:
            self._put(each)

    def apply(self, kind: Literal["ADDED", "MODIFIED", "DELETED"], each: Slice) -> None:
        """Take one event of a watch."""
        if kind == "DELETED":
            self._slices.pop(each.metadata.name, None)
        else:
            self._put(each)

    def endpoints(self, port: str = "") -> frozenset[Endpoint]:
        """Return one Endpoint for each pod, of the port with this name or number (the only port when empty)."""
        chosen: dict[str, tuple[str, Endpoint]] = {}
        for each in self._slices.values():
            for identity, endpoint in _endpoints(each, port):
                before = chosen.get(identity)
                if before is None and len(chosen) >= MAX_ENDPOINTS:
                    continue
                # IPv4 sorts before IPv6: of a pod with both, one address stands for it, always the same.
                if before is None or _rank(each.address_type, endpoint) < _rank(*before):
                    chosen[identity] = (each.address_type, endpoint)
        return frozenset(endpoint for _, endpoint in chosen.values())

    def _put(self, each: Slice) -> None:
        if each.metadata.name in self._slices or len(self._slices) < MAX_SLICES:
            self._slices[each.metadata.name] = each


def ready_urls(endpoints: Iterable[Endpoint], scheme: str = "http") -> frozenset[str]:
    """Return the base addresses of those that take new work."""
    return frozenset(endpoint.url(scheme) for endpoint in endpoints if endpoint.is_ready)


def _endpoints(each: Slice, wanted: str) -> Iterator[tuple[str, Endpoint]]:
    """Yield the endpoints of a slice, each with what it is: the pod, or the address where no pod is named."""
    number = _port(each.ports, wanted)
    if number is None:
        return
    for endpoint in each.endpoints or ():
        host = _host(each.address_type, endpoint.addresses)
        if not host:
            continue
        conditions = endpoint.conditions or _Conditions()
        target = endpoint.target_ref or _Target()
        yield (
            target.uid or target.name or host,
            Endpoint(
                host=host,
                port=number,
                is_ready=conditions.ready is not False and not conditions.terminating,
                node=endpoint.node_name or "",
                zone=endpoint.zone or "",
                target=target.name,
            ),
        )


def _rank(address_type: str, endpoint: Endpoint) -> tuple[bool, str, str]:
    """Order two sightings of one pod: what is ready in any slice is ready, then the lower address family and address."""
    return (not endpoint.is_ready, address_type, endpoint.host)


def _port(ports: Sequence[_Port] | None, wanted: str) -> int | None:
    """Return the number of the port meant, None when the slice has none such; no list at all stands for every port."""
    if wanted.isdigit():
        number = int(wanted)
        is_there = not ports or any(port.port in {None, number} for port in ports)
        return number if is_there and 0 < number <= _MAX_PORT else None
    named = [port for port in ports or () if not wanted or port.name == wanted]
    numbers = {port.port for port in named if port.port is not None and 0 < port.port <= _MAX_PORT}
    return numbers.pop() if len(numbers) == 1 else None


def _host(address_type: str, addresses: Sequence[str] | None) -> str:
    """Return the first address when it is one of its type, else ""; it becomes part of a URL."""
    first = addresses[0] if addresses else ""
    if address_type == "FQDN":
        return first if _HOST.fullmatch(first) else ""
    try:
        address = ipaddress.ip_address(first)
    except ValueError:
        return ""
    is_of_type = {"IPv4": address.version == 4, "IPv6": address.version == 6}.get(address_type, False)  # noqa: PLR2004 - their names
    return str(address) if is_of_type and "%" not in first else ""
