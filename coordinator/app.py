"""The coordinator as a service: hears the edges' beats and tells booting devices where to go."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass

import msgspec
import structlog
from prometheus_client import CollectorRegistry
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from coordinator import wire
from coordinator.buckets import JetStreamBucket
from coordinator.bus import Bus
from coordinator.cluster.api import check_installed
from coordinator.cluster.endpoints import service_port
from coordinator.fleet.bootstrap import MAX_BODY_BYTES, answer, read_question
from coordinator.fleet.edge_endpoints import check_template, follow_edges
from coordinator.fleet.registry import Registry
from coordinator.fleet.tokens import mint
from coordinator.forecasting import Forecasting
from coordinator.jetstream import JetStream
from coordinator.metrics import Metrics
from coordinator.nats_bus import NatsBus
from coordinator.openai_api.access import keys_from
from coordinator.openai_api.choice import EDGE
from coordinator.openai_api.routes import OpenAIApi
from coordinator.policy_watch import PolicyWatch
from coordinator.preloading.forecaster import Judged
from coordinator.probes import probes, read_body, serve_http
from coordinator.remote import Asker, RemoteCompleter
from coordinator.routing.gain import GainModel
from coordinator.routing.policy import Conditions, Policy, PoolTerms
from coordinator.routing.router import Router
from coordinator.settings import CoordinatorSettings
from coordinator.stores import make_stores
from models.errors import ConfigError, DeviceProtocolError

_log = structlog.get_logger()

NAME = "coordinator"
"""What the service is called where edges have their names; its key's rights hold it to this one."""
MIN_SECRET_CHARS = 16
"""Shorter secrets can be guessed."""
_RETRY_S = "10"
"""Stock firmware waits 10 s before its second try (protocol §2.4)."""


@dataclass(frozen=True, slots=True)
class Bootstrap:
    """Answers devices at boot; the HTTP side of ``fleet.bootstrap``."""

    settings: CoordinatorSettings
    edges: Registry
    metrics: Metrics

    @property
    def routes(self) -> list[Route]:
        """The paths stock firmware and people use, with and without the last slash: firmware follows no redirect."""
        return [
            *(Route(path, self.boot, methods=["POST"]) for path in ("/xiaozhi/ota/", "/xiaozhi/ota")),
            *(Route(path, self.explain, methods=["GET"]) for path in ("/xiaozhi/ota/", "/xiaozhi/ota")),
            Route("/xiaozhi/ota/activate", self.activate, methods=["POST"]),
        ]

    async def boot(self, request: Request) -> Response:
        """Answer a device's question with an edge's address and a token for it."""
        body = await read_body(request, MAX_BODY_BYTES)
        if body is None:
            return self._refused(413, "the body is too large")
        try:
            question = read_question(request.headers, body)
        except DeviceProtocolError as error:
            return self._refused(400, str(error))
        edge = self.edges.choose(request.query_params.get("region", ""))
        websocket_url = edge.websocket_url if edge else self.settings.websocket_url
        if not websocket_url:
            return self._refused(
                503, "no edge with room is heard of; the device will ask again", {"Retry-After": _RETRY_S}
            )
        now_s = time.time()
        expires_at_s = int(now_s) + self.settings.token_ttl_s
        secret = self.settings.device_token_secret.get_secret_value()
        said = answer(
            question,
            websocket_url=websocket_url,
            token=mint(secret, question.device_id, question.client_id, expires_at_s),
            protocol_version=self.settings.protocol_version,
            now_ms=int(now_s * 1000),
            timezone_offset_min=self.settings.timezone_offset_min,
        )
        self.metrics.boots.labels("answered").inc()
        _log.info("device_booted", device=question.device_id, edge=edge.edge_id if edge else "", board=question.board)
        return JSONResponse(said)

    async def activate(self, _request: Request) -> Response:
        """Tell a device that it is activated: this fleet has no codes to type."""
        return JSONResponse({"status": "activated"})

    async def explain(self, _request: Request) -> Response:
        """Tell a person with a browser what this address is for."""
        alive = [beat.edge_id for beat in self.edges.alive()]
        return JSONResponse({"use": "set this address as the OTA URL of a Xiaozhi device", "edges": alive})

    def _refused(self, status: int, reason: str, headers: Mapping[str, str] | None = None) -> Response:
        self.metrics.boots.labels(str(status)).inc()
        return JSONResponse({"error": reason}, status, headers=headers)


async def hear_edges(bus: Bus, edges: Registry, metrics: Metrics) -> None:
    """Note every edge's beats until cancelled; raise CloudUnreachableError naming the reason when the bus closes."""
    metrics.edges_alive.set_function(lambda: len(edges.alive()))
    async with bus.subscribe(wire.edge_beat_subject("*")) as beats:
        async for message in beats:
            try:
                edges.saw(wire.decode_edge_beat(message.payload))
            except msgspec.MsgspecError:
                metrics.dropped.labels("edge-beat").inc()
    await bus.lost()


