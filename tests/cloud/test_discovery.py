from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from cloud import discovery as module
from cloud.discovery import ServiceReplicas, StaticReplicas, discover, is_service, replicas
from coordinator.cluster import watch
from coordinator.cluster.api import KubernetesApi
from coordinator.cluster.endpoints import ServicePort
from coordinator.cluster.watch import State
from models.errors import ConfigError
from tests import real_time
from tests.coordinator.cluster.api_server import (
    NAMESPACE,
    ApiServer,
    api_server,
    bookmark,
    cuts,
    endpoint,
    expired,
    hangs,
    says,
    slice_document,
    streams,
)

WATCH_HANGS = streams(then=hangs)
PLACE = f"kubernetes://vllm-qwen-72b.{NAMESPACE}:http"


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("http://a:8000", StaticReplicas(frozenset({"http://a:8000"}))),
        ("http://a:8000/, https://b/v1/ http://a:8000/v1", StaticReplicas(frozenset({"http://a:8000", "https://b"}))),
        ("http://[fd00::1]:8000/prefix", StaticReplicas(frozenset({"http://[fd00::1]:8000/prefix"}))),
        ("kubernetes://vllm", ServiceReplicas(ServicePort("vllm"))),
        ("kubernetes://vllm.cloud:http/", ServiceReplicas(ServicePort("vllm", "cloud", "http"))),
        ("kubernetes+https://vllm:8443", ServiceReplicas(ServicePort("vllm", "", "8443"), "https")),
    ],
)
def test_replicas_are_read(text: str, meant: object) -> None:
    assert replicas(text) == meant


@pytest.mark.parametrize(
    "text",
    ["", " ", ",", "a:8000", "ftp://a", "http://", "http://a:x", "http://a:0", "http://a:99999", "http://a?b", "http://a#b",
     "http://[::1", "kubernetes://", "kubernetes://A", "kubernetes://a.b.c", "nats://a"],
)  # fmt: skip
def test_what_are_no_replicas_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        replicas(text)


def test_a_refusal_never_repeats_a_password() -> None:
    with pytest.raises(ConfigError) as caught:
        replicas("http://user:a-made-up-password@a:x")
    assert "a-made-up-password" not in str(caught.value)


def test_a_list_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_STATIC", 2)
    with pytest.raises(ConfigError, match="3 replicas are listed; at most 2"):
        replicas("http://a http://b http://c")


def test_a_list_is_told_at_once_and_has_no_problem() -> None:
    told: list[frozenset[str]] = []

    async def scenario() -> None:
        async with discover(replicas("http://a:1"), told.append) as discovery:
            assert told == [{"http://a:1"}]
            assert discovery.problem == ""

    real_time.run(scenario())
    assert told == [{"http://a:1"}]


# Through the real client, from an API server on loopback


class Told:
    def __init__(self) -> None:
        self.sets: list[frozenset[str]] = []
        self.states: list[State] = []

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():  # noqa: ASYNC110 - the server's and the watch's threads have no way to tell this loop
            await asyncio.sleep(0.01)


def with_server(scenario: Callable[[ApiServer, Told], object], *, patience_s: float = 20.0) -> Told:
    """Run a scenario with discovery open."""
    pytest.importorskip("kubernetes", reason="pip install 'xiaozhi-fleet[kubernetes]'")
    told = Told()

    async def run() -> None:
        with api_server() as server:
            server.put_slice(slice_document("a", [endpoint("10.0.0.1", "p1")]))
            connect = lambda: KubernetesApi(server.url, read_s=patience_s, silence_s=patience_s)  # noqa: E731 - short
            async with discover(
                replicas(PLACE), told.sets.append, connect=connect, observe=told.states.append
            ) as found:
                await told.until(lambda: bool(told.sets))
                await scenario(server, told)  # type: ignore[misc]  # an async function
                await told.until(lambda: not found.problem)

    real_time.run(run())
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("watch-")]
    return told


def urls(*numbers: int) -> set[str]:
    return {f"http://10.0.0.{number}:8000" for number in numbers}


def test_replicas_come_and_go_as_kubernetes_says() -> None:
    async def scenario(server: ApiServer, told: Told) -> None:
        server.put_slice(slice_document("b", [endpoint("10.0.0.2", "p2"), endpoint("10.0.0.3", "p3", ready=False)]))
        await told.until(lambda: told.sets[-1] == urls(1, 2))
        server.put_slice(
            slice_document("b", [endpoint("10.0.0.2", "p2", terminating=True), endpoint("10.0.0.3", "p3")])
        )
        await told.until(lambda: told.sets[-1] == urls(1, 3))
        server.drop_slice("b")
        await told.until(lambda: told.sets[-1] == urls(1))
        server.put_slice(slice_document("a", None))
        await told.until(lambda: told.sets[-1] == set())

    told = with_server(scenario)
    assert told.sets == [urls(1), urls(1, 2), urls(1, 3), urls(1), set()]
    assert told.states == ["listed"]


def test_what_changes_nothing_for_the_pool_is_not_told() -> None:
    async def scenario(server: ApiServer, told: Told) -> None:
        server.put_slice(slice_document("b", [endpoint("10.0.0.3", "p3", ready=False)]))
        server.put_slice(slice_document("b", [endpoint("10.0.0.3", "p3")]))
        await told.until(lambda: told.sets[-1] == urls(1, 3))

    assert with_server(scenario).sets == [urls(1), urls(1, 3)]


@pytest.mark.parametrize(
    "faults",
    [
        [("watch", streams(expired()))],
        [("watch", says(410))],
        [("watch", streams(bookmark(1), b"garbage\n"))],
        [("watch", streams(bookmark(1), then=cuts))],
        [("watch", says(401)), ("get", says(401))],
        [("watch", says(500)), ("get", says(503)), ("get", says(403))],
        [("watch", streams()), ("get", says(200, b"{"))],
        [("watch", WATCH_HANGS)],
        [("watch", streams(bookmark(1), then=cuts)), ("get", hangs)],
    ],
)  # fmt: skip
def test_no_fault_empties_the_pool_and_what_was_missed_is_made_good(
    faults: list[tuple[str, Callable[..., None]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(watch, "FIRST_WAIT_S", 0.02)

    async def scenario(server: ApiServer, told: Told) -> None:
        for kind, answer in faults:
            server.plan(kind, answer)
        # The watch under way ends, so that the next ones meet the faults.
        server.events.append((server.version + 1, b"garbage\n"))
        server.version += 1
        await told.until(lambda: not any(server.plans.values()))
        server.put_slice(slice_document("a", [endpoint("10.0.0.1", "p1"), endpoint("10.0.0.2", "p2")]))
        await told.until(lambda: told.sets[-1] == urls(1, 2))

    is_silent = any(answer in {hangs, WATCH_HANGS} for _, answer in faults)
    told = with_server(scenario, patience_s=0.3 if is_silent else 20.0)
    assert told.sets == [urls(1), urls(1, 2)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("kubernetes://vllm.cloud:http", True), (" kubernetes+https://a ", True), ("http://a", False), ("", False)],
)
def test_a_service_is_told_from_a_list(text: str, expected: bool) -> None:
    assert is_service(text) is expected
