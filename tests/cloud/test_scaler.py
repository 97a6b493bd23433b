from __future__ import annotations

import asyncio
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from benchmarks.scaling import Pool
from cloud.hours import hours
from cloud.removal import SETTLE_S
from cloud.scaler import MAX_CONFLICTS, Look, Reading, Scaler
from cloud.scaling import Rules
from coordinator.cluster.api import KubernetesApi
from models.errors import CloudUnreachableError, ConfigError
from tests import real_time, virtual_time
from tests.coordinator.cluster.api_server import NAMESPACE, ApiServer, api_server, hangs, pod_document, says

NAME = "vllm-qwen-72b"
RULES = Rules(max_replicas=4, up_window_s=0.0, up_cool_s=0.0, down_window_s=0.0, down_cool_s=0.0)
"""Decide at once: here it is about acting."""
CLOSED = Rules(max_replicas=4, closed=hours("00:00-23:59 UTC"), ahead_s=0.0)
NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)


@dataclass(frozen=True)
class Figures:
    running: int
    waiting: int
    kv_usage: float


CALM = Figures(running=0, waiting=0, kv_usage=0.0)
BUSY = Figures(running=30, waiting=0, kv_usage=0.5)


async def at_once(call: Any, *args: Any, **options: Any) -> Any:
    return call(*args, **options)


class Site:
    """A scaler on a stub API server, the replicas' readings and a clock."""

    def __init__(self, server: ApiServer, rules: Rules = RULES, *, dry_run: bool = False) -> None:
        self.server = server
        self.now_s = 1000.0
        self.readings: dict[str, Reading] = {}
        self.looks: list[Look] = []
        self.api = KubernetesApi(server.url)
        self.scaler = Scaler(
            self.api,
            NAME,
            rules,
            self.read,
            namespace=NAMESPACE,
            dry_run=dry_run,
            observe=self.looks.append,
            now=lambda: self.now_s,
            clock=lambda: NOON,
            in_thread=at_once,
        )

    def has(self, **readings: Reading | None) -> None:
        """Have these pods, each with what it says; None for one that is not ready and says nothing."""
        for number, (name, reading) in enumerate(readings.items()):
            address = f"10.0.0.{number + 1}"
            if name not in self.server.pods:
                self.server.pods[name] = pod_document(name, address, ready=reading is not None)
            if reading is not None:
                self.readings[address] = reading
        self.server.replicas = len(self.server.pods)

    async def read(self, addresses: Collection[str]) -> Mapping[str, Reading]:
        return {address: self.readings[address] for address in addresses if address in self.readings}

    def look(self, *, after_s: float = 5.0) -> Look:
        self.now_s += after_s
        return virtual_time.run(self.scaler.look())

    def marks(self, name: str) -> tuple[str, str | None]:
        meta = self.server.pods[name]["metadata"]
        cost = meta.get("annotations", {}).get("controller.kubernetes.io/pod-deletion-cost")
        return meta["labels"]["xiaozhi-fleet/serving"], cost


@pytest.fixture
def server() -> Any:
    pytest.importorskip("kubernetes", reason="pip install 'xiaozhi-fleet[kubernetes]'")
    with api_server() as server:
        yield server


def test_work_adds_replicas_by_a_valid_scale(server: ApiServer) -> None:
    site = Site(server)
    site.has(a=BUSY)
    look = site.look()
    assert (look.decision.replicas, look.decision.reason, server.replicas) == (2, "work", 2)
    assert [(sent["kind"], sent["spec"]) for sent in server.sent] == [("Scale", {"replicas": 2})]


