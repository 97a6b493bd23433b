from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.cluster import endpoints as module
from coordinator.cluster.endpoints import ServicePort, Slice, Slices, ready_urls, service_port
from models.errors import ConfigError
from tests.coordinator.cluster.api_server import endpoint, slice_document


def decoded(document: dict[str, Any]) -> Slice:
    return msgspec.json.decode(json.dumps(document), type=Slice)


def urls(*documents: dict[str, Any], port: str = "http") -> set[str]:
    slices = Slices()
    slices.replace(decoded(document) for document in documents)
    return set(ready_urls(slices.endpoints(port)))


@pytest.mark.parametrize(
    ("conditions", "is_chosen"),
    [
        ({}, True),
        ({"ready": None}, True),
        ({"ready": None, "serving": None, "terminating": None}, True),
        ({"ready": False}, False),
        ({"ready": False, "serving": True, "terminating": True}, False),
        ({"ready": True, "terminating": True}, False),
        ({"ready": None, "terminating": True}, False),
        ({"ready": True, "terminating": None}, True),
        ({"ready": True, "serving": False}, True),
    ],
)
def test_conditions_decide_who_gets_new_work(conditions: dict[str, bool | None], is_chosen: bool) -> None:
    found = urls(slice_document("a", [endpoint("10.0.0.1", "p", **conditions)]))
    assert found == ({"http://10.0.0.1:8000"} if is_chosen else set())


def test_what_is_not_ready_is_known_all_the_same() -> None:
    slices = Slices()
    slices.replace([decoded(slice_document("a", [endpoint("10.0.0.1", "p", ready=False)]))])
    (found,) = slices.endpoints("http")
    assert (found.is_ready, found.node, found.zone, found.target) == (False, "node-of-p", "z1", "p")


@pytest.mark.parametrize(
    ("document", "found"),
    [
        ({}, set()),
        ({"metadata": {"name": "a"}}, set()),
        (slice_document("a", None), set()),
        (slice_document("a", []), set()),
        (slice_document("a", [{}]), set()),
        (slice_document("a", [{"addresses": None}]), set()),
        (slice_document("a", [{"addresses": []}]), set()),
        (slice_document("a", [{"addresses": ["10.0.0.1"]}]), {"http://10.0.0.1:8000"}),
        (slice_document("a", [{"addresses": ["10.0.0.1"], "conditions": None}]), {"http://10.0.0.1:8000"}),
        (slice_document("a", [{"addresses": ["10.0.0.1", "10.0.0.2"]}]), {"http://10.0.0.1:8000"}),
        (slice_document("a", [endpoint("not an address")]), set()),
        (slice_document("a", [endpoint("10.0.0.1/x@evil")]), set()),
        (slice_document("a", [endpoint("fd00::1")]), set()),
        (slice_document("a", [endpoint("10.0.0.1")], family="IPv6"), set()),
        (slice_document("a", [endpoint("10.0.0.1")], family=""), set()),
        (slice_document("a", [endpoint("fd00::1")], family="IPv6"), {"http://[fd00::1]:8000"}),
        (slice_document("a", [endpoint("fe80::1%eth0")], family="IPv6"), set()),
        (slice_document("a", [endpoint("vllm.example")], family="FQDN"), {"http://vllm.example:8000"}),
        (slice_document("a", [endpoint("vllm.example:1/?")], family="FQDN"), set()),
    ],
)
def test_partial_and_odd_objects_give_what_can_be_used(document: dict[str, Any], found: set[str]) -> None:
    assert urls(document) == found


HTTP = {"name": "http", "port": 8000}
GRPC = {"name": "grpc", "port": 9000}


@pytest.mark.parametrize(
    ("ports", "wanted", "port"),
    [
        ([HTTP], "http", 8000),
        ([HTTP, GRPC], "grpc", 9000),
        ([HTTP, GRPC], "", None),
        ([HTTP], "", 8000),
        ([{"name": "", "port": 7}], "", 7),
        ([{"port": 7}], "", 7),
        ([{"name": None, "port": 7}], "http", None),
        ([GRPC], "http", None),
        ([{"name": "http"}], "http", None),
        ([{"name": "http", "port": None}], "http", None),
        ([{"name": "http", "port": None}], "8000", 8000),
        ([HTTP], "8000", 8000),
        ([HTTP], "8001", None),
        (None, "8000", 8000),
        (None, "http", None),
        ([], "http", None),
        (None, "0", None),
        ([{"name": "http", "port": 0}], "http", None),
        ([{"name": "http", "port": 70000}], "http", None),
    ],
)
def test_the_port_meant_is_found_by_name_or_number(ports: object, wanted: str, port: int | None) -> None:
    found = urls(slice_document("a", [endpoint("10.0.0.1")], ports=ports), port=wanted)
    assert found == ({f"http://10.0.0.1:{port}"} if port else set())


