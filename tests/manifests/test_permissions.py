from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from coordinator.cluster.objects import SERVING, SERVING_LABEL
from coordinator.settings import CoordinatorSettings
from manifests.check import FOLDER, render
from manifests.permissions import accounts, bindings, rights
from manifests.workloads import Render

Documents = dict[str, dict[str, Any]]


def good() -> Documents:
    """A small site in which nothing is wrong."""
    pod = {"serviceAccountName": "worker", "containers": [{"name": "c"}]}
    listed: list[dict[str, Any]] = [
        {"kind": "ServiceAccount", "metadata": {"name": "worker"}},
        {"kind": "Deployment", "metadata": {"name": "d"}, "spec": {"template": {"spec": pod}}},
        {
            "kind": "Role",
            "metadata": {"name": "r"},
            "rules": [
                {"apiGroups": ["apps"], "resources": ["deployments/scale"], "resourceNames": ["d"], "verbs": ["get"]},
                {"apiGroups": [""], "resources": ["pods"], "resourceNames": ["p"], "verbs": ["get"]},
                {"nonResourceURLs": ["/healthz"], "verbs": ["get"]},
            ],
        },
        {
            "kind": "RoleBinding",
            "metadata": {"name": "b"},
            "roleRef": {"kind": "Role", "name": "r"},
            "subjects": [
                {"kind": "ServiceAccount", "name": "worker", "namespace": "n"},
                {"kind": "ServiceAccount", "name": "other", "namespace": "elsewhere"},
            ],
        },
    ]
    for document in listed:
        document["metadata"]["namespace"] = "n"
    return {document["kind"]: document for document in listed}


def found(site: Documents) -> list[str]:
    shown = Render(list(site.values()))
    return [problem for rule in (accounts, bindings, rights) for problem in rule(shown)]


def test_a_good_site_has_no_problems() -> None:
    assert found(good()) == []


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda site: site.pop("ServiceAccount"), "Deployment/d: runs as ServiceAccount worker, which is not in this overlay"),
        (lambda site: site["ServiceAccount"]["metadata"].update(namespace="m"), "runs as ServiceAccount worker"),
        (lambda site: site.pop("Role"), "RoleBinding/b: binds Role r, which is not in this overlay"),
        (lambda site: site["RoleBinding"]["subjects"][0].update(name="gone"), "gives rights to ServiceAccount gone"),
        (lambda site: site["RoleBinding"]["subjects"].append({"kind": "Group", "name": "all"}), "gives rights to Group all"),
        (lambda site: site["RoleBinding"].update(kind="ClusterRoleBinding"), "gives rights in every namespace"),
        (lambda site: site["Role"]["rules"][0].update(verbs=["*"]), "Role/r: has a star in verbs"),
        (lambda site: site["Role"]["rules"][0].update(apiGroups=["*"]), "Role/r: has a star in apiGroups"),
        (lambda site: site["Role"]["rules"][1].update(resources=["*"]), "Role/r: has a star in resources"),
        (lambda site: site["Role"]["rules"][1].update(resources=["secrets"]), "may read secrets"),
        (lambda site: site["Role"]["rules"][0].update(resourceNames=["e"]), "has rights on Deployment e, which is not in"),
        (lambda site: site["Deployment"]["metadata"].update(name="e"), "has rights on Deployment d"),
    ],
)  # fmt: skip
def test_each_mistake_is_found(change: Callable[[Documents], object], says: str) -> None:
    site = copy.deepcopy(good())
    change(site)
    assert any(says in problem for problem in found(site)), found(site)


def test_a_pod_without_an_account_of_its_own_and_a_role_of_the_cluster_are_allowed() -> None:
    site = good()
    del site["Deployment"]["spec"]["template"]["spec"]["serviceAccountName"]
    site["RoleBinding"]["roleRef"] = {"kind": "ClusterRole", "name": "view"}
    assert found(site) == []


# What our own manifests allow is what the code asks for, neither more nor less


def allowed(overlay: str, account: str) -> set[tuple[str, str, str, str]]:
    """Return every verb, resource, group and name ("" for all) that an account has."""
    documents = render(FOLDER / "overlays" / overlay)
    roles = {document["metadata"]["name"]: document for document in documents if document["kind"] == "Role"}
    bound = [
        roles[document["roleRef"]["name"]]
        for document in documents
        if document["kind"] == "RoleBinding" and any(subject["name"] == account for subject in document["subjects"])
    ]
    return {
        (verb, resource, group, name)
        for role in bound
        for rule in role["rules"]
        for verb in rule["verbs"]
        for resource in rule["resources"]
        for group in rule["apiGroups"]
        for name in rule.get("resourceNames", [""])
    }


SEE = {("list", "endpointslices", "discovery.k8s.io", ""), ("watch", "endpointslices", "discovery.k8s.io", "")}
SCALE = {
    ("get", "deployments/scale", "apps", "vllm-qwen-72b"),
    ("update", "deployments/scale", "apps", "vllm-qwen-72b"),
    ("list", "pods", "", ""),
    ("patch", "pods", "", ""),
}


@pytest.mark.parametrize(
    ("overlay", "account", "needed"),
    [
        ("cloud-cluster", "cloud-worker", SEE),
        ("cloud-cluster", "cloud-scaler", SCALE),
        ("cloud-cluster", "coordinator", set()),
        ("edge-site", "coordinator", SEE),
    ],
)
def test_an_account_may_do_what_its_process_does_and_nothing_else(overlay: str, account: str, needed: set[Any]) -> None:
    assert allowed(overlay, account) == needed


def test_a_replica_can_be_taken_out_of_choice_without_leaving_its_deployment() -> None:
    documents = render(FOLDER / "overlays" / "cloud-cluster")
    named = {(document["kind"], document["metadata"]["name"]): document for document in documents}
    deployment, service = named["Deployment", "vllm-qwen-72b"], named["Service", "vllm-qwen-72b"]
    assert deployment["spec"]["template"]["metadata"]["labels"][SERVING_LABEL] == SERVING
    assert service["spec"]["selector"][SERVING_LABEL] == SERVING
    assert SERVING_LABEL not in deployment["spec"]["selector"]["matchLabels"]


def test_the_coordinator_looks_for_the_service_that_edges_have() -> None:
    service, _, port = CoordinatorSettings().edge_service.partition(":")
    name, _, namespace = service.partition(".")
    found = [
        document
        for document in render(FOLDER / "overlays" / "edge-site")
        if (document["kind"], document["metadata"]["name"], document["metadata"].get("namespace"))
        == ("Service", name, namespace)
    ]
    assert [each["name"] for each in found[0]["spec"]["ports"]] == [port]


def test_the_scaler_knows_how_many_requests_a_replica_runs() -> None:
    documents = render(FOLDER / "overlays" / "cloud-cluster")
    boxes = {
        document["metadata"]["name"]: document["spec"]["template"]["spec"]["containers"][0]
        for document in documents
        if document["kind"] == "Deployment"
    }
    told = {entry["name"]: entry.get("value") for entry in boxes["cloud-scaler"]["env"]}
    assert f"--max-num-seqs={told['SCALER_MAX_RUNNING']}" in boxes[told["SCALER_DEPLOYMENT"]]["args"]
