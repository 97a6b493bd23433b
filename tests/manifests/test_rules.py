from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from decimal import Decimal

import pytest

from manifests import rules
from manifests.rules import RULES, image_tag, problems, quantity
from manifests.workloads import Render
from models.errors import ConfigError

Documents = dict[str, dict]
Break = Callable[[Documents], object]

HEADER = "# bring:\n#   kubectl create secret generic fleet-secrets --from-literal=device-token-secret=... --from-file=s3.json"


def read_edge(environ: Mapping[str, str]) -> None:
    known = {"EDGE_PORT", "EDGE_NATS_URL", "EDGE_SECRET", "EDGE_REGION"}
    unknown = [name for name in environ if name.startswith("EDGE_") and name not in known]
    if unknown:
        raise ConfigError(f"{unknown[0]}: no such setting\nsecond line")
    if not environ.get("EDGE_PORT", "0").isdigit():
        raise ConfigError("EDGE_PORT: not a number")


def good() -> Documents:
    """A small site in which nothing is wrong, by the names the tables below use."""
    container = {
        "name": "gateway",
        "image": "xiaozhi-fleet/edge:1.2.3",
        "args": ["gateway"],
        "ports": [{"name": "http", "containerPort": 8001}],
        "envFrom": [{"configMapRef": {"name": "edge-settings"}}],
        "env": [
            {"name": "EDGE_PORT", "value": "8000"},
            {
                "name": "EDGE_SECRET",
                "valueFrom": {"secretKeyRef": {"name": "fleet-secrets", "key": "device-token-secret"}},
            },
            {"name": "EDGE_REGION", "valueFrom": {"configMapKeyRef": {"name": "site", "key": "region"}}},
        ],
        "readinessProbe": {"httpGet": {"path": "/readyz", "port": "http"}, "periodSeconds": 1},
        "livenessProbe": {"httpGet": {"path": "/healthz", "port": "http"}},
        "resources": {
            "requests": {"cpu": "250m", "memory": "128Mi"},
            "limits": {"cpu": "1", "memory": "512Mi", "nvidia.com/gpu": "1"},
        },
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "volumeMounts": [{"name": "models", "mountPath": "/models"}, {"name": "data", "mountPath": "/data"}],
    }
    pod = {
        "enableServiceLinks": False,
        "securityContext": {"runAsNonRoot": True},
        "tolerations": [
            {"key": taint, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 10}
            for taint in rules.TAINTS
        ],
        "containers": [container],
        "volumes": [
            {"name": "models", "persistentVolumeClaim": {"claimName": "models"}},
            {"name": "config", "configMap": {"name": "site", "items": [{"key": "region", "path": "region"}]}},
        ],
    }
    listed = [
        {
            "kind": "StatefulSet",
            "metadata": {"name": "gateway"},
            "spec": {
                "serviceName": "gateway",
                "selector": {"matchLabels": {"app": "gateway"}},
                "template": {"metadata": {"labels": {"app": "gateway", "tier": "edge"}}, "spec": pod},
                "volumeClaimTemplates": [{"metadata": {"name": "data"}}],
            },
        },
        {
            "kind": "Service",
            "metadata": {"name": "gateway"},
            "spec": {"selector": {"app": "gateway"}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
        },
        {
            "kind": "Service",
            "metadata": {"name": "nats"},
            "spec": {"type": "ExternalName", "externalName": "nats.example", "ports": [{"port": 4222}]},
        },
        {
            "kind": "PodDisruptionBudget",
            "metadata": {"name": "gateway"},
            "spec": {"selector": {"matchLabels": {"app": "gateway"}}},
        },
        {"kind": "ConfigMap", "metadata": {"name": "edge-settings"}, "data": {"EDGE_NATS_URL": "nats://nats:4222"}},
        {"kind": "ConfigMap", "metadata": {"name": "site"}, "data": {"region": "beijing"}},
        {"kind": "PersistentVolumeClaim", "metadata": {"name": "models"}, "spec": {}},
    ]
    for document in listed:
        document["metadata"]["namespace"] = "n"
    return {f"{document['kind']}/{document['metadata']['name']}": document for document in listed}


def pod(site: Documents) -> dict:
    return site["StatefulSet/gateway"]["spec"]["template"]["spec"]


def box(site: Documents) -> dict:
    return pod(site)["containers"][0]


def render(site: Documents, header: str = HEADER) -> Render:
    return Render(list(site.values()), header=header, version="1.2.3", readers={"EDGE_": read_edge})


def test_a_good_site_has_no_problems() -> None:
    assert problems(render(good())) == []


BREAKS: list[tuple[Callable[..., object], Break, str]] = [
    (rules.images, lambda site: box(site).update(image="xiaozhi-fleet/edge"), "pin a version tag"),
    (rules.images, lambda site: box(site).update(image="redis:latest"), "pin a version tag"),
    (rules.images, lambda site: box(site).update(image="registry:5000/redis"), "pin a version tag"),
    (rules.images, lambda site: box(site).pop("image"), "has image (none)"),
    (rules.images, lambda site: box(site).update(image="redis@sha256:short"), "malformed digest"),
    (rules.images, lambda site: box(site).update(image="xiaozhi-fleet/edge:1.2.2"), "this is version 1.2.3"),
    (rules.images, lambda site: box(site).update(image="xiaozhi-fleet/brain:1.2.3"), "no stage brain"),
    (rules.resources, lambda site: box(site).pop("resources"), "has no resources.limits.memory"),
    (rules.resources, lambda site: box(site)["resources"]["requests"].pop("cpu"), "has no resources.requests.cpu"),
    (rules.resources, lambda site: box(site)["resources"]["limits"].pop("memory"), "has no resources.limits.memory"),
    (rules.resources, lambda site: box(site)["resources"]["requests"].update(memory="1Gi"), "requests 1Gi of memory, above its limit 512Mi"),
    (rules.resources, lambda site: box(site)["resources"]["requests"].update(cpu="1001m"), "above its limit 1;"),
    (rules.resources, lambda site: box(site)["resources"]["requests"].update(cpu="much"), "no quantity"),
    (rules.probes, lambda site: box(site).pop("readinessProbe"), "has no readinessProbe"),
    (rules.probes, lambda site: box(site).pop("livenessProbe"), "has no livenessProbe"),
    (rules.probes, lambda site: box(site)["livenessProbe"]["httpGet"].update(port="metrics"), "livenessProbe on port metrics"),
    (rules.settings, lambda site: box(site)["env"].append({"name": "EDGE_PROT", "value": "1"}), "would not start: EDGE_PROT: no such setting; second line"),
    (rules.settings, lambda site: box(site)["env"][0].update(value="tcp://10.0.0.1:8000"), "EDGE_PORT: not a number"),
    (rules.settings, lambda site: site["ConfigMap/edge-settings"]["data"].update(EDGE_NAT_URL="x"), "EDGE_NAT_URL: no such setting"),
    (rules.service_links, lambda site: pod(site).pop("enableServiceLinks"), "set enableServiceLinks: false"),
    (rules.config_maps, lambda site: site.pop("ConfigMap/edge-settings"), "uses ConfigMap edge-settings, which is not in this overlay"),
    (rules.config_maps, lambda site: site["ConfigMap/site"]["data"].clear(), "uses key region of ConfigMap site"),
    (rules.config_maps, lambda site: site["ConfigMap/site"]["metadata"].update(namespace="other"), "uses ConfigMap site, which is not"),
    (rules.secrets, lambda site: box(site)["env"][1]["valueFrom"]["secretKeyRef"].update(key="token-secret"), "does not name token-secret"),
    (rules.secrets, lambda site: box(site)["env"][1]["valueFrom"]["secretKeyRef"].update(name="secrets"), "does not name secrets"),
    (rules.secrets, lambda site: pod(site)["volumes"].append({"name": "x", "secret": {"secretName": "tls"}}), "does not name tls"),
    (rules.volumes, lambda site: site.pop("PersistentVolumeClaim/models"), "PersistentVolumeClaim models, which is not"),
    (rules.volumes, lambda site: pod(site)["volumes"].pop(0), "mounts models, which is no volume"),
    (rules.volumes, lambda site: site["StatefulSet/gateway"]["spec"].pop("volumeClaimTemplates"), "mounts data, which is no volume"),
    (rules.addresses, lambda site: site.pop("Service/nats"), "EDGE_NATS_URL pointing at Service nats, which is not"),
    (rules.addresses, lambda site: site["Service/nats"]["spec"]["ports"][0].update(port=4223), "pointing at port 4222, which Service nats"),
    (rules.addresses, lambda site: box(site)["env"].append({"name": "U", "value": "http://me:pw@store.n.svc:1"}), "Service store"),
    (rules.services, lambda site: site["Service/gateway"]["spec"]["selector"].update(app="gate"), "selector app=gate matches no pod"),
    (rules.services, lambda site: site["Service/gateway"]["spec"]["ports"][0].update(targetPort="web"), "targetPort web is no named port"),
    (rules.selectors, lambda site: site["StatefulSet/gateway"]["spec"].update(serviceName="gone"), "serviceName gone is no Service"),
    (rules.selectors, lambda site: site["PodDisruptionBudget/gateway"]["spec"]["selector"]["matchLabels"].update(app="x"), "PodDisruptionBudget/gateway: its selector app=x"),
    (rules.selectors, lambda site: site["StatefulSet/gateway"]["spec"]["selector"]["matchLabels"].update(app="x"), "StatefulSet/gateway: its selector app=x"),
    (rules.security, lambda site: box(site)["securityContext"].pop("allowPrivilegeEscalation"), "may gain privileges"),
    (rules.security, lambda site: box(site)["securityContext"].update(privileged=True), "is privileged"),
    (rules.security, lambda site: box(site)["securityContext"]["capabilities"].update(drop=["NET_RAW"]), "keeps capabilities"),
    (rules.security, lambda site: box(site).pop("securityContext"), "keeps capabilities"),
    (rules.security, lambda site: pod(site).pop("securityContext"), "may run as root"),
    (rules.security, lambda site: box(site)["securityContext"].update(runAsNonRoot=False), "may run as root"),
    (rules.security, lambda site: box(site)["securityContext"].update(readOnlyRootFilesystem=False), "can write to its image"),
    (rules.failover, lambda site: pod(site).pop("tolerations"), "would stay 300 s on a node that is not-ready"),
    (rules.failover, lambda site: pod(site)["tolerations"].pop(1), "node that is unreachable"),
    (rules.failover, lambda site: pod(site)["tolerations"][0].update(tolerationSeconds=31), "would stay 31 s"),
    (rules.failover, lambda site: pod(site)["tolerations"][0].pop("tolerationSeconds"), "would stay forever"),
    (rules.failover, lambda site: pod(site)["tolerations"].append({"operator": "Exists"}), "would stay forever"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rule", "damage", "says"), BREAKS, ids=[f"{rule.__name__}: {says}" for rule, _, says in BREAKS]
)
def test_a_broken_site_is_told_what_is_wrong(rule: Callable[[Render], object], damage: Break, says: str) -> None:
    site = copy.deepcopy(good())
    damage(site)
    told = list(rule(render(site)))  # type: ignore[call-overload]  # rules yield strings
    assert any(says in problem for problem in told), told
    assert all("/" in problem.partition(":")[0] and "\n" not in problem for problem in told)
    assert set(told) <= set(problems(render(site)))


def test_every_rule_can_fail() -> None:
    assert {rule for rule, _, _ in BREAKS} == {rule for rule in RULES if rule.__module__ == rules.__name__}


@pytest.mark.parametrize(
    "change",
    [
        lambda site: box(site).update(image="redis:7.4@sha256:" + "ab" * 32, securityContext={**box(site)["securityContext"], "readOnlyRootFilesystem": False}),
        lambda site: box(site).update(image="registry.example/redis@sha256:" + "ab" * 32),
        lambda site: box(site)["env"].append({"name": "OTHER", "value": "http://somewhere.example:1/ http://127.0.0.1:2 http://localhost:3"}),
        lambda site: box(site)["env"].append({"name": "OTHER", "value": "http://gateway.n.svc.cluster.local:80/x"}),
        lambda site: box(site)["env"].append({"name": "OTHER", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k", "optional": True}}}),
        lambda site: site.update(secret={"kind": "Secret", "metadata": {"name": "tls", "namespace": "n"}}) or pod(site)["volumes"].append({"name": "x", "secret": {"secretName": "tls"}}),
        lambda site: box(site)["readinessProbe"].update(httpGet={"path": "/", "port": 8001}),
        lambda site: site["Service/gateway"]["spec"]["ports"][0].update(targetPort=8001),
        lambda site: pod(site).update(initContainers=[{**box(site), "readinessProbe": None, "livenessProbe": None, "name": "once"}]),
    ],
)  # fmt: skip
def test_what_is_allowed_is_no_problem(change: Break) -> None:
    site = copy.deepcopy(good())
    change(site)
    assert problems(render(site)) == []


def test_a_word_of_another_word_does_not_tell_of_a_secret() -> None:
    header = HEADER.replace("device-token-secret", "my-device-token-secret")
    assert any("does not name device-token-secret" in problem for problem in problems(render(good(), header)))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("250m", Decimal("0.25")),
        ("1", Decimal(1)),
        (0.5, Decimal("0.5")),
        ("128Mi", Decimal(134_217_728)),
        ("1G", Decimal(10) ** 9),
        ("1Ti", Decimal(2) ** 40),
        ("", None),
        ("1.2.3", None),
        ("1Zi", None),
        ("-1", None),
    ],
)
def test_quantities(text: str | float, value: Decimal | None) -> None:
    assert quantity(text) == value


@pytest.mark.parametrize(
    ("image", "tag"),
    [("redis", ""), ("redis:7", "7"), ("host:5000/redis", ""), ("host:5000/redis:7@sha256:aa", "7")],
)
def test_tags(image: str, tag: str) -> None:
    assert image_tag(image) == tag