async def run(settings: CoordinatorSettings, _role: str, stop: asyncio.Event) -> None:
    """Run the service until ``stop`` is set; raise ConfigError for what keeps it from starting."""
    check(settings)
    metrics = Metrics(CollectorRegistry())
    edges = Registry(stale_s=settings.edge_stale_s)
    bootstrap = Bootstrap(settings, edges, metrics)

    async with (
        NatsBus.connect(
            settings.nats_url,
            name=NAME,
            nkey_seed=settings.nkey_seed,
            connect_s=settings.nats_connect_s,
            on_state=metrics.bus_connected.set,
            on_drop=metrics.dropped.labels("bus").inc,
        ) as bus,
        Asker.open(bus, NAME) as asker,
    ):

        def not_ready() -> Mapping[str, str]:
            return {} if bus.is_connected else {"nats": "not connected"}

        streams = JetStream(bus, domain=settings.jetstream_domain, asker=NAME)
        router = Router(first_policy(settings), await asyncio.to_thread(GainModel.load))
        watch = PolicyWatch(JetStreamBucket(streams, wire.POLICY_BUCKET), router.change)
        api = open_api(settings, bus, asker, router, metrics)
        app = probes(metrics, not_ready=not_ready, routes=[*bootstrap.routes, *api])
        async with (
            serve_http(app, settings.http_host, settings.http_port, variable="COORDINATOR_HTTP_PORT") as port,
            listing(settings, edges),
            asyncio.TaskGroup() as tasks,
        ):
            hearing = tasks.create_task(hear_edges(bus, edges, metrics), name="hear-edges")
            keeping = tasks.create_task(
                make_stores(
                    streams,
                    replicas=settings.bucket_replicas,
                    keep_turns_hours=settings.keep_turns_hours,
                    keep_turns_mib=settings.keep_turns_mib,
                    keep_usage_days=settings.keep_usage_days,
                ),
                name="make-stores",
            )
            watching = tasks.create_task(watch.run(), name="policy-watch")
            foretelling = tasks.create_task(foretell(settings, streams, metrics, keeping), name="forecasting")
            _log.info("coordinator_ready", port=port)
            await stop.wait()
            for task in (hearing, watching, keeping, foretelling):
                task.cancel()


async def foretell(
    settings: CoordinatorSettings, streams: JetStream, metrics: Metrics, stores: asyncio.Task[None]
) -> None:
    """Tell the edges each hour what they will be asked for, once the ``stores`` are made, until cancelled."""
    if not settings.keep_usage_days:
        return

    def count(judged: Judged) -> None:
        metrics.preload_renders.labels("used").inc(judged.made - judged.wasted)
        metrics.preload_renders.labels("wasted").inc(judged.wasted)

    await asyncio.wait([stores])
    await Forecasting(
        streams,
        JetStreamBucket(streams, wire.FORECAST_BUCKET),
        days=settings.keep_usage_days,
        observe=count,
        dropped=metrics.dropped.labels("usage").inc,
    ).run()


def first_policy(settings: CoordinatorSettings) -> Policy:
    """Return what holds for ``model: auto`` until the fleet has a policy: the pools in the order of the setting, the strongest first."""
    names = pool_names(settings)
    return Policy(
        router="complexity",
        pools=tuple(
            PoolTerms(name=name, strength=1 - place / (2 * len(names)), vision=name == settings.vision_pool)
            for place, name in enumerate(name for name in names if name != EDGE)
        )
        or (PoolTerms(name=EDGE),),
    )


def pool_names(settings: CoordinatorSettings) -> tuple[str, ...]:
    """Return the pools on offer; raise ConfigError for a name that cannot stand in a subject."""
    return tuple(wire.token(name.strip()) for name in settings.api_pools.split(",") if name.strip())


def open_api(settings: CoordinatorSettings, bus: Bus, asker: Asker, router: Router, metrics: Metrics) -> list[Route]:
    """Return the routes of chat completions, none when no pool is on offer; raise ConfigError for keys that can be guessed."""
    names = pool_names(settings)
    if not names:
        return []
    return OpenAIApi(
        {name: RemoteCompleter(bus, name, NAME, asker=asker) for name in names},
        router,
        api_keys=keys_from(settings.api_keys.get_secret_value()),
        vision_pools=(settings.vision_pool,),
        conditions=lambda: Conditions(cloud_reachable=bus.is_connected),
        observe=lambda pool, result: metrics.api_requests.labels(pool, result).inc(),
    ).routes


def check(settings: CoordinatorSettings) -> None:
    """Raise ConfigError for settings that are readable but cannot work."""
    if len(settings.device_token_secret.get_secret_value()) < MIN_SECRET_CHARS:
        raise ConfigError(
            f"COORDINATOR_DEVICE_TOKEN_SECRET must have at least {MIN_SECRET_CHARS} characters; make one with: openssl rand -hex 32"
        )
    if settings.edge_nodes_discovery == "kubernetes":
        check_installed()
        service_port(settings.edge_service)
        check_template(settings.edge_websocket_url)


def listing(settings: CoordinatorSettings, edges: Registry) -> AbstractAsyncContextManager[object]:
    """Return what keeps the registry's list of edges up while open, nothing when their beats are all there is."""
    if settings.edge_nodes_discovery != "kubernetes":
        return nullcontext()
    return follow_edges(edges, service_port(settings.edge_service), template=settings.edge_websocket_url)
