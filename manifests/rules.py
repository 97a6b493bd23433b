"""What rendered manifests must fulfil beyond Kubernetes' own schema: pure functions from documents to problems.

A problem reads "Kind/name: what is wrong and how to mend it". Each rule in ``RULES`` looks at the whole render of one overlay, whose
documents have the shapes the schema demands.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal, InvalidOperation

from manifests.permissions import accounts, bindings, rights
from manifests.workloads import (
    Container,
    Render,
    all_containers,
    containers,
    environment,
    matching,
    namespace_of,
    pods,
    repository_of,
    uses,
)
from models.errors import ConfigError

MAX_TOLERATION_S = 30
"""How long a gateway may stay bound to a dead node: the failover promise. Kubernetes' default is 300 s."""
TAINTS = ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable")
_DECIMAL = {"": Decimal(1), "m": Decimal("0.001"), "k": Decimal(10) ** 3, "M": Decimal(10) ** 6, "G": Decimal(10) ** 9}
_BINARY = {suffix: Decimal(1024) ** power for power, suffix in enumerate(("Ki", "Mi", "Gi", "Ti"), start=1)}
_UNITS = {**_DECIMAL, "T": Decimal(10) ** 12, **_BINARY}
"""Suffixes of Kubernetes' quantities."""
_QUANTITY = re.compile(r"([0-9.]+)([A-Za-z]*)")
_URL = re.compile(r"[a-z][a-z0-9+.-]*://(?:[^@/\s,]*@)?([A-Za-z0-9.-]+)(?::(\d+))?")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


def images(render: Render) -> Iterator[str]:
    """Images are pinned, and ours are of this version and built by the Dockerfile."""
    for container in all_containers(render):
        image = container.spec.get("image", "")
        tag, digest = image_tag(image), image.partition("@")[2]
        if digest and not _DIGEST.fullmatch(digest):
            yield f"{container.where} has image {image} with a malformed digest; write @sha256: and 64 hex digits"
        elif not digest and tag in {"", "latest"}:
            yield f"{container.where} has image {image or '(none)'}, which changes under you; pin a version tag or a digest"
        if container.own_target and tag != render.version:
            yield f"{container.where} has image {image}, but this is version {render.version}; set the tag to it"
        if container.own_target and container.own_target not in render.targets:
            yield f"{container.where} has image {image}, but the Dockerfile has no stage {container.own_target}; add or rename it"


def resources(render: Render) -> Iterator[str]:
    """Every container asks for cpu and memory and is limited, never below what it asks for."""
    for container in all_containers(render):
        given = container.spec.get("resources") or {}
        requests, limits = given.get("requests") or {}, given.get("limits") or {}
        for part, values in (("requests", requests), ("limits", limits)):
            for name in ("cpu", "memory"):
                if name not in values:
                    yield f"{container.where} has no resources.{part}.{name}; set it"
        for name in requests.keys() & limits.keys():
            yield from _ordered(container.where, name, requests[name], limits[name])


def probes(render: Render) -> Iterator[str]:
    """What runs for ever says whether it is ready and alive, on ports it has."""
    for container in all_containers(render):
        ports = {port.get("name") for port in container.spec.get("ports") or ()}
        for probe in ("readinessProbe", "livenessProbe"):
            if container.lasts and not container.spec.get(probe):
                yield f"{container.where} has no {probe}; add one"
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            for action in (container.spec.get(probe) or {}).values():
                port = action.get("port") if isinstance(action, dict) else None
                if isinstance(port, str) and port not in ports:
                    yield f"{container.where} has a {probe} on port {port}, which it does not name; add the name under ports"


def settings(render: Render) -> Iterator[str]:
    """Our processes would start with the environment they get: every name is a setting, every value fits it."""
    for container in all_containers(render):
        values = environment(container, render)
        for prefix, read in render.readers.items():
            if not any(name.startswith(prefix) for name in values):
                continue
            try:
                read(values)
            except ConfigError as error:
                yield f"{container.where} would not start: {'; '.join(str(error).splitlines())}"


