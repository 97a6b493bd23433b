from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest

from coordinator.cluster.api import KubernetesApi
from coordinator.cluster.endpoints import Endpoint, service_port
from coordinator.fleet.edge_endpoints import check_template, follow_edges, listed
from coordinator.fleet.registry import ListedEdge, Registry
from coordinator.wire import EdgeBeat
from models.errors import ConfigError
from tests import real_time
from tests.coordinator.cluster.api_server import NAMESPACE, api_server, endpoint, slice_document

TEMPLATE = "ws://{node}.sites.example:8000/xiaozhi/v1/"


def at(host: str, *, ready: bool = True, node: str = "", zone: str = "", target: str = "") -> Endpoint:
    return Endpoint(host, 8000, ready, node, zone, target)


@pytest.mark.parametrize(
    ("endpoints", "template", "edges"),
    [
        ([], TEMPLATE, []),
        ([at("10.0.0.1", node="n1", zone="z1")], "", [ListedEdge("n1", is_ready=True, region="z1")]),
        ([at("10.0.0.1", node="n1")], TEMPLATE, [ListedEdge("n1", True, "ws://n1.sites.example:8000/xiaozhi/v1/")]),
        ([at("10.0.0.1", node="n1")], "ws://{address}:{port}/", [ListedEdge("n1", True, "ws://10.0.0.1:8000/")]),
        ([at("fd00::1")], "ws://{address}:{port}/", [ListedEdge("fd00--1", True, "ws://[fd00::1]:8000/")]),
        ([at("10.0.0.1", target="p1")], TEMPLATE, [ListedEdge("p1", True)]),  # an address without its node is none
        ([at("10.0.0.1", node="n1", ready=False), at("10.0.0.2", node="n1")], "", [ListedEdge("n1", True)]),
        ([at("10.0.0.1", node="n1", ready=False)], "", [ListedEdge("n1", False)]),
        ([at("10.0.0.1", node="n1/@evil")], TEMPLATE, []),
        ([at("10.0.0.1", node="n1", zone="a b")], "ws://{zone}/", [ListedEdge("n1", True, "", "a b")]),
    ],
)
def test_gateways_become_edges(endpoints: list[Endpoint], template: str, edges: list[ListedEdge]) -> None:
    assert listed(endpoints, template) == edges


@pytest.mark.parametrize("template", ["", TEMPLATE, "wss://edge.example/", "ws://{address}:{port}/{zone}"])
def test_templates_are_taken(template: str) -> None:
    assert check_template(template) == template


@pytest.mark.parametrize(
    "template", ["http://{node}/", "{node}", "ws://{nodes}/", "ws://{node/", "ws://a b/", "ws://{0}/"]
)
def test_what_is_no_template_is_refused(template: str) -> None:
    with pytest.raises(ConfigError, match=r"is no template of an address.*\{node\}"):
        check_template(template)


def test_the_registry_is_kept_up_with_kubernetes() -> None:
    pytest.importorskip("kubernetes", reason="pip install 'xiaozhi-fleet[kubernetes]'")
    edges = Registry()

    def chosen() -> str | None:
        edge = edges.choose()
        return edge.edge_id if edge else None

    async def until(condition: Callable[[], bool]) -> None:
        while not condition():  # noqa: ASYNC110 - the server's and the watch's threads have no way to tell this loop
            await asyncio.sleep(0.01)

    async def scenario() -> None:
        with api_server() as server:
            server.put_slice(slice_document("a", [endpoint("10.0.0.1", "p1"), endpoint("10.0.0.2", "p2", ready=False)]))
            where = service_port(f"vllm-qwen-72b.{NAMESPACE}:http")
            async with follow_edges(
                edges, where, template=TEMPLATE, connect=lambda: KubernetesApi(server.url)
            ) as watch:
                await until(lambda: watch.is_current)
                await until(lambda: chosen() == "node-of-p1")
                edges.saw(EdgeBeat(edge_id="node-of-p2", websocket_url="ws://two/"))
                assert chosen() == "node-of-p1", "the other beats, but is not ready"
                server.put_slice(slice_document("a", [endpoint("10.0.0.2", "p2")]))
                await until(lambda: chosen() == "node-of-p2")

    real_time.run(scenario())
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("watch-")]
