"""From what one edge's devices ask to what another edge has ready: a hub with keys, two leaves, and a Redis both edges share."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from coordinator import wire
from coordinator.buckets import JetStreamBucket
from coordinator.forecasting import HOUR_S, Forecasting
from coordinator.jetstream import JetStream
from coordinator.metrics import Metrics
from coordinator.nats_bus import NatsBus
from coordinator.preloading.forecaster import Judged
from coordinator.stores import make_stores
from edge.assembly import Assembly, assembled
from edge.engines import Engines
from edge.preloading import service
from edge.preloading.reporting import UsageReporter
from edge.preloading.service import forecasts, preloading, reporter
from edge.remembering import Tiers, remembering
from edge.routing import asking, routed
from edge.settings import EdgeSettings
from models.scripted import ScriptedCompleter, ScriptedDetector, ScriptedRecognizer, ScriptedSynthesizer
from tests.integration.cache_servers import redis_server
from tests.integration.test_nats_accounts import Hub, hub
from tests.integration.test_nats_road import until
from tests.real_time import run
from xiaozhi_fleet import app

QUESTION, ANSWER = "猫怕不怕水", "大多数猫不喜欢水。"
PREPARED_S = 30.0
"""Generous, because the test fails then."""


@dataclass(frozen=True, slots=True)
class Edge:
    """What an edge is made of, without its gateway."""

    assembly: Assembly
    tiers: Tiers
    reports: UsageReporter
    completer: ScriptedCompleter
    metrics: Metrics
    settings: EdgeSettings

    def preloads(self, action: str, result: str) -> float:
        labels = {"action": action, "result": result}
        return self.metrics.registry.get_sample_value("voice_preloads_total", labels) or 0.0

    @property
    def waiting(self) -> int:
        """Values that are not in Redis yet."""
        return sum(waiting() for waiting in self.tiers.ladder.writes_waiting.values())

    def has_ready(self, question: str) -> bool:
        maker = self.assembly.maker
        key = maker.key(maker.prompt("zh", question))
        return key is not None and self.tiers.shelf.get(maker.spoken_key(key)) is not None


@asynccontextmanager
async def edge_on(bus: NatsBus, redis_port: int, node_id: str) -> AsyncGenerator[Edge, None]:
    fields: dict[str, Any] = {
        "engines": "scripted",
        "auth": "off",
        "node_id": node_id,
        "redis_url": f"redis://127.0.0.1:{redis_port}/0",
        "preload_calm_s": 0.1,
    }
    settings = EdgeSettings.model_validate(fields)
    metrics, completer = Metrics(CollectorRegistry()), ScriptedCompleter({QUESTION: ANSWER}, unknown="你好。")
    engines = Engines(ScriptedDetector(), ScriptedRecognizer(), completer, ScriptedSynthesizer(ms_per_character=10))
    reports = reporter(settings, bus)
    async with (
        remembering(settings, metrics) as tiers,
        routed(settings, metrics) as router,
        asking(settings, bus, router) as roads,
        assembled(
            settings,
            engines,
            tiers.ladder,
            router,
            roads=roads,
            nats=bus,
            seam_bus=bus,
            metrics=metrics,
            asked=reports.asked,
        ) as assembly,
        preloading(settings, assembly, tiers, forecasts(settings, bus), reports, metrics),
    ):
        yield Edge(assembly, tiers, reports, completer, metrics, settings)


def ask_often(edge: Edge) -> None:
    """Have devices of the edge ask the question, as their turns would count it."""
    prompt = edge.assembly.maker.prompt("zh", QUESTION)
    key = edge.assembly.maker.key(prompt)
    assert key is not None
    for number in range(60):
        edge.reports.asked(key, type(prompt)(turn_id="t", messages=prompt.messages, device_id=f"d{number % 5}"))


async def said(here: Hub, redis_url: str, *arguments: str) -> Result:
    seed = here.folder / "operator.seed"
    seed.write_text(here.seeds["operator"])
    hub_of = ["--nats-url", here.url, "--nkey-seed-file", str(seed)]
    environment = {"EDGE_REDIS_URL": redis_url, "EDGE_ENGINES": "scripted"}
    return await asyncio.to_thread(CliRunner().invoke, app, ["preload", *hub_of, *arguments], env=environment)


def test_what_one_edge_is_asked_another_one_has_ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "FIRST_WORDS", {})

    async def scenario() -> None:
        judged: list[Judged] = []
        async with (
            hub(tmp_path) as here,
            redis_server(tmp_path) as (redis_port, _),
            here.as_("coordinator") as at_hub,
            here.as_("@edge-1") as first_bus,
            here.as_("@edge-2") as second_bus,
        ):
            streams = JetStream(at_hub, domain="hub", asker="coordinator")
            await make_stores(streams)
            bucket = JetStreamBucket(streams, wire.FORECAST_BUCKET)
            forecasting = Forecasting(streams, bucket, days=7, observe=judged.append)
            async with edge_on(first_bus, redis_port, "edge-1") as asked:
                ask_often(asked)
            # What there is of the running hour it reports when it stops.
            hour = int(time.time() // HOUR_S)
            async with edge_on(second_bus, redis_port, "edge-2") as other:
                await forecasting.tell(hour)
                await until(lambda: other.preloads("make", "done") == 1, PREPARED_S)
                await until(lambda: other.has_ready(QUESTION) and not other.waiting, PREPARED_S)
                assert [prompt.question for prompt in other.completer.prompts] == [QUESTION]
            url = f"redis://127.0.0.1:{redis_port}/0"
            shown = await said(here, url, "--dry-run", "--json")
            assert shown.exit_code == 0, shown.output
            told = json.loads(shown.stdout)
            assert (told["foreseen"], told["stored"], len(told["load"]), told["make"]) == (1, 1, 1, [])
            refused = await said(here, url, "--dry-run", "--region", "elsewhere")
            assert (refused.exit_code, "nothing is foretold" in refused.stderr) == (1, True)

            async with edge_on(first_bus, redis_port, "edge-1") as again:
                await until(lambda: again.has_ready(QUESTION), PREPARED_S)
                assert not again.completer.prompts
            await forecasting.tell(hour + 1)
            assert judged == [Judged(made=0, wasted=0), Judged(made=1, wasted=1)]

    run(scenario(), timeout_s=180)