def service_links(render: Render) -> Iterator[str]:
    """No pod gets a variable per Service: Service edge-gateway would set EDGE_GATEWAY_PORT=tcp://…, a setting of ours."""
    for pod in pods(render):
        if pod.spec.get("enableServiceLinks", True):
            yield f"{pod.where}: Kubernetes adds variables named after Services, which collide with settings; set enableServiceLinks: false"


def config_maps(render: Render) -> Iterator[str]:
    """ConfigMaps that are used exist in the render, with the keys used."""
    for pod in pods(render):
        maps = render.named("ConfigMap", pod.namespace)
        for name, key in uses(pod, "configMap"):
            if name not in maps:
                yield f"{pod.where}: uses ConfigMap {name}, which is not in this overlay; add it to a configMapGenerator"
            elif key and key not in {**maps[name].get("data", {}), **maps[name].get("binaryData", {})}:
                yield f"{pod.where}: uses key {key} of ConfigMap {name}, which has no such key; add it there"


def secrets(render: Render) -> Iterator[str]:
    """Secrets that are used are in the render or told to the operator, with every key."""
    for pod in pods(render):
        present = render.named("Secret", pod.namespace)
        for name, key in uses(pod, "secret"):
            untold = [word for word in (name, key) if word and not _tells(render.header, word)]
            if name not in present and untold:
                yield (
                    f"{pod.where}: uses Secret {name}{f' key {key}' if key else ''}, but the comment at the top of"
                    f" kustomization.yaml does not name {' and '.join(untold)}; say there how to create it"
                )


def volumes(render: Render) -> Iterator[str]:
    """Claims exist, and what is mounted is a volume of the pod."""
    for pod in pods(render):
        known = {volume["name"] for volume in pod.spec.get("volumes") or ()} | pod.claims
        claims = render.named("PersistentVolumeClaim", pod.namespace)
        for volume in pod.spec.get("volumes") or ():
            claim = (volume.get("persistentVolumeClaim") or {}).get("claimName")
            if claim and claim not in claims:
                yield f"{pod.where}: uses PersistentVolumeClaim {claim}, which is not in this overlay; add it"
        for container in containers(pod):
            for mount in container.spec.get("volumeMounts") or ():
                if mount["name"] not in known:
                    yield f"{container.where} mounts {mount['name']}, which is no volume of the pod; add it under volumes"


def addresses(render: Render) -> Iterator[str]:
    """Services named in URLs of the environment exist in the render, with that port."""
    for container in all_containers(render):
        services = render.named("Service", container.pod.namespace)
        for variable, value in environment(container, render).items():
            for host, port in _URL.findall(value):
                name = _service_name(host, container.pod.namespace)
                if not name:
                    continue
                if name not in services:
                    yield f"{container.where} has {variable} pointing at Service {name}, which is not in this overlay; add it or write the full host name"
                elif port and int(port) not in {entry["port"] for entry in services[name]["spec"].get("ports") or ()}:
                    yield f"{container.where} has {variable} pointing at port {port}, which Service {name} does not have; mend either"


def services(render: Render) -> Iterator[str]:
    """Services lead to pods and to ports those pods name."""
    for document in render.documents:
        if document["kind"] != "Service" or not document["spec"].get("selector"):
            continue
        where = f"Service/{document['metadata']['name']}"
        behind = matching(render, document, document["spec"]["selector"])
        if not behind:
            yield f"{where}: its selector {_labels(document['spec']['selector'])} matches no pod here; use the pod template's labels"
        for port in document["spec"].get("ports") or ():
            target = port.get("targetPort")
            if not isinstance(target, str):
                continue
            for pod in behind:
                named = {
                    entry.get("name") for container in containers(pod) for entry in container.spec.get("ports") or ()
                }
                if target not in named:
                    yield f"{where}: targetPort {target} is no named port of {pod.where}; name the containerPort so"


def selectors(render: Render) -> Iterator[str]:
    """Workloads and disruption budgets select pods that exist, and a StatefulSet's Service is there."""
    for document in render.documents:
        where = f"{document['kind']}/{document['metadata']['name']}"
        wanted = (document.get("spec") or {}).get("selector")
        labels = wanted.get("matchLabels") if isinstance(wanted, dict) else None
        if labels and not matching(render, document, labels):
            yield f"{where}: its selector {_labels(labels)} matches no pod here; use the pod template's labels"
        if document["kind"] == "StatefulSet":
            name = document["spec"].get("serviceName")
            if name not in render.named("Service", namespace_of(document)):
                yield f"{where}: its serviceName {name} is no Service here; add a headless one"


