"""What can be seen of the one-machine site without engines; the whole of it runs in the demo."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from manifests import local
from manifests.check import settings_readers
from manifests.local import CLOUD_MODEL, POOL, Site, site
from manifests.processes import Children, children
from models.errors import CatalogError, ConfigError
from tests.real_time import run

S3 = {"url": "http://127.0.0.1:8333", "access_key": "site", "secret_key": "s3-secret"}
ROLES = ("coordinator", "cloud-worker", "edge-brain", "edge-gateway")


class FakeSite:
    """Servers that need no process, and roles that only note what they would have been started with."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.roles: dict[str, tuple[list[str], Mapping[str, str], int]] = {}
        self.asked: list[str] = []

        async def nats(group: Children, base: Path, report: local.Report) -> tuple[str, str, Path]:
            return "nats://127.0.0.1:1", "nats://127.0.0.1:2", base / "keys"

        async def redis(group: Children, report: local.Report) -> str:
            return "redis://127.0.0.1:3/0"

        async def seaweedfs(group: Children, base: Path, report: local.Report) -> dict[str, str]:
            return S3

        async def role(starter: object, name: str, module: list[str], env: Mapping[str, str], port: int) -> None:
            self.roles[name] = (module, env, port)

        async def edge_is_known(url: str) -> None:
            self.asked.append(url)

        monkeypatch.setattr(local.servers, "nats", nats)
        monkeypatch.setattr(local.servers, "redis", redis)
        monkeypatch.setattr(local.servers, "seaweedfs", seaweedfs)
        monkeypatch.setattr(local._Starter, "_role", role)
        monkeypatch.setattr(local, "_edge_is_known", edge_is_known)

    def start(self, directory: Path, **options: object) -> Site:
        async def scenario() -> Site:
            async with site(directory=directory, cloud_url="http://127.0.0.1:9", **options) as up:  # type: ignore[arg-type]  # a test's options
                return up

        return run(scenario())


def test_every_role_is_told_what_it_needs_and_understands_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeSite(monkeypatch)
    up = fake.start(tmp_path, engines="scripted", models_root=tmp_path / "models", edge_env={"EDGE_REGION": "here"})
    assert [(name, module) for name, (module, _, _) in fake.roles.items()] == [
        ("coordinator", ["coordinator"]),
        ("cloud-worker", ["cloud"]),
        ("edge-brain", ["edge", "brain"]),
        ("edge-gateway", ["edge", "gateway"]),
    ]
    readers = settings_readers()
    for name, (_, env, _) in fake.roles.items():
        readers[{"coordinator": "COORDINATOR_", "cloud": "CLOUD_", "edge": "EDGE_"}[name.split("-")[0]]](env)
    coordinator, cloud, brain, gateway = (fake.roles[name][1] for name in ROLES)
    assert coordinator["COORDINATOR_NATS_URL"] == cloud["CLOUD_NATS_URL"] == up.hub_url
    assert coordinator["COORDINATOR_NATS_NKEY_SEED_FILE"].endswith("keys/coordinator.nk")
    assert cloud["CLOUD_NATS_NKEY_SEED_FILE"].endswith("keys/cloud.nk")
    assert brain["EDGE_NATS_URL"] == gateway["EDGE_NATS_URL"] == up.leaf_url == up.nats_url
    assert coordinator["COORDINATOR_DEVICE_TOKEN_SECRET"] == gateway["EDGE_DEVICE_TOKEN_SECRET"]
    assert len(gateway["EDGE_DEVICE_TOKEN_SECRET"]) >= 32
    assert cloud["CLOUD_POOL"] == brain["EDGE_POOL"] == POOL
    assert (cloud["CLOUD_UPSTREAM_URL"], cloud["CLOUD_UPSTREAM_MODEL"]) == ("http://127.0.0.1:9", CLOUD_MODEL)
    assert (brain["EDGE_S3_URL"], brain["EDGE_S3_SECRET_KEY"]) == (S3["url"], S3["secret_key"])
    assert (brain["EDGE_ENGINES"], brain["EDGE_REGION"]) == ("scripted", "here")
    assert brain["EDGE_MODELS_ROOT"] == str(tmp_path / "models")


