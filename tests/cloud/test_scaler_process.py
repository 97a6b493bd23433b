from __future__ import annotations

import asyncio
import threading

import httpx
import pytest
from prometheus_client import CollectorRegistry

from cloud.removal import Plan
from cloud.scaler import Look
from cloud.scaler_process import observer, run
from cloud.scaler_settings import ScalerSettings
from cloud.scaling import Decision, Load
from coordinator.cluster import api
from coordinator.cluster.api import KubernetesApi
from coordinator.settings import load
from models.errors import ConfigError
from tests import real_time
from tests.coordinator.cluster.api_server import NAMESPACE, api_server, pod_document, says

PAGE = "vllm:num_requests_running 32\nvllm:num_requests_waiting 40\nvllm:kv_cache_usage_perc 0.7\n"


async def serve_page(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A replica's /metrics page."""
    await reader.readuntil(b"\r\n\r\n")
    writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {len(PAGE)}\r\nConnection: close\r\n\r\n{PAGE}".encode())
    await writer.drain()
    writer.close()


async def until_ready(port: int, *, ready: bool = True) -> httpx.Response:
    async with httpx.AsyncClient(trust_env=False) as client:
        while True:
            try:
                answer = await client.get(f"http://127.0.0.1:{port}/readyz")
                if (answer.status_code == 200) is ready and "not looked yet" not in answer.text:
                    return answer
            except httpx.ConnectError:
                pass
            await asyncio.sleep(0.02)


def free_port() -> int:
    import socket

    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def test_a_loaded_replica_gets_company_through_real_sockets() -> None:
    pytest.importorskip("kubernetes", reason="pip install 'xiaozhi-fleet[kubernetes]'")

    async def scenario() -> None:
        replica = await asyncio.start_server(serve_page, "127.0.0.1", 0)
        port = free_port()
        settings = load(
            ScalerSettings,
            {
                "SCALER_NAMESPACE": NAMESPACE,
                "SCALER_REPLICA_PORT": str(replica.sockets[0].getsockname()[1]),
                "SCALER_HTTP_PORT": str(port),
                "SCALER_UP_WINDOW_S": "0",
                "SCALER_TICK_S": "1",
            },
        )
        stop = asyncio.Event()
        with api_server() as server:
            server.pods = {"p": pod_document("p", "127.0.0.1")}
            running = asyncio.create_task(run(settings, "", stop, connect=lambda: KubernetesApi(server.url)))
            await until_ready(port)
            async with httpx.AsyncClient(trust_env=False) as client:
                page = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
            assert server.replicas == 3
            assert 'voice_scaling_replicas{deployment="vllm-qwen-72b",kind="wanted"} 3.0' in page
            assert 'voice_scaling_reason{reason="waiting"} 1.0' in page
            server.plan("get", says(403))
            assert "resources [deployments/scale]" in (await until_ready(port, ready=False)).text
            stop.set()
            await running
        replica.close()
        await replica.wait_closed()

    real_time.run(scenario())
    assert not [thread for thread in threading.enumerate() if thread.name == "api-server"]


def test_a_missing_library_ends_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match="pip install"):
        asyncio.run(run(load(ScalerSettings, {}), "", asyncio.Event()))


def test_metrics_show_the_last_look() -> None:
    registry = CollectorRegistry()
    observe = observer(registry, "d")
    load_ = Load(asked=2, running=1, waiting=0, kv_used=0.1)
    observe(Look(Decision(4, "work"), Plan(), 3, 3, load_))
    observe(Look(Decision(3, "steady"), Plan(), 4, 3, load_))
    shown = {kind: registry.get_sample_value("voice_scaling_replicas", {"deployment": "d", "kind": kind})
             for kind in ("wanted", "spec", "pods", "asked")}  # fmt: skip
    assert shown == {"wanted": 3, "spec": 4, "pods": 3, "asked": 2}
    assert registry.get_sample_value("voice_scaling_reason", {"reason": "steady"}) == 1
    assert registry.get_sample_value("voice_scaling_reason", {"reason": "work"}) is None