def test_a_replica_is_drained_lowered_and_only_then_removed(server: ApiServer) -> None:
    site = Site(server)
    site.has(a=Figures(running=2, waiting=0, kv_usage=0.0), b=Figures(running=1, waiting=0, kv_usage=0.0))
    site.look()
    assert (site.marks("b"), server.replicas) == (("draining", None), 2)
    site.look(after_s=60)
    assert (site.marks("b"), server.replicas) == (("draining", None), 2), "it still works"
    site.has(b=CALM, a=CALM)
    site.readings["10.0.0.2"] = CALM
    site.look()
    assert site.marks("b") == ("draining", None), "it is idle for a moment only"
    site.look(after_s=SETTLE_S)
    assert (site.marks("b"), server.replicas) == (("draining", "-1000"), 2)
    site.look()
    assert (site.marks("a"), server.replicas) == (("true", None), 1)
    assert site.looks[-1].plan.replicas == 1


def test_a_drained_replica_gets_work_again_when_it_is_needed(server: ApiServer) -> None:
    site = Site(server)
    site.has(a=CALM, b=CALM)
    for _ in range(3):
        site.look(after_s=SETTLE_S)
    assert site.marks("a") == ("draining", "-1000")
    site.readings = {"10.0.0.1": CALM, "10.0.0.2": Figures(running=32, waiting=16, kv_usage=0.5)}
    site.look()
    assert site.marks("a") == ("true", None)
    assert server.replicas > 2


def test_what_earlier_scalers_began_is_taken_up(server: ApiServer) -> None:
    server.pods["a"] = pod_document("a", "10.0.0.1", **{"xiaozhi-fleet/serving": "draining"})
    site = Site(server)
    site.has(a=CALM, b=Figures(running=4, waiting=0, kv_usage=0.1))
    site.look()
    assert (site.marks("a"), site.marks("b")) == (("draining", None), ("true", None))
    site.look(after_s=SETTLE_S)
    site.look()
    assert server.replicas == 1


def test_at_night_all_are_drained_and_none_is_cut_off(server: ApiServer) -> None:
    site = Site(server, CLOSED)
    site.has(a=CALM, b=BUSY)
    for _ in range(4):
        site.look(after_s=SETTLE_S)
    assert (server.replicas, site.marks("b")) == (1, ("draining", None))
    del server.pods["a"]
    site.readings = {"10.0.0.2": CALM}
    for _ in range(4):
        site.look(after_s=SETTLE_S)
    assert server.replicas == 0
    server.pods.clear()
    assert site.look().decision.replicas == 0


def test_a_pool_of_none_is_opened(server: ApiServer) -> None:
    site = Site(server, Rules(min_replicas=2))
    site.has()
    site.look()
    assert server.replicas == 2


def test_nothing_is_removed_while_pods_and_number_differ(server: ApiServer) -> None:
    site = Site(server)
    site.has(a=CALM, b=CALM, c=CALM)
    server.replicas = 2
    site.look()
    assert server.sent == []


def test_pods_that_end_are_not_counted(server: ApiServer) -> None:
    site = Site(server)
    site.has(a=CALM, b=CALM)
    server.pods["b"]["metadata"]["deletionTimestamp"] = "2026-11-23T12:00:00Z"
    server.replicas = 1
    look = site.look()
    assert (look.pods, look.load.asked) == (1, 1)


def test_silent_replicas_hold_everything_once_readings_are_old(server: ApiServer) -> None:
    site = Site(server)
    site.has(a=CALM, b=CALM)
    site.look()
    site.readings.clear()
    for _ in range(20):
        look = site.look()
    assert (look.decision.reason, server.replicas) == ("stale", 2)
    assert site.marks("a") == site.marks("b") == ("true", None), "what was drained gets work again"


def test_a_conflict_is_read_again_and_written_again(server: ApiServer) -> None:
    site = Site(server)
    site.has(a=BUSY)
    server.plan("put", says(409), says(409))
    site.look()
    assert server.replicas == 2
    kinds = [kind for kind, place, _ in server.asked if place.endswith("/scale")]
    assert kinds == ["get", "put", "get", "put", "get", "put"]


def test_a_conflict_about_the_number_itself_is_left_to_the_next_look(server: ApiServer) -> None:
    site = Site(server)
    site.has(a=BUSY)

    def somebody_scales(request: Any) -> None:
        server.replicas, server.scale_version = 3, server.scale_version + 1
        says(409)(request)

    server.plan("put", somebody_scales)
    site.look()
    assert server.replicas == 3
    assert [kind for kind, place, _ in server.asked if place.endswith("/scale")] == ["get", "put", "get"]


