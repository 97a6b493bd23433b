from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from cloud.app import cluster, run
from cloud.cluster_config import ClusterConfig
from cloud.settings import CloudSettings
from coordinator import wire
from coordinator.memory_bus import MemoryBus
from coordinator.remote import RemoteCompleter
from coordinator.settings import load
from models.errors import CloudUnreachableError, ConfigError
from models.prompts import Message, Prompt
from tests import real_time
from tests.cloud.test_upstream import ANSWER, Stub


class Good(Stub):
    """Answers every question and lists its models."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await super().serve(reader, writer)
        writer.write(ANSWER if self.requests[-1][0].startswith("POST") else b"HTTP/1.0 200 OK\r\n\r\n{}")
        await writer.drain()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


CLUSTER = """
cloud_cluster:
  llm_service:
    models:
      - {name: qwen-72b, replicas: 8, gpu_per_replica: 4, max_batch_size: 32}
      - {name: qwen-14b, replicas: 12, gpu_per_replica: 2, max_batch_size: 64, urls: ["http://a:1", "http://b:2"]}
    load_balancing: {strategy: complexity_aware, fallback_enabled: false, timeout: 12}
  management:
    monitoring: {prometheus: true, grafana: true}
"""


@pytest.fixture
def cluster_file(tmp_path: Path) -> str:
    path = tmp_path / "cluster.yaml"
    path.write_text(CLUSTER, encoding="utf-8")
    return str(path)


def told(**environ: str) -> ClusterConfig:
    return cluster(load(CloudSettings, {f"CLOUD_{name}": value for name, value in environ.items()}))


def test_without_a_cluster_s_file_there_is_the_one_pool_of_the_settings() -> None:
    config = told(
        POOL="p",
        UPSTREAM_URL="http://a:1, http://b:2",
        UPSTREAM_MODEL="m",
        MAX_RUNNING="5",
        TIMEOUT_S="7",
        UPSTREAM_VISION="1",
    )
    (pool,) = config.pools
    assert (pool.name, pool.asked_as, pool.urls, pool.max_batch_size) == ("p", "m", ("http://a:1", "http://b:2"), 5)
    assert (pool.vision, config.load_balancing.timeout, config.load_balancing.fallback_enabled) == (True, 7, True)


def test_a_cluster_s_file_names_the_pools_and_the_address_has_the_rest(cluster_file: str) -> None:
    config = told(CLUSTER_CONFIG=cluster_file, UPSTREAM_URL="http://vllm-{pool}:8000")
    assert [pool.urls for pool in config.pools] == [("http://vllm-qwen-72b:8000",), ("http://a:1", "http://b:2")]
    assert [pool.max_batch_size for pool in config.pools] == [32, 64]
    assert [note.field for note in config.notes] == ["cloud_cluster.management.monitoring.grafana"]
    (only,) = told(CLUSTER_CONFIG=cluster_file, SERVED_POOLS="qwen-14b").pools
    assert only.name == "qwen-14b"


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"UPSTREAM_URL": "vllm:8000"}, "write http://host:port"),
        ({"UPSTREAM_URL": " , "}, "set CLOUD_UPSTREAM_URL"),
        ({"CLUSTER_CONFIG": "/no/such/file"}, "/no/such/file"),
    ],
)
def test_pools_that_cannot_be_are_config_errors(environ: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        told(**environ)


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({}, "cannot connect to NATS"),
        ({"CLOUD_NATS_NKEY_SEED_FILE": "/no/such/file"}, "/no/such/file"),
        ({"CLOUD_NATS_URL": "nats://h:notaport"}, "no NATS address"),
    ],
)
def test_what_keeps_a_worker_from_starting_is_a_config_error(
    unused_tcp_port: int, environ: dict[str, Any], words: str
) -> None:
    settings = {"CLOUD_NATS_URL": f"nats://127.0.0.1:{unused_tcp_port}", "CLOUD_NATS_CONNECT_S": "0.1", **environ}

    async def scenario() -> None:
        with pytest.raises(ConfigError, match=words):
            await run(load(CloudSettings, settings), "", asyncio.Event())

    real_time.run(scenario())


def test_a_worker_serves_its_pool_until_it_is_told_to_stop(
    monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int
) -> None:
    bus = MemoryBus()

    @asynccontextmanager
    async def connect(*_where: object, **_options: object) -> AsyncGenerator[MemoryBus, None]:
        yield bus

    monkeypatch.setattr("cloud.app.NatsBus.connect", connect)
    settings = {"CLOUD_POOL": "p", "CLOUD_WORKER_ID": "w", "CLOUD_UPSTREAM_URL": f"http://127.0.0.1:{unused_tcp_port}"}
    prompt = Prompt(turn_id="t", messages=(Message(role="user", text="一"),))

    async def ask() -> None:
        async with aclosing(RemoteCompleter(bus, "p", "edge-1").complete(prompt)) as deltas:
            async for _ in deltas:
                pass

    async def scenario() -> None:
        stop = asyncio.Event()
        async with bus.subscribe(wire.pool_beat_subject("p", "*")) as beats:
            running = asyncio.create_task(run(load(CloudSettings, {**settings, "CLOUD_HTTP_PORT": "0"}), "", stop))
            beat = wire.decode_pool_beat((await anext(aiter(beats))).payload)
            assert beat == wire.PoolBeat(pool="p", worker_id="w", model="p", max_running=8, ready=False)
        with pytest.raises(CloudUnreachableError, match="ConnectError"):
            await ask()
        stop.set()
        await running
        with pytest.raises(CloudUnreachableError, match="no worker serves this pool"):
            await ask()

    real_time.run(scenario())


def test_one_worker_serves_the_pools_of_a_cluster_s_file_and_says_which_have_no_replica(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, unused_tcp_port: int
) -> None:
    bus = MemoryBus()

    @asynccontextmanager
    async def connect(*_where: object, **_options: object) -> AsyncGenerator[MemoryBus, None]:
        yield bus

    monkeypatch.setattr("cloud.app.NatsBus.connect", connect)
    path = tmp_path / "cluster.yaml"
    prompt = Prompt(turn_id="t", messages=(Message(role="user", text="一"),))

    async def get(port: int, page: str) -> tuple[int, str]:
        async with httpx.AsyncClient(trust_env=False) as client:
            response = await client.get(f"http://127.0.0.1:{port}{page}")
            return response.status_code, response.text

    async def ask(pool: str) -> str:
        async with aclosing(RemoteCompleter(bus, pool, "edge-1").complete(prompt)) as deltas:
            return "".join([delta.text async for delta in deltas])

    async def scenario() -> None:
        async with Good().served() as url:
            path.write_text(CLUSTER.replace("http://a:1", url).replace(', "http://b:2"', ""), encoding="utf-8")
            environ = {
                "CLOUD_CLUSTER_CONFIG": str(path),
                "CLOUD_UPSTREAM_URL": f"http://127.0.0.1:{unused_tcp_port}",
                "CLOUD_HTTP_PORT": str(port := free_port()),
                "CLOUD_WORKER_ID": "w",
            }
            stop = asyncio.Event()
            async with bus.subscribe(wire.pool_beat_subject("qwen-14b", "*")) as beats:
                running = asyncio.create_task(run(load(CloudSettings, environ), "", stop))
                async for message in beats:
                    if wire.decode_pool_beat(message.payload).ready:
                        break
            assert await ask("qwen-14b") == "一百度"
            with pytest.raises(CloudUnreachableError):
                await ask("qwen-72b")
            status, said = await get(port, "/readyz")
            assert status == 503
            assert "pool qwen-72b" in said
            assert "1 new" in said
            assert "qwen-14b" not in said
            metrics = (await get(port, "/metrics"))[1]
            assert f'voice_cloud_replica_state{{pool="qwen-14b",replica="{url[7:]}",state="ready"}} 1.0' in metrics
            assert 'voice_cloud_pool_replicas_wanted{pool="qwen-72b"} 8.0' in metrics
            stop.set()
            await running

    real_time.run(scenario())
