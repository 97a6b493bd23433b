"""Composition root of a cloud worker."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import structlog
from prometheus_client import CollectorRegistry

from cloud.settings import CloudSettings
from cloud.upstream import OpenAIUpstream
from cloud.worker import PoolWorker
from coordinator.bus import NatsBus
from coordinator.metrics import Metrics
from coordinator.probes import probes, serve_http

_log = structlog.get_logger()

PROBE_S = 1.0
"""How often the upstream is asked whether it lives."""


class _Upstream:
    """Whether the upstream answered its last probe."""

    def __init__(self, upstream: OpenAIUpstream) -> None:
        self.is_ready = False
        self._upstream = upstream

    async def watch(self) -> None:
        """Probe until cancelled."""
        while True:
            was_ready, self.is_ready = self.is_ready, await self._upstream.is_ready()
            if was_ready != self.is_ready:
                _log.info("upstream_changed", ready=self.is_ready)
            await asyncio.sleep(PROBE_S)


def _not_ready(bus: NatsBus, upstream: _Upstream) -> Mapping[str, str]:
    reasons = {} if bus.is_connected else {"nats": "not connected"}
    return reasons if upstream.is_ready else {**reasons, "upstream": "does not answer GET /v1/models"}


async def run(settings: CloudSettings, _role: str, stop: asyncio.Event) -> None:
    """Run the worker until ``stop`` is set; raise ConfigError for what keeps it from starting."""
    metrics = Metrics(CollectorRegistry())
    model = settings.upstream_model or settings.pool
    async with (
        NatsBus.connect(
            settings.nats_url,
            name=f"cloud-{settings.worker_id}",
            nkey_seed=settings.nkey_seed,
            connect_s=settings.nats_connect_s,
            on_state=metrics.bus_connected.set,
            on_drop=metrics.dropped.labels("bus").inc,
        ) as bus,
        OpenAIUpstream.connect(
            settings.upstream_url,
            model,
            api_key=settings.upstream_api_key.get_secret_value(),
            first_token_s=settings.first_token_s,
            stall_s=settings.stall_s,
        ) as upstream,
    ):
        health = _Upstream(upstream)
        worker = PoolWorker(
            bus,
            settings.pool,
            upstream,
            worker_id=settings.worker_id,
            model=model,
            max_running=settings.max_running,
            observe=lambda result: metrics.cloud_requests.labels(result).inc(),
            running_changed=metrics.cloud_running.set,
            is_upstream_ready=lambda: health.is_ready,
        )

        app = probes(metrics, not_ready=lambda: _not_ready(bus, health))
        async with (
            serve_http(app, settings.http_host, settings.http_port, variable="CLOUD_HTTP_PORT") as port,
            asyncio.TaskGroup() as tasks,
        ):
            watching = tasks.create_task(health.watch(), name="watch-upstream")
            working = tasks.create_task(worker.run(), name="worker")
            await worker.ready.wait()
            _log.info("worker_ready", pool=settings.pool, port=port)
            await stop.wait()
            await worker.drain(settings.drain_s)
            working.cancel()
            watching.cancel()