def security(render: Render) -> Iterator[str]:
    """No container can gain rights; ours run as an ordinary user on a read-only root."""
    for container in all_containers(render):
        own = container.spec.get("securityContext") or {}
        everyone = {**(container.pod.spec.get("securityContext") or {}), **own}
        if own.get("allowPrivilegeEscalation") is not False:
            yield f"{container.where} may gain privileges; set securityContext.allowPrivilegeEscalation: false"
        if own.get("privileged"):
            yield f"{container.where} is privileged; remove securityContext.privileged"
        if "ALL" not in ((own.get("capabilities") or {}).get("drop") or ()):
            yield f"{container.where} keeps capabilities; set securityContext.capabilities.drop: [ALL]"
        if not container.own_target:
            continue
        if everyone.get("runAsNonRoot") is not True:
            yield f"{container.where} may run as root; set runAsNonRoot: true"
        if own.get("readOnlyRootFilesystem") is not True:
            yield f"{container.where} can write to its image; set readOnlyRootFilesystem: true, with an emptyDir at /tmp if it needs one"


def failover(render: Render) -> Iterator[str]:
    """Gateways leave a dead node in time."""
    for pod in pods(render):
        if not any(_is_gateway(container) for container in containers(pod)):
            continue
        for taint in TAINTS:
            stays = [
                toleration.get("tolerationSeconds")
                for toleration in pod.spec.get("tolerations") or ()
                if toleration.get("key") in {taint, None} and toleration.get("effect") in {"NoExecute", None}
            ]
            if not stays or any(seconds is None or seconds > MAX_TOLERATION_S for seconds in stays):
                yield (
                    f"{pod.where}: a gateway would stay {'forever' if None in stays else f'{max(stays, default=300)} s'} on a node"
                    f" that is {taint.rpartition('/')[2]}; tolerate {taint} with tolerationSeconds <= {MAX_TOLERATION_S}"
                )


RULES: tuple[Callable[[Render], Iterator[str]], ...] = (
    images,
    resources,
    probes,
    settings,
    service_links,
    config_maps,
    secrets,
    volumes,
    addresses,
    services,
    selectors,
    security,
    failover,
    accounts,
    bindings,
    rights,
)


def problems(render: Render) -> list[str]:
    """Return what is wrong with an overlay, [] when nothing is."""
    return list(dict.fromkeys(problem for rule in RULES for problem in rule(render)))


def image_tag(image: str) -> str:
    """Return an image's tag, "" when it has none."""
    return image.partition("@")[0][len(repository_of(image)) + 1 :]


def quantity(text: str | float) -> Decimal | None:
    """Return a Kubernetes quantity as a number of its base unit, None when it is none."""
    match = _QUANTITY.fullmatch(str(text))
    if match is None or match[2] not in _UNITS:
        return None
    try:
        return Decimal(match[1]) * _UNITS[match[2]]
    except InvalidOperation:
        return None


def _ordered(where: str, name: str, request: str, limit: str) -> Iterator[str]:
    asked, allowed = quantity(request), quantity(limit)
    if asked is None or allowed is None:
        yield f"{where} has a {name} that is no quantity; write e.g. 250m or 512Mi"
    elif asked > allowed:
        yield f"{where} requests {request} of {name}, above its limit {limit}; raise the limit or lower the request"


def _service_name(host: str, namespace: str) -> str:
    """Return the Service of this namespace a host name means, "" when it means something else."""
    name, _, rest = host.partition(".")
    is_here = not rest or rest.split(".")[0] == namespace
    return name if is_here and name != "localhost" else ""


def _tells(header: str, word: str) -> bool:
    return re.search(rf"(?<![\w.-]){re.escape(word)}(?![\w-]|\.\w)", header) is not None


def _is_gateway(container: Container) -> bool:
    words = [*(container.spec.get("command") or ()), *(container.spec.get("args") or ())]
    return container.own_target == "edge" and "gateway" in words


def _labels(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in labels.items())
