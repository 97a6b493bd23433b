"""Composition root of the process that scales a pool: ``python -m cloud.scaler_process``. One at a time per Deployment."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping

import structlog
from prometheus_client import CollectorRegistry, Gauge

from cloud.readings import MetricsReader
from cloud.scaler import Look, ScaleApi, Scaler
from cloud.scaler_settings import ScalerSettings
from cloud.vllm_metrics import parse
from coordinator.cluster.api import KubernetesApi, check_installed
from coordinator.metrics import Metrics
from coordinator.probes import probes, serve_http
from coordinator.process import main

_log = structlog.get_logger()


async def run(
    settings: ScalerSettings, _role: str, stop: asyncio.Event, *, connect: Callable[[], ScaleApi] = KubernetesApi
) -> None:
    """Scale until ``stop`` is set; raise ConfigError for what keeps it from starting."""
    if connect is KubernetesApi:
        check_installed()
    metrics = Metrics(CollectorRegistry())
    async with MetricsReader.connect(parse, port=settings.replica_port) as readings:
        scaler = Scaler(
            await asyncio.to_thread(connect),
            settings.deployment,
            settings.rules,
            readings,
            namespace=settings.namespace,
            dry_run=settings.dry_run,
            tick_s=settings.tick_s,
            observe=observer(metrics.registry, settings.deployment),
        )

        def not_ready() -> Mapping[str, str]:
            return {"kubernetes": scaler.problem} if scaler.problem else {}

        app = probes(metrics, not_ready=not_ready)
        async with (
            serve_http(app, settings.http_host, settings.http_port, variable="SCALER_HTTP_PORT") as port,
            asyncio.TaskGroup() as tasks,
        ):
            scaling = tasks.create_task(scaler.run(), name="scale")
            _log.info("scaler_ready", deployment=settings.deployment, port=port)
            await stop.wait()
            scaling.cancel()


def observer(registry: CollectorRegistry, deployment: str) -> Callable[[Look], None]:
    """Return what shows looks as metrics."""
    replicas = Gauge(
        "voice_scaling_replicas",
        "Replicas of a Deployment: wanted, in its spec, its pods, and those that told their load",
        ["deployment", "kind"],
        registry=registry,
    )
    reason = Gauge("voice_scaling_reason", "1 for the reason of the last decision", ["reason"], registry=registry)

    def observe(look: Look) -> None:
        kinds = {"wanted": look.decision.replicas, "spec": look.spec, "pods": look.pods, "asked": look.load.asked}
        for kind, count in kinds.items():
            replicas.labels(deployment, kind).set(count)
        reason.clear()
        reason.labels(look.decision.reason).set(1)

    return observe


if __name__ == "__main__":
    sys.exit(main(ScalerSettings, run, program="python -m cloud.scaler_process", about="Scale a pool of models."))
