"""Composition root of a cloud worker."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import structlog
from prometheus_client import CollectorRegistry

from cloud.admission import Admission, Terms
from cloud.cluster_config import ClusterConfig, LoadBalancing, PoolConfig, read_cluster_config
from cloud.discovery import discover, is_service, replicas
from cloud.pool import Connect, ReplicaPool
from cloud.pool_metrics import PoolMetrics
from cloud.replica import Replica, Upstream
from cloud.settings import CloudSettings
from cloud.upstream import OpenAIUpstream
from cloud.worker import PoolWorker
from coordinator.metrics import Metrics
from coordinator.nats_bus import NatsBus
from coordinator.probes import probes, serve_http
from models.errors import ConfigError

_log = structlog.get_logger()


def cluster(settings: CloudSettings) -> ClusterConfig:
    """Return the pools to serve, each with its replicas' addresses; raise ConfigError for a file or an address that is wrong."""
    if settings.cluster_config is None:
        pool = PoolConfig(
            name=settings.pool,
            replicas=len(_addresses(settings.upstream_url)),
            max_batch_size=settings.max_running,
            model=settings.upstream_model,
            urls=_addresses(settings.upstream_url),
            vision=settings.upstream_vision,
        )
        return ClusterConfig(pools=(pool,), load_balancing=LoadBalancing(timeout=settings.timeout_s))
    config = read_cluster_config(settings.cluster_config)
    pools = tuple(
        pool if pool.urls else pool.model_copy(update={"urls": _addresses(settings.upstream_url, pool.name)})
        for pool in config.chosen(settings.served_pools)
    )
    return config.model_copy(update={"pools": pools})


def _addresses(text: str, pool: str = "") -> tuple[str, ...]:
    """Return the addresses in a list with commas, each checked; a Service of Kubernetes counts as one."""
    if is_service(text):
        return (text.strip().replace("{pool}", pool),)
    urls = tuple(url.strip().replace("{pool}", pool) for url in text.split(",") if url.strip())
    if not urls:
        raise ConfigError("no upstream's address is given: set CLOUD_UPSTREAM_URL")
    for url in urls:
        Replica.at(url)
    return urls


def _connect(settings: CloudSettings, pool: PoolConfig) -> Connect:
    @asynccontextmanager
    async def connect(replica: Replica) -> AsyncGenerator[Upstream, None]:
        async with OpenAIUpstream.connect(
            replica.url,
            pool.asked_as,
            api_key=settings.upstream_api_key.get_secret_value(),
            has_vision=pool.vision,
            max_running=pool.max_batch_size,
            first_token_s=settings.first_token_s,
            stall_s=settings.stall_s,
        ) as upstream:
            yield upstream

    return connect


def _not_ready(bus: NatsBus, pools: Sequence[ReplicaPool]) -> Mapping[str, str]:
    reasons = {} if bus.is_connected else {"nats": "not connected"}
    return reasons | {f"pool {pool.name}": _without_replica(pool) for pool in pools if not pool.is_ready}


def _without_replica(pool: ReplicaPool) -> str:
    states = [load.state.value for load in pool.loads()]
    counted = ", ".join(f"{states.count(state)} {state}" for state in sorted(set(states)))
    return f"no replica is ready ({counted or 'it has none'})"


@asynccontextmanager
async def _opened(
    settings: CloudSettings, config: ClusterConfig
) -> AsyncGenerator[dict[PoolConfig, ReplicaPool], None]:
    """Open the pools with the replicas they are configured with."""
    async with AsyncExitStack() as stack:
        pools: dict[PoolConfig, ReplicaPool] = {}
        for each in config.pools:
            pool = ReplicaPool(
                each.name,
                _connect(settings, each),
                per_replica=each.max_batch_size,
                timeout_s=config.load_balancing.timeout,
                retries=config.load_balancing.fallback_enabled,
            )
            pools[each] = await stack.enter_async_context(pool.opened())
            await stack.enter_async_context(discover(replicas(",".join(each.urls)), partial(_changed, pool)))
        yield pools


def _changed(pool: ReplicaPool, urls: Collection[str]) -> None:
    pool.change([Replica.at(url) for url in sorted(urls)])


def _worker(
    settings: CloudSettings, bus: NatsBus, metrics: Metrics, config: PoolConfig, pool: ReplicaPool
) -> PoolWorker:
    return PoolWorker(
        bus,
        config.name,
        pool,
        worker_id=settings.worker_id,
        model=config.asked_as,
        observe=lambda result: metrics.cloud_requests.labels(result).inc(),
        is_upstream_ready=lambda: pool.is_ready,
        admission=Admission(
            Terms(
                max_running=config.max_batch_size * max(1, config.replicas, len(config.urls)),
                max_waiting=settings.max_waiting,
                edge_rate_hz=settings.edge_rate_hz,
                edge_burst=settings.edge_burst,
                max_per_device=settings.max_per_device,
                preload_share=settings.preload_share,
            )
        ),
    )


def _waiting(worker: PoolWorker) -> int:
    return worker.admission.waiting


async def run(settings: CloudSettings, _role: str, stop: asyncio.Event) -> None:
    """Run the worker until ``stop`` is set; raise ConfigError for what keeps it from starting."""
    metrics = Metrics(CollectorRegistry())
    config = cluster(settings)
    for note in config.notes:
        _log.info("cluster_config_not_ours", field=note.field, reason=note.reason)
    async with (
        NatsBus.connect(
            settings.nats_url,
            name=f"cloud-{settings.worker_id}",
            nkey_seed=settings.nkey_seed,
            connect_s=settings.nats_connect_s,
            on_state=metrics.bus_connected.set,
            on_drop=metrics.dropped.labels("bus").inc,
        ) as bus,
        _opened(settings, config) as pools,
    ):
        served = list(pools.values())
        metrics.registry.register(PoolMetrics(served, {each.name: each.replicas for each in config.pools}))
        metrics.cloud_running.set_function(lambda: sum(pool.outstanding for pool in served))
        workers = [_worker(settings, bus, metrics, each, pool) for each, pool in pools.items()]
        for pool, worker in zip(served, workers, strict=True):
            metrics.queue_size.labels(pool.name).set_function(partial(_waiting, worker))
        app = probes(metrics, not_ready=lambda: _not_ready(bus, served))
        async with (
            serve_http(app, settings.http_host, settings.http_port, variable="CLOUD_HTTP_PORT") as port,
            asyncio.TaskGroup() as tasks,
        ):
            working = [tasks.create_task(worker.run(), name="worker") for worker in workers]
            for worker in workers:
                await worker.ready.wait()
            _log.info("worker_ready", pools=[pool.name for pool in served], port=port)
            await stop.wait()
            await asyncio.gather(*(worker.drain(settings.drain_s) for worker in workers))
            for task in working:
                task.cancel()
