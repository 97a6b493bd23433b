from __future__ import annotations

import json
from typing import Any

import kubernetes_validate
import msgspec
import pytest

from coordinator.cluster.objects import DELETION_COST, SERVING_LABEL, Pod, Scale, drained, first_to_go, serving
from tests.coordinator.cluster.api_server import KUBERNETES, api_server, endpoint, pod_document, slice_document

SCALE = {
    "kind": "Scale",
    "apiVersion": "autoscaling/v1",
    "metadata": {"name": "d", "namespace": "n", "resourceVersion": "7", "uid": "u", "creationTimestamp": None},
    "spec": {},
    "status": {"replicas": 0, "selector": "app=d"},
}


def pod(document: dict[str, Any]) -> Pod:
    return msgspec.json.decode(json.dumps(document), type=Pod)


def test_a_scale_to_zero_is_read_and_its_answer_is_valid() -> None:
    scale = msgspec.json.decode(json.dumps(SCALE), type=Scale)
    assert (scale.spec.replicas, scale.status.selector) == (0, "app=d")
    body = scale.body(3)
    kubernetes_validate.validate(body, KUBERNETES, strict=True)
    assert (body["metadata"]["resourceVersion"], body["spec"]) == ("7", {"replicas": 3})


@pytest.mark.parametrize(
    ("change", "ready", "ending"),
    [
        ({}, True, False),
        ({"conditions": None}, False, False),
        ({"conditions": [{"type": "Ready", "status": "Unknown"}]}, False, False),
        ({"conditions": [{"type": "ContainersReady", "status": "True"}]}, False, False),
        ({"phase": "Failed"}, True, True),
        ({"phase": "Succeeded"}, True, True),
    ],
)
def test_a_pods_status_says_how_it_is(change: dict[str, Any], ready: bool, ending: bool) -> None:
    document = pod_document("p")
    document["status"] |= change
    assert (pod(document).is_ready, pod(document).is_ending) == (ready, ending)


def test_a_pod_that_was_told_to_end_is_ending() -> None:
    document = pod_document("p")
    document["metadata"]["deletionTimestamp"] = "2026-11-01T02:00:00Z"
    assert pod(document).is_ending


def test_a_pod_without_anything_is_a_pod() -> None:
    bare = pod({"metadata": {"name": "p"}})
    assert (bare.address, bare.is_ready, bare.is_draining, bare.is_first_to_go) == ("", False, False, False)


def test_marks_are_read_back() -> None:
    document = pod_document("p")
    assert not pod(document).is_draining
    document["metadata"]["labels"] |= drained()["metadata"]["labels"]
    assert pod(document).is_draining
    document["metadata"]["annotations"] = first_to_go()["metadata"]["annotations"]
    assert pod(document).is_first_to_go
    kubernetes_validate.validate(document, KUBERNETES, strict=True)
    undone = serving()["metadata"]
    assert undone == {"labels": {SERVING_LABEL: "true"}, "annotations": {DELETION_COST: None}}


def test_what_the_stub_server_answers_is_what_the_real_one_may_answer() -> None:
    slices = [
        slice_document("a", [endpoint("10.0.0.1", "p", ready=False, terminating=True)]),
        slice_document("b", [endpoint("fd00::1", "p")], family="IPv6"),
    ]
    with api_server() as server:
        server.pods = {"p": pod_document("p")}
        scale = server.scale()
    for document in (*slices, pod_document("p"), scale):
        kubernetes_validate.validate(
            {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice"} | document, KUBERNETES, strict=True
        )