def test_several_slices_of_a_service_are_joined() -> None:
    first = slice_document("a", [endpoint("10.0.0.1", "p1")])
    second = slice_document("b", [endpoint("10.0.0.2", "p2")], ports=[{"name": "http", "port": 9000}])
    assert urls(first, second) == {"http://10.0.0.1:8000", "http://10.0.0.2:9000"}


@pytest.mark.parametrize("order", [1, -1])
def test_an_endpoint_in_two_slices_is_one_and_ready_if_either_says_so(order: int) -> None:
    old = slice_document("a", [endpoint("10.0.0.1", "p1", ready=False)])
    new = slice_document("b", [endpoint("10.0.0.1", "p1")])
    slices = Slices()
    slices.replace([decoded(each) for each in (old, new)[::order]])
    assert [found.is_ready for found in slices.endpoints("http")] == [True]


@pytest.mark.parametrize("order", [1, -1])
def test_a_pod_with_two_families_is_one_replica(order: int) -> None:
    four = slice_document("a", [endpoint("10.0.0.1", "p1")])
    six = slice_document("b", [endpoint("fd00::1", "p1")], family="IPv6")
    assert urls(*(four, six)[::order]) == {"http://10.0.0.1:8000"}


def test_events_change_what_a_list_gave() -> None:
    slices = Slices()
    slices.replace([decoded(slice_document("a", [endpoint("10.0.0.1")]))])
    slices.apply("ADDED", decoded(slice_document("b", [endpoint("10.0.0.2")])))
    slices.apply("MODIFIED", decoded(slice_document("a", [endpoint("10.0.0.3")])))
    assert ready_urls(slices.endpoints()) == {"http://10.0.0.2:8000", "http://10.0.0.3:8000"}
    slices.apply("DELETED", decoded(slice_document("b", [])))
    slices.apply("DELETED", decoded(slice_document("never-seen", [])))
    assert ready_urls(slices.endpoints()) == {"http://10.0.0.3:8000"}
    slices.replace([])
    assert slices.endpoints() == frozenset()


def test_a_flood_of_slices_and_endpoints_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_SLICES", 3)
    monkeypatch.setattr(module, "MAX_ENDPOINTS", 4)
    slices = Slices()
    slices.replace(
        decoded(slice_document(f"s{number}", [endpoint(f"10.0.{number}.1"), endpoint(f"10.0.{number}.2")]))
        for number in range(5)
    )
    assert len(slices.endpoints()) == 4
    slices.apply("DELETED", decoded(slice_document("s0", [])))
    assert len(slices.endpoints()) == 4
    slices.apply("DELETED", decoded(slice_document("s1", [])))
    assert len(slices.endpoints()) == 2


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("vllm", ServicePort("vllm")),
        ("vllm:http", ServicePort("vllm", port="http")),
        ("vllm.cloud", ServicePort("vllm", "cloud")),
        ("vllm.cloud.svc:8000", ServicePort("vllm", "cloud", "8000")),
        (" vllm.cloud:http ", ServicePort("vllm", "cloud", "http")),
    ],
)
def test_a_service_is_read(text: str, meant: ServicePort) -> None:
    assert service_port(text) == meant
    assert service_port(str(meant)) == meant


@pytest.mark.parametrize(
    "text", ["", ".", ":", "vllm.", "vllm:", "a.b.c", "Vllm", "vllm/x", "a b", "-a", "a:http:x", "a" * 64]
)
def test_what_names_no_service_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="names no Service"):
        service_port(text)


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 70_000) | st.sampled_from(["", "10.0.0.1", "fd00::1", "IPv4", "IPv6", "http"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["metadata", "name", "addressType", "endpoints", "addresses", "conditions", "ready", "ports", "port", "targetRef"]),
        inner, max_size=5),
    max_leaves=25,
)  # fmt: skip


@given(_json, st.sampled_from(["", "http", "8000"]))
def test_any_json_is_refused_or_gives_addresses(document: object, port: str) -> None:
    try:
        each = msgspec.json.decode(json.dumps(document), type=Slice)
    except msgspec.ValidationError:
        return
    slices = Slices()
    slices.apply("ADDED", each)
    assert all(found.url().startswith("http://") for found in slices.endpoints(port))