def test_every_role_listens_where_it_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = FakeSite(monkeypatch)
    up = fake.start(tmp_path)
    ports = [port for _, _, port in fake.roles.values()]
    assert len({*ports, fake.roles["edge-gateway"][1]["EDGE_GATEWAY_PORT"]}) == 5
    for _, env, port in fake.roles.values():
        assert str(port) in {value for variable, value in env.items() if variable.endswith("_HTTP_PORT")}
    assert fake.asked == [up.ota_url] == [f"http://127.0.0.1:{ports[0]}/xiaozhi/ota/"]
    assert set(up.addresses) >= {"NATS hub", "NATS leaf", "Redis", "S3", "cloud model", "devices", "bootstrap (OTA)"}
    assert "s3-secret" not in str(up)


async def _sleeper(group: Children, name: str) -> None:
    await group.start(name, [sys.executable, "-c", "import time; time.sleep(600)"])


def test_a_missing_cloud_model_is_one_line_and_nothing_is_left_running(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups: list[Children] = []
    going_on: list[str] = []

    async def nats(group: Children, base: Path, report: local.Report) -> tuple[str, str, Path]:
        groups.append(group)
        await _sleeper(group, "nats-hub")
        await asyncio.sleep(600)
        going_on.append("the failure of another part did not stop this one")
        return "", "", base

    async def other(group: Children, *_: object) -> str:
        await _sleeper(group, "other")
        return ""

    started: list[Children] = []
    stop = Children.stop

    async def watched(group: Children) -> None:
        running = list(group.running)
        await stop(group)
        assert all(child.has_ended() for child in running)
        started.append(group)

    monkeypatch.setattr(local.servers, "nats", nats)
    monkeypatch.setattr(local.servers, "redis", other)
    monkeypatch.setattr(local.servers, "seaweedfs", other)
    monkeypatch.setattr(Children, "stop", watched)

    async def scenario() -> None:
        async with site(directory=tmp_path, models_root=tmp_path):
            pass

    with pytest.raises(CatalogError, match=f"{CLOUD_MODEL}.* is missing; run: xiaozhi-fleet models pull") as caught:
        run(scenario())
    assert "\n" not in str(caught.value)
    assert groups == started
    assert groups[0].running == []
    assert going_on == []


def test_a_role_that_cannot_start_is_named_with_its_words(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with children(tmp_path) as group:
            starter = local._Starter(group, tmp_path, lambda _line: None, None)
            await starter._role("cloud-worker", ["cloud"], {"CLOUD_POOLS": "1"}, 1)

    with pytest.raises(ConfigError, match=r"cloud-worker ended with status \d:\n.*CLOUD_POOLS: no such setting"):
        run(scenario())


def test_children_are_found_by_role(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with children(tmp_path) as group:
            for name in ("edge-brain", "edge-gateway", "redis"):
                await _sleeper(group, name)
            up = Site({}, "", "", "nats://leaf", tmp_path / "operator.nk", tmp_path, group)
            brain = up.child("edge-brain")
            assert up.pids("edge") == [brain.pid, up.child("edge-gateway").pid]
            brain.process.kill()
            await brain.process.wait()
            assert up.pids("edge") == [up.child("edge-gateway").pid]
            with pytest.raises(KeyError, match="edge-moon"):
                up.child("edge-moon")

    run(scenario())


def test_an_edge_that_bootstrap_never_hands_out_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def no_wait(_seconds: float) -> None:
        pass

    monkeypatch.setattr(local.asyncio, "sleep", no_wait)
    with pytest.raises(ConfigError, match=r"coordinator at http://127\.0\.0\.1:1/ does not hand out the edge"):
        run(local._edge_is_known("http://127.0.0.1:1/"))
