"""Composition root of an edge node: the gateway, the brain, or both in one process over an in-memory seam."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial

import structlog
from prometheus_client import CollectorRegistry

from coordinator import wire
from coordinator.buckets import JetStreamBucket
from coordinator.bus import Bus
from coordinator.fleet.tokens import TokenAuthenticator
from coordinator.jetstream import JetStream
from coordinator.memory_bus import MemoryBus
from coordinator.metrics import Metrics
from coordinator.nats_bus import NatsBus
from coordinator.probes import Checks, probes, serve_http
from edge.assembly import assembled
from edge.background import running
from edge.engines import load_engines
from edge.gateway.lifetime import Limits
from edge.gateway.server import Authenticator, Gateway
from edge.gateway.session import SessionOptions as DeviceOptions
from edge.gateway.vision_tokens import VisionTokens
from edge.looking import looking, offers, vision_tokens
from edge.observers import GatewayMetrics
from edge.preloading.service import forecasts, preloading, reporter
from edge.remembering import follow_purges, remembering
from edge.routing import asking, routed
from edge.settings import MIN_SECRET_CHARS, EdgeSettings
from models.errors import CloudUnreachableError, ConfigError

_log = structlog.get_logger()

ROLES = ("gateway", "brain")
EDGE_BEAT_S = 1.0
"""Seconds between two beats to the coordinator, which takes an edge for gone after five missed ones."""


async def run(settings: EdgeSettings, role: str, stop: asyncio.Event) -> None:
    """Run one role, or both when ``role`` is "", until ``stop`` is set; raise ConfigError for what keeps it from starting."""
    authenticator = None if role == "brain" else _authenticator(settings)
    metrics = Metrics(CollectorRegistry())
    waits: dict[str, str] = {}
    """What this process waits for before it is ready: name and reason."""

    async with (
        NatsBus.connect(
            settings.nats_url,
            name=f"edge-{settings.node_id}-{role or 'node'}",
            nkey_seed=settings.nkey_seed,
            connect_s=settings.nats_connect_s,
            on_state=metrics.bus_connected.set,
        ) as nats,
        running(nats.lost(), "bus-watch"),
        AsyncExitStack() as stack,
    ):
        seam_bus: Bus = nats if role else MemoryBus()

        checks: list[Checks] = [lambda: waits, lambda: {} if nats.is_connected else {"nats": "not connected"}]

        def not_ready() -> Mapping[str, str]:
            return {name: reason for check in checks for name, reason in check().items()}

        app = probes(metrics, not_ready=not_ready)
        await stack.enter_async_context(
            serve_http(app, settings.http_host, settings.http_port, variable="EDGE_HTTP_PORT")
        )
        node = _Node(settings, metrics, nats, seam_bus, waits, checks, vision_tokens(settings, role))
        vision_url = settings.vision_url(settings.vision_port)
        if role != "gateway":
            vision_url = await stack.enter_async_context(node.brain())
        if authenticator is not None:
            await stack.enter_async_context(node.gateway(authenticator, vision_url))
        # What start-up made stays for good: looking through it again and again held the loop up for more than a packet's length.
        gc.collect()
        gc.freeze()
        _log.info("edge_ready", role=role or "gateway and brain", node=settings.node_id)
        await stop.wait()


@dataclass(frozen=True, slots=True)
class _Node:
    settings: EdgeSettings
    metrics: Metrics
    nats: NatsBus
    seam_bus: Bus
    waits: dict[str, str]
    checks: list[Checks]
    vision: VisionTokens | None

    @asynccontextmanager
    async def brain(self) -> AsyncGenerator[str, None]:
        """Load the engines and serve the gateway's sessions while the body runs; yield the address for devices' pictures."""
        self.waits["engines"] = "loading"
        observe_wait = partial(_observe_wait, self.metrics)
        async with AsyncExitStack() as stack:
            engines = await load_engines(self.settings, observe_wait)
            stack.push_async_callback(engines.close)
            tiers = await stack.enter_async_context(remembering(self.settings, self.metrics))
            reports = reporter(self.settings, self.nats)
            router = await stack.enter_async_context(routed(self.settings, self.metrics, self._policies()))
            roads = await stack.enter_async_context(asking(self.settings, self.nats, router))
            assembly = await stack.enter_async_context(
                assembled(
                    self.settings,
                    engines,
                    tiers.ladder,
                    router,
                    roads=roads,
                    nats=self.nats,
                    seam_bus=self.seam_bus,
                    metrics=self.metrics,
                    asked=reports.asked,
                )
            )
            brain = assembly.brain
            vision_url = await stack.enter_async_context(
                looking(self.settings, brain.completer, self.vision, self.metrics)
            )
            async with (
                running(brain.run(), "brain"),
                running(follow_purges(self._policies(), tiers.ladder), "cache-purges"),
                preloading(self.settings, assembly, tiers, forecasts(self.settings, self.nats), reports, self.metrics),
            ):
                await brain.ready.wait()
                del self.waits["engines"]
                yield vision_url
                await brain.drain(self.settings.drain_s)

    def _policies(self) -> JetStreamBucket:
        streams = JetStream(self.nats, domain=self.settings.jetstream_domain, asker=self.settings.node_id)
        return JetStreamBucket(streams, wire.POLICY_BUCKET)

    @asynccontextmanager
    async def gateway(self, authenticator: Authenticator, vision_url: str) -> AsyncGenerator[None, None]:
        """Accept devices and tell the coordinator so while the body runs."""
        async with Gateway(
            self.seam_bus,
            node_id=self.settings.node_id,
            authenticator=authenticator,
            host=self.settings.gateway_host,
            port=self.settings.gateway_port,
            max_devices=self.settings.max_devices,
            max_refusing=self.settings.max_refusing,
            options=DeviceOptions(limits=Limits(idle_s=self.settings.idle_s), offer=offers(vision_url, self.vision)),
            observer=GatewayMetrics(self.metrics),
        ) as gateway:
            self.checks.append(lambda: {"brain": "not heard of"} if gateway.is_brain_away else {})
            async with running(self._beat(gateway), "edge-beat"):
                yield
                await gateway.drain(self.settings.drain_s)

    async def _beat(self, gateway: Gateway) -> None:
        while True:
            beat = wire.EdgeBeat(
                edge_id=self.settings.node_id,
                websocket_url=self.settings.websocket_url,
                region=self.settings.region,
                active_devices=gateway.active_devices,
                max_devices=self.settings.max_devices,
                ready=gateway.is_ready,
            )
            with suppress(CloudUnreachableError):
                await self.nats.publish(wire.edge_beat_subject(self.settings.node_id), wire.encode(beat))
            await asyncio.sleep(EDGE_BEAT_S)


def _observe_wait(metrics: Metrics, slot: str, seconds: float) -> None:
    metrics.slot_wait_seconds.labels(slot).observe(seconds)


def _authenticator(settings: EdgeSettings) -> Authenticator:
    if settings.auth == "off":
        _log.warning("auth_off", meaning="every device is let in: for a bench only")
        return _Everybody()
    secret = settings.device_token_secret.get_secret_value()
    if len(secret) < MIN_SECRET_CHARS:
        raise ConfigError(
            f"EDGE_DEVICE_TOKEN_SECRET must have at least {MIN_SECRET_CHARS} characters, the coordinator's; or set EDGE_AUTH=off"
        )
    return TokenAuthenticator(secret)


class _Everybody:
    """An Authenticator that lets every device in."""

    def check(self, device_id: str, client_id: str, token: str) -> None:
        """Let it in."""
