"""The one-machine site: real small servers and our roles as child processes, for the demo, ``up``, benchmarks and tests.

    nats hub (JetStream) == leaf of the edge     Redis     SeaweedFS (S3)     llama.cpp's OpenAI-compatible server
    coordinator service     cloud worker     edge gateway     edge brain

Everything listens on free ports of 127.0.0.1, writes its log into one directory, and ends with this process.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from manifests import servers
from manifests.processes import Child, Children, answers, children, free_ports, together
from models.errors import ConfigError
from models.store import locate

POOL = "qwen-14b"
"""Name under which the edge asks; on one machine the small cloud model below stands in for it."""
CLOUD_MODEL = "qwen2.5-coder-1.5b-instruct-q4_k_m"
ROLE_READY_S = 90.0
"""Engines load in 5 to 15 s on two cores, longer when the disk is cold."""

Report = Callable[[str], None]


def _quiet(_line: str) -> None:
    """Report nothing."""


@dataclass(frozen=True, slots=True)
class Site:
    """A running site and how to reach it."""

    addresses: Mapping[str, str]
    """Name to address, for people."""
    ota_url: str
    hub_url: str
    leaf_url: str
    operator_seed: Path
    """Key of a person at the hub."""
    directory: Path
    group: Children = field(repr=False)

    @property
    def nats_url(self) -> str:
        """Where records of turns can be heard."""
        return self.leaf_url

    def pids(self, role: str) -> list[int]:
        """Return the process ids of the children whose name starts with ``role``, e.g. "edge"."""
        return [child.pid for child in self.group.running if child.name.startswith(role) and not child.has_ended()]

    def child(self, name: str) -> Child:
        """Return the running child of this name; raise KeyError when there is none."""
        for child in self.group.running:
            if child.name == name:
                return child
        raise KeyError(name)


@asynccontextmanager
async def site(
    *,
    engines: str = "real",
    directory: Path | None = None,
    models_root: Path | None = None,
    report: Report = _quiet,
    edge_env: Mapping[str, str] | None = None,
    cloud_url: str | None = None,
) -> AsyncGenerator[Site, None]:
    """Start a whole site and stop it when left; raise ConfigError naming the part that did not come up.

    ``engines`` is "real" or "scripted" (edge engines with planned delays, for load only). ``cloud_url`` takes the place of the local
    OpenAI-compatible server. ``directory`` must exist.
    """
    with tempfile.TemporaryDirectory(prefix="xiaozhi-fleet-") as temporary:
        base = directory or Path(temporary)
        async with children(base) as group:
            yield await _Starter(group, base, report, models_root).start(engines, edge_env or {}, cloud_url)


@dataclass(frozen=True, slots=True)
class _Servers:
    """Addresses of what runs before our roles do."""

    hub_url: str
    leaf_url: str
    keys: Path
    """Folder with the NKey seeds of cloud, coordinator and operator."""
    redis_url: str
    s3: Mapping[str, str]
    upstream_url: str


@dataclass(frozen=True, slots=True)
class _Ports:
    """Where our roles listen; ``devices`` for devices, the others for HTTP."""

    coordinator: int
    cloud: int
    devices: int
    gateway: int
    brain: int


_Role = tuple[str, list[str], dict[str, str], int]
"""Name, module with its arguments, environment, and the port of its probes."""


@dataclass(slots=True)
class _Starter:
    group: Children
    base: Path
    report: Report
    models_root: Path | None

    async def start(self, engines: str, edge_env: Mapping[str, str], cloud_url: str | None) -> Site:
        began = time.monotonic()
        up = await self._servers(cloud_url)
        ports = _Ports(*free_ports(5))
        models = {"EDGE_MODELS_ROOT": str(self.models_root)} if self.models_root else {}
        state = {"EDGE_STATE_DIR": str(self.base / "edge-state")}
        roles = _roles(up, ports, {"EDGE_ENGINES": engines, **state, **models, **edge_env})
        async with together() as tasks:
            for name, module, env, port in roles:
                tasks.create_task(self._role(name, module, env, port))
        addresses = _addresses(up, ports)
        await _edge_is_known(addresses["bootstrap (OTA)"])
        self.report(f"site is up after {time.monotonic() - began:.1f} s; logs in {self.base}")
        return Site(
            addresses,
            addresses["bootstrap (OTA)"],
            up.hub_url,
            up.leaf_url,
            up.keys / "operator.nk",
            self.base,
            self.group,
        )

    async def _servers(self, cloud_url: str | None) -> _Servers:
        """Start NATS, Redis, S3 and the cloud model side by side."""
        async with together() as tasks:
            nats = tasks.create_task(servers.nats(self.group, self.base, self.report))
            redis = tasks.create_task(servers.redis(self.group, self.report))
            s3 = tasks.create_task(servers.seaweedfs(self.group, self.base, self.report))
            upstream = tasks.create_task(self._cloud_model(cloud_url))
        return _Servers(*nats.result(), redis.result(), s3.result(), upstream.result())

    async def _cloud_model(self, cloud_url: str | None) -> str:
        if cloud_url:
            return cloud_url
        return await servers.llama(self.group, locate(CLOUD_MODEL, self.models_root)["model"], CLOUD_MODEL, self.report)

    async def _role(self, name: str, module: list[str], env: Mapping[str, str], port: int) -> None:
        child = await self.group.start(name, [sys.executable, "-m", *module], env=env)
        took_s = await self.group.wait_ready(child, lambda: answers(f"http://127.0.0.1:{port}/readyz"), ROLE_READY_S)
        self.report(f"{name} ready after {took_s:.1f} s")


def _roles(up: _Servers, ports: _Ports, edge_env: Mapping[str, str]) -> list[_Role]:
    """Return our processes and what each is told."""
    secret = secrets.token_urlsafe(32)
    coordinator = {
        "COORDINATOR_NATS_URL": up.hub_url,
        "COORDINATOR_NATS_NKEY_SEED_FILE": str(up.keys / "coordinator.nk"),
        "COORDINATOR_HTTP_PORT": str(ports.coordinator),
        "COORDINATOR_DEVICE_TOKEN_SECRET": secret,
        "COORDINATOR_KEEP_TURNS_HOURS": "1",  # for explain; what is kept ends with the site's directory
    }
    cloud = {
        "CLOUD_NATS_URL": up.hub_url,
        "CLOUD_NATS_NKEY_SEED_FILE": str(up.keys / "cloud.nk"),
        "CLOUD_POOL": POOL,
        "CLOUD_UPSTREAM_URL": up.upstream_url,
        "CLOUD_UPSTREAM_MODEL": CLOUD_MODEL,
        "CLOUD_HTTP_PORT": str(ports.cloud),
    }
    edge = {
        "EDGE_NATS_URL": up.leaf_url,
        "EDGE_DEVICE_TOKEN_SECRET": secret,
        "EDGE_POOL": POOL,
        "EDGE_FIRST_TOKEN_S": "10",  # the cloud here is a model on the same cores, slower to begin than a GPU
        "EDGE_GATEWAY_PORT": str(ports.devices),
        "EDGE_REDIS_URL": up.redis_url,
        "EDGE_S3_URL": up.s3["url"],
        "EDGE_S3_ACCESS_KEY": up.s3["access_key"],
        "EDGE_S3_SECRET_KEY": up.s3["secret_key"],
        **edge_env,
    }
    return [
        ("coordinator", ["coordinator"], coordinator, ports.coordinator),
        ("cloud-worker", ["cloud"], cloud, ports.cloud),
        ("edge-brain", ["edge", "brain"], {**edge, "EDGE_HTTP_PORT": str(ports.brain)}, ports.brain),
        ("edge-gateway", ["edge", "gateway"], {**edge, "EDGE_HTTP_PORT": str(ports.gateway)}, ports.gateway),
    ]


def _addresses(up: _Servers, ports: _Ports) -> dict[str, str]:
    """Return name to address, for people."""
    http = "http://127.0.0.1"
    return {
        "NATS hub": up.hub_url,
        "NATS leaf": up.leaf_url,
        "Redis": up.redis_url,
        "S3": up.s3["url"],
        "cloud model": up.upstream_url,
        "bootstrap (OTA)": f"{http}:{ports.coordinator}/xiaozhi/ota/",
        "devices": f"ws://127.0.0.1:{ports.devices}/xiaozhi/v1/",
        "coordinator metrics": f"{http}:{ports.coordinator}/metrics",
        "cloud worker metrics": f"{http}:{ports.cloud}/metrics",
        "gateway metrics": f"{http}:{ports.gateway}/metrics",
        "brain metrics": f"{http}:{ports.brain}/metrics",
    }


async def _edge_is_known(ota_url: str) -> None:
    """Wait until bootstrap hands out the edge, which takes one of its beats; raise ConfigError when it does not."""
    headers = {"Device-Id": "02:00:00:00:00:00", "Client-Id": "site"}
    status = 0
    async with httpx.AsyncClient(timeout=2.0, trust_env=False) as client:
        for _ in range(100):
            with contextlib.suppress(httpx.HTTPError):
                status = (await client.post(ota_url, headers=headers, json={})).status_code
            if status == httpx.codes.OK:
                return
            await asyncio.sleep(0.1)
    raise ConfigError(
        f"the coordinator at {ota_url} does not hand out the edge (HTTP {status}): see coordinator.log and edge-*.log"
    )
