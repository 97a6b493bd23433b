"""The Kubernetes objects that scaling reads and writes, with the fields it uses."""

from __future__ import annotations

from typing import Any

import msgspec

DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
"""Of the pods of a ReplicaSet that are ready, the one with the lowest goes first (k8s.io/api/core/v1, PodDeletionCost)."""
FIRST_COST = "-1000"
"""Below the 0 of a pod without the annotation."""
SERVING_LABEL = "xiaozhi-fleet/serving"
"""Part of the Service's selector but not of the Deployment's: without its "true" a pod gets no new work and still counts."""
SERVING = "true"
DRAINING = "draining"


class _Numbers(msgspec.Struct, frozen=True):
    replicas: int = 0
    selector: str = ""


class _ScaleMeta(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    namespace: str
    resource_version: str


class Scale(msgspec.Struct, frozen=True, rename="camel"):
    """The scale subresource of a Deployment."""

    metadata: _ScaleMeta
    spec: _Numbers = _Numbers()
    status: _Numbers = _Numbers()
    """Pods there are, which is more than ``spec`` while some end; and how to select them."""

    def body(self, replicas: int) -> dict[str, Any]:
        """Return the object that sets the number, refused by the API when somebody wrote since this one was read."""
        return {
            "apiVersion": "autoscaling/v1",
            "kind": "Scale",
            "metadata": {
                "name": self.metadata.name,
                "namespace": self.metadata.namespace,
                "resourceVersion": self.metadata.resource_version,
            },
            "spec": {"replicas": replicas},
        }


class _PodMeta(msgspec.Struct, frozen=True, rename="camel"):
    name: str
    labels: dict[str, str] | None = None
    annotations: dict[str, str] | None = None
    deletion_timestamp: str | None = None


class _PodCondition(msgspec.Struct, frozen=True):
    type: str = ""
    status: str = ""


class _PodStatus(msgspec.Struct, frozen=True):
    phase: str = ""
    address: str = msgspec.field(default="", name="podIP")
    conditions: list[_PodCondition] | None = None


class Pod(msgspec.Struct, frozen=True):
    """A pod of a pool."""

    metadata: _PodMeta
    status: _PodStatus = _PodStatus()

    @property
    def name(self) -> str:
        """Its name."""
        return self.metadata.name

    @property
    def address(self) -> str:
        """Its address, "" while it has none."""
        return self.status.address

    @property
    def is_ending(self) -> bool:
        """Whether it was told to end, or has ended."""
        return self.metadata.deletion_timestamp is not None or self.status.phase in {"Succeeded", "Failed"}

    @property
    def is_ready(self) -> bool:
        """Whether its probes succeed."""
        return any(found.type == "Ready" and found.status == "True" for found in self.status.conditions or ())

    @property
    def is_draining(self) -> bool:
        """Whether it was taken out of choice."""
        return (self.metadata.labels or {}).get(SERVING_LABEL) == DRAINING

    @property
    def is_first_to_go(self) -> bool:
        """Whether it was put first in line to be removed."""
        return (self.metadata.annotations or {}).get(DELETION_COST) == FIRST_COST


class PodList(msgspec.Struct, frozen=True):
    """Pods as the API lists them."""

    items: list[Pod] | None = None


def drained() -> dict[str, Any]:
    """Return the merge patch that takes a pod out of its Service's endpoints."""
    return {"metadata": {"labels": {SERVING_LABEL: DRAINING}}}


def first_to_go() -> dict[str, Any]:
    """Return the merge patch that puts a pod first in line to be removed."""
    return {"metadata": {"annotations": {DELETION_COST: FIRST_COST}}}


def serving() -> dict[str, Any]:
    """Return the merge patch that undoes both."""
    return {"metadata": {"labels": {SERVING_LABEL: SERVING}, "annotations": {DELETION_COST: None}}}