def test_endless_conflicts_are_given_up(server: ApiServer) -> None:
    site = Site(server)
    site.has(a=BUSY)
    server.plan("put", *[says(409)] * 10)
    site.look()
    assert server.replicas == 1
    assert sum(kind == "put" for kind, _, _ in server.asked) == MAX_CONFLICTS


@pytest.mark.parametrize(
    ("kind", "code", "says_what"),
    [
        ("get", 403, "resources [deployments/scale], verbs [get], resourceNames [vllm-qwen-72b]"),
        ("put", 403, "resources [deployments/scale], verbs [update], resourceNames [vllm-qwen-72b]"),
        ("get", 404, "get deployments/scale vllm-qwen-72b in namespace xiaozhi-cloud: there is none"),
    ],
)
def test_a_refusal_names_what_is_missing(server: ApiServer, kind: str, code: int, says_what: str) -> None:
    site = Site(server)
    site.has(a=BUSY)
    server.plan(kind, says(code))
    with pytest.raises(ConfigError) as caught:
        site.look()
    assert says_what in str(caught.value)


def test_a_refused_mark_removes_nothing(server: ApiServer) -> None:
    site = Site(server)
    site.has(a=CALM, b=CALM)
    server.plan("patch", says(403))
    with pytest.raises(ConfigError, match=r"resources \[pods\], verbs \[patch\]"):
        site.look()
    assert server.replicas == 2


def test_a_dry_run_sends_what_it_would_do_and_changes_nothing(server: ApiServer) -> None:
    site = Site(server, dry_run=True)
    site.has(a=BUSY)
    site.look()
    site.readings = {"10.0.0.1": CALM}
    site.has(b=CALM)
    site.readings["10.0.0.1"] = CALM
    server.pods["b"] = pod_document("b", "10.0.0.2")
    site.readings["10.0.0.2"] = CALM
    site.look()
    assert {query.get("dryRun") for kind, _, query in server.asked if kind != "get"} == {"All"}
    assert {sent["kind"] for sent in server.sent} == {"Scale", "Pod"}
    assert site.marks("a") == site.marks("b") == ("true", None)


# The loop


class Failing(Pool):
    """A pool whose API is away for a while."""

    failures = 0

    def read_scale(self, deployment: str, namespace: str = "") -> Any:
        if self.failures:
            self.failures -= 1
            raise CloudUnreachableError("kubernetes: away")
        return super().read_scale(deployment, namespace)


def test_the_loop_outlives_an_api_that_is_away_and_closes_it() -> None:
    import random

    pool = Failing(random.Random(1))
    pool.failures = 3
    closed: list[bool] = []
    pool.close = lambda: closed.append(True)  # type: ignore[method-assign]  # to see it
    scaler = Scaler(pool, "pool", RULES, pool.readings, in_thread=at_once, clock=lambda: NOON)

    async def scenario() -> None:
        running = asyncio.create_task(scaler.run())
        await asyncio.sleep(1)
        assert scaler.problem == "kubernetes: away"
        await asyncio.sleep(20)
        assert (scaler.problem, pool.spec) == ("", 1)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    virtual_time.run(scenario())
    assert closed == [True]


def test_cancelling_ends_a_call_that_hangs(server: ApiServer) -> None:
    server.plan("get", hangs)
    api = KubernetesApi(server.url, read_s=30.0)
    site = Site(server)
    scaler = Scaler(api, NAME, RULES, site.read, namespace=NAMESPACE)

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        running = asyncio.create_task(scaler.run())
        while not server.asked:  # noqa: ASYNC110 - the server's thread has no way to tell this loop
            await asyncio.sleep(0.01)
        began_s = loop.time()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert loop.time() - began_s < 5, "far below what the call may take"

    real_time.run(scenario())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("asyncio_")]
