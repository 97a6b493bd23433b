from __future__ import annotations

import pytest

from manifests.workloads import STAND_IN, Render, all_containers, environment, pods, repository_of, template_of, uses

TEMPLATE = {"metadata": {"labels": {"app": "a"}}, "spec": {"containers": [{"name": "c"}]}}


def workload(kind: str, spec: dict) -> dict:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": "a", "namespace": "n"}, "spec": spec}


@pytest.mark.parametrize(
    ("document", "lasts"),
    [
        (workload("Deployment", {"template": TEMPLATE}), True),
        (workload("StatefulSet", {"template": TEMPLATE}), True),
        (workload("DaemonSet", {"template": TEMPLATE}), True),
        (workload("Job", {"template": TEMPLATE}), False),
        (workload("CronJob", {"jobTemplate": {"spec": {"template": TEMPLATE}}}), False),
        (workload("Pod", TEMPLATE["spec"]), False),
    ],
)
def test_every_kind_of_workload_shows_its_pod(document: dict, lasts: bool) -> None:
    (pod,) = pods(Render([document]))
    assert (pod.where, pod.namespace, pod.lasts) == (f"{document['kind']}/a", "n", lasts)
    assert [container.spec["name"] for container in all_containers(Render([document]))] == ["c"]


@pytest.mark.parametrize(
    "document",
    [
        {"kind": "ConfigMap", "metadata": {"name": "m"}, "data": {"a": "b"}},
        {"kind": "Service", "metadata": {"name": "s"}, "spec": {"ports": []}},
        {"kind": "Namespace", "metadata": {"name": "n"}},
        {"kind": "PersistentVolumeClaim", "metadata": {"name": "p"}, "spec": {}},
    ],
)
def test_what_makes_no_pods_has_no_template(document: dict) -> None:
    assert template_of(document) is None


def test_an_init_container_lasts_only_as_a_sidecar() -> None:
    spec = {
        "containers": [{"name": "main"}],
        "initContainers": [{"name": "once"}, {"name": "sidecar", "restartPolicy": "Always"}],
    }
    render = Render([workload("Deployment", {"template": {"spec": spec}})])
    assert {container.spec["name"]: container.lasts for container in all_containers(render)} == {
        "once": False,
        "sidecar": True,
        "main": True,
    }


def test_the_environment_is_made_as_kubernetes_makes_it() -> None:
    container = {
        "name": "c",
        "envFrom": [
            {"configMapRef": {"name": "m"}},
            {"prefix": "P_", "configMapRef": {"name": "m"}},
            {"secretRef": {"name": "s"}},
        ],
        "env": [
            {"name": "A", "value": "from env"},
            {"name": "EMPTY"},
            {"name": "KEY", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "B"}}},
            {"name": "GONE", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "C", "optional": True}}},
            {"name": "SECRET", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
            {"name": "CPUS", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
        ],
    }
    render = Render(
        [
            workload("Deployment", {"template": {"spec": {"containers": [container]}}}),
            {"kind": "ConfigMap", "metadata": {"name": "m", "namespace": "n"}, "data": {"A": "a", "B": "b"}},
            {"kind": "ConfigMap", "metadata": {"name": "m", "namespace": "other"}, "data": {"A": "wrong"}},
        ]
    )
    (seen,) = all_containers(render)
    assert environment(seen, render) == {
        "A": "from env",
        "B": "b",
        "P_A": "a",
        "P_B": "b",
        "EMPTY": "",
        "KEY": "b",
        "SECRET": STAND_IN,
        "NODE": STAND_IN,
        "CPUS": "1",
    }


def test_every_way_to_use_a_secret_is_seen() -> None:
    spec = {
        "containers": [
            {
                "name": "c",
                "envFrom": [{"secretRef": {"name": "whole"}}],
                "env": [
                    {"name": "K", "valueFrom": {"secretKeyRef": {"name": "one", "key": "k"}}},
                    {"name": "O", "valueFrom": {"secretKeyRef": {"name": "maybe", "key": "k", "optional": True}}},
                ],
            }
        ],
        "volumes": [
            {"name": "v", "secret": {"secretName": "mounted"}},
            {
                "name": "p",
                "projected": {"sources": [{"secret": {"name": "part", "items": [{"key": "x", "path": "x"}]}}]},
            },
            {"name": "e", "emptyDir": {}},
        ],
    }
    (pod,) = pods(Render([workload("Deployment", {"template": {"spec": spec}})]))
    assert list(uses(pod, "secret")) == [("whole", ""), ("one", "k"), ("mounted", ""), ("part", "x")]
    assert list(uses(pod, "configMap")) == []


@pytest.mark.parametrize(
    ("image", "repository", "target"),
    [
        ("redis", "redis", ""),
        ("redis:7", "redis", ""),
        ("registry:5000/team/redis", "registry:5000/team/redis", ""),
        ("xiaozhi-fleet/edge:0.1.0", "xiaozhi-fleet/edge", "edge"),
        ("registry:5000/xiaozhi-fleet/cloud:1@sha256:ab", "registry:5000/xiaozhi-fleet/cloud", "cloud"),
        ("not-xiaozhi-fleet/edge:1", "not-xiaozhi-fleet/edge", ""),
    ],
)
def test_an_image_is_ours_by_its_repository(image: str, repository: str, target: str) -> None:
    assert repository_of(image) == repository
    spec = {"containers": [{"name": "c", "image": image}]}
    (container,) = all_containers(Render([workload("Deployment", {"template": {"spec": spec}})]))
    assert container.own_target == target
