"""What rendered manifests must fulfil in accounts and rights; rules of the same kind as those in ``rules``."""

from __future__ import annotations

from collections.abc import Iterator

from manifests.workloads import Document, Render, namespace_of, pods


def accounts(render: Render) -> Iterator[str]:
    """Pods run under accounts that exist."""
    for pod in pods(render):
        name = pod.spec.get("serviceAccountName") or "default"
        if name != "default" and name not in render.named("ServiceAccount", pod.namespace):
            yield f"{pod.where}: runs as ServiceAccount {name}, which is not in this overlay; add it"


def bindings(render: Render) -> Iterator[str]:
    """Rights are bound within a namespace, and both ends of a binding exist where this overlay is responsible for them."""
    ours = {namespace_of(document) for document in render.documents} - {""}
    for document in render.documents:
        where = f"{document['kind']}/{document['metadata']['name']}"
        if document["kind"] == "ClusterRoleBinding":
            yield f"{where}: gives rights in every namespace; use a RoleBinding"
        if document["kind"] != "RoleBinding":
            continue
        role = document["roleRef"]
        if role["kind"] == "Role" and role["name"] not in render.named("Role", namespace_of(document)):
            yield f"{where}: binds Role {role['name']}, which is not in this overlay; add it"
        for subject in document.get("subjects") or ():
            if subject["kind"] != "ServiceAccount":
                yield f"{where}: gives rights to {subject['kind']} {subject['name']}; name a ServiceAccount"
            elif subject.get("namespace") in ours and subject["name"] not in render.named(
                "ServiceAccount", subject["namespace"]
            ):
                yield f"{where}: gives rights to ServiceAccount {subject['name']}, which is not in this overlay; add it"


def rights(render: Render) -> Iterator[str]:
    """Rights are named one by one, never by a star, and for objects that exist."""
    for document in render.documents:
        if document["kind"] not in {"Role", "ClusterRole"}:
            continue
        where = f"{document['kind']}/{document['metadata']['name']}"
        for rule in document.get("rules") or ():
            for part in ("apiGroups", "resources", "verbs"):
                if "*" in (rule.get(part) or ()):
                    yield f"{where}: has a star in {part}; name what is needed"
            if "secrets" in (rule.get("resources") or ()):
                yield f"{where}: may read secrets through the API; mount those that are needed"
            yield from _unknown(where, document, rule, render)


def _unknown(where: str, role: Document, rule: Document, render: Render) -> Iterator[str]:
    kinds = {"deployments": "Deployment", "statefulsets": "StatefulSet"}
    for resource in rule.get("resources") or ():
        kind = kinds.get(resource.partition("/")[0])
        for name in (rule.get("resourceNames") or ()) if kind else ():
            if name not in render.named(str(kind), namespace_of(role)):
                yield f"{where}: has rights on {kind} {name}, which is not in this overlay; mend the name"
