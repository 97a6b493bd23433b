"""Rendered manifests seen as what they run: pods, their containers, and the environment each container gets."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Document = Mapping[str, Any]
Reader = Callable[[Mapping[str, str]], object]
"""Reads the settings of one process out of its environment; raises ConfigError."""

OWN_IMAGES = "xiaozhi-fleet"
"""Repository of the images that manifests/images/Dockerfile builds."""
STAND_IN = "stand-in-for-a-value-only-the-cluster-knows"
"""Takes the place of secrets and node names where settings are read; long enough for a secret."""
_LASTING = {"Deployment", "StatefulSet", "DaemonSet"}


@dataclass(frozen=True, slots=True)
class Render:
    """One overlay as rendered, and what it is held against."""

    documents: Sequence[Document]
    header: str = ""
    """The comment at the top of its kustomization.yaml: what the operator has to bring."""
    version: str = "0"
    """Version of the project."""
    targets: frozenset[str] = frozenset({"edge", "coordinator", "cloud"})
    """Stages of the Dockerfile that are images of ours."""
    readers: Mapping[str, Reader] = field(default_factory=dict)
    """Prefix of environment variables to what reads them."""

    def named(self, kind: str, namespace: str) -> dict[str, Document]:
        """Return the objects of a kind and namespace by name."""
        return {
            document["metadata"]["name"]: document
            for document in self.documents
            if document["kind"] == kind and namespace_of(document) == namespace
        }


@dataclass(frozen=True, slots=True)
class Pod:
    """The pod a workload makes."""

    where: str
    """Kind/name of the workload."""
    namespace: str
    labels: Mapping[str, str]
    spec: Document
    claims: frozenset[str]
    """Volumes that the workload claims per pod."""
    lasts: bool
    """Whether it is meant to run for ever."""


@dataclass(frozen=True, slots=True)
class Container:
    """One container of a pod, ``where`` ready to begin a problem with."""

    pod: Pod
    spec: Document
    where: str
    lasts: bool

    @property
    def own_target(self) -> str:
        """Stage of our Dockerfile it is built from, "" for images of others."""
        repository, _, name = repository_of(self.spec.get("image", "")).rpartition("/")
        return name if repository.rpartition("/")[2] == OWN_IMAGES else ""


def pods(render: Render) -> Iterator[Pod]:
    """Yield the pod of every workload."""
    for document in render.documents:
        template = template_of(document)
        if template is None:
            continue
        name = document["metadata"]["name"]
        yield Pod(
            where=f"{document['kind']}/{name}",
            namespace=namespace_of(document),
            labels=template.get("metadata", {}).get("labels", {}),
            spec=template["spec"],
            claims=frozenset(claim["metadata"]["name"] for claim in document["spec"].get("volumeClaimTemplates") or ()),
            lasts=document["kind"] in _LASTING,
        )


def containers(pod: Pod) -> Iterator[Container]:
    """Yield the pod's containers; an init container that restarts always is a sidecar and lasts."""
    for spec in pod.spec.get("initContainers") or ():
        lasts = pod.lasts and spec.get("restartPolicy") == "Always"
        yield Container(pod, spec, f"{pod.where}: init container {spec['name']}", lasts)
    for spec in pod.spec["containers"]:
        yield Container(pod, spec, f"{pod.where}: container {spec['name']}", pod.lasts)


def all_containers(render: Render) -> Iterator[Container]:
    """Yield every container of the overlay."""
    for pod in pods(render):
        yield from containers(pod)


def environment(container: Container, render: Render) -> dict[str, str]:
    """Return the variables a container gets, with ``STAND_IN`` for those only the cluster knows."""
    maps = render.named("ConfigMap", container.pod.namespace)
    values: dict[str, str] = {}
    for source in container.spec.get("envFrom") or ():
        data = _data(maps, source.get("configMapRef") or {})
        values |= {source.get("prefix", "") + key: value for key, value in data.items()}
    for entry in container.spec.get("env") or ():
        value = _value(entry, maps)
        if value is not None:
            values[entry["name"]] = value
    return values


def _value(entry: Document, maps: Mapping[str, Document]) -> str | None:
    """Return what a variable holds, None when its source is optional and away."""
    source = entry.get("valueFrom")
    if not source:
        literal: str = entry.get("value", "")
        return literal
    if "resourceFieldRef" in source:
        return "1"
    reference = source.get("configMapKeyRef") or {}
    held = _data(maps, reference).get(reference.get("key", ""))
    return held if held is not None else None if reference.get("optional") else STAND_IN


def _data(maps: Mapping[str, Document], reference: Document) -> Mapping[str, str]:
    data: Mapping[str, str] = maps.get(reference.get("name", ""), {}).get("data") or {}
    return data


def uses(pod: Pod, kind: str) -> Iterator[tuple[str, str]]:
    """Yield name and key ("" for all) of the ConfigMaps ("configMap") or Secrets ("secret") a pod cannot start without."""
    for container in containers(pod):
        for source in container.spec.get("envFrom") or ():
            yield from _use(source.get(f"{kind}Ref"))
        for entry in container.spec.get("env") or ():
            yield from _use((entry.get("valueFrom") or {}).get(f"{kind}KeyRef"))
    for volume in pod.spec.get("volumes") or ():
        for source in (volume, *((volume.get("projected") or {}).get("sources") or ())):
            yield from _use(source.get(kind))


def _use(reference: Mapping[str, Any] | None) -> Iterator[tuple[str, str]]:
    if not reference or reference.get("optional"):
        return
    name = reference.get("name") or reference.get("secretName") or ""
    keys = [reference["key"]] if "key" in reference else [item["key"] for item in reference.get("items") or ()]
    for key in keys or [""]:
        yield name, key


def matching(render: Render, document: Document, labels: Mapping[str, str]) -> list[Pod]:
    """Return the pods a selector finds; a workload's finds its own only."""
    own = f"{document['kind']}/{document['metadata']['name']}" if template_of(document) is not None else ""
    return [
        pod
        for pod in pods(render)
        if pod.namespace == namespace_of(document) and own in {"", pod.where} and labels.items() <= pod.labels.items()
    ]


def template_of(document: Document) -> Document | None:
    """Return the pod template of a workload, None for what makes no pods."""
    if document["kind"] == "Pod":
        return document
    spec: Document = document.get("spec") or {}
    job: Document = spec.get("jobTemplate") or {"spec": spec}
    template = job["spec"].get("template")
    return template if isinstance(template, dict) and "containers" in (template.get("spec") or {}) else None


def namespace_of(document: Document) -> str:
    """Return an object's namespace, "" when it names none."""
    namespace: str = document["metadata"].get("namespace", "")
    return namespace


def repository_of(image: str) -> str:
    """Return an image's name without tag and digest; a colon before the last slash belongs to a port."""
    path = image.partition("@")[0]
    before, slash, last = path.rpartition("/")
    return before + slash + last.partition(":")[0]
