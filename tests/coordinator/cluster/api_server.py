"""A Kubernetes API server on loopback with a few objects, and planned faults; it validates what it is sent against the real schema."""

from __future__ import annotations

import copy
import json
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import kubernetes_validate

KUBERNETES = "1.31"
NAMESPACE = "xiaozhi-cloud"
MEMORY_S = 10.0

Answer = Callable[["Request"], None]


def status(code: int, reason: str = "", message: str = "") -> dict[str, Any]:
    """A Status as the API writes it."""
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message or f"stub says {code}",
        "reason": reason or str(code),
        "code": code,
    }


def event(kind: str, document: object) -> bytes:
    """One line of a watch."""
    return json.dumps({"type": kind, "object": document}).encode() + b"\n"


def bookmark(version: int) -> bytes:
    """A line without news, as the API writes it: all but the version is null."""
    return event(
        "BOOKMARK",
        {
            "kind": "EndpointSlice",
            "apiVersion": "discovery.k8s.io/v1",
            "metadata": {"resourceVersion": str(version), "creationTimestamp": None},
            "addressType": "",
            "endpoints": None,
            "ports": None,
        },
    )


def expired() -> bytes:
    """The line that says that a watch's version is too old."""
    return event("ERROR", status(410, "Expired", "too old resource version: 1 (2)"))


class Request(BaseHTTPRequestHandler):
    """One request; the planned answers come first, then the objects'."""

    protocol_version = "HTTP/1.1"
    server: ApiServer

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        self._serve()

    def do_PATCH(self) -> None:
        self._serve()

    def _serve(self) -> None:
        split = urlsplit(self.path)
        self.place = split.path
        self.query = {key: values[0] for key, values in parse_qs(split.query).items()}
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        server = self.server
        kind = "watch" if self.query.get("watch") == "true" else self.command.lower()
        server.asked.append((kind, self.place, self.query))
        server.tokens.append(self.headers.get("Authorization") or "")
        planned = server.plans.get(kind)
        try:
            (planned.popleft() if planned else _objects)(self)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def answer(self, code: int, document: object) -> None:
        """Answer a document, or bytes as they are."""
        content = document if isinstance(document, bytes) else json.dumps(document).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def begin(self) -> None:
        """Begin an answer of chunks."""
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def chunk(self, content: bytes) -> None:
        """Send one chunk; an empty one ends the answer."""
        self.wfile.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
        self.wfile.flush()


class ApiServer(ThreadingHTTPServer):
    """Holds EndpointSlices, a Deployment's scale and its pods."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.changed = threading.Condition()
        self.version = 100
        self.slices: dict[str, dict[str, Any]] = {}
        self.events: list[tuple[int, bytes]] = []
        self.replicas = 1
        self.scale_version = 1
        self.pods: dict[str, dict[str, Any]] = {}
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        self.tokens: list[str] = []
        self.sent: list[dict[str, Any]] = []
        """What was written, whole objects after merging, each valid."""
        self.plans: dict[str, deque[Answer]] = {}
        """Answers to give before the true ones, by "get", "watch", "put", "patch"."""
        self.is_over = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *_: object) -> None:
        """Say nothing of clients that went away."""

    def plan(self, kind: str, *answers: Answer) -> None:
        self.plans.setdefault(kind, deque()).extend(answers)

    def put_slice(self, document: dict[str, Any]) -> None:
        """Add or change a slice and tell the watches."""
        with self.changed:
            name = document["metadata"]["name"]
            self.version += 1
            document = copy.deepcopy(document)
            document["metadata"]["resourceVersion"] = str(self.version)
            self.events.append((self.version, event("MODIFIED" if name in self.slices else "ADDED", document)))
            self.slices[name] = document
            self.changed.notify_all()

    def drop_slice(self, name: str) -> None:
        with self.changed:
            self.version += 1
            document = {**self.slices.pop(name)}
            document["metadata"] = {**document["metadata"], "resourceVersion": str(self.version)}
            self.events.append((self.version, event("DELETED", document)))
            self.changed.notify_all()

    def scale(self) -> dict[str, Any]:
        return {
            "kind": "Scale",
            "apiVersion": "autoscaling/v1",
            "metadata": {
                "name": "vllm-qwen-72b",
                "namespace": NAMESPACE,
                "uid": "3f6f7d9e-7f67-4a3e-8f3f-0d5c1f0b6f10",
                "resourceVersion": str(self.scale_version),
                "creationTimestamp": "2026-11-01T02:00:00Z",
            },
            "spec": {"replicas": self.replicas},
            "status": {"replicas": len(self.pods), "selector": "app=vllm-qwen-72b"},
        }


def _objects(request: Request) -> None:
    """Answer as the API would."""
    server = request.server
    if request.place.endswith("/endpointslices"):
        (_watch if request.query.get("watch") == "true" else _slices)(request)
    elif request.place.endswith("/scale"):
        _scale(request)
    elif request.command == "PATCH":
        _patch(request)
    elif request.place.endswith("/pods"):
        request.answer(200, {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": [*server.pods.values()]})
    else:
        request.answer(404, status(404, "NotFound"))


def _slices(request: Request) -> None:
    server = request.server
    with server.changed:
        document = {
            "kind": "EndpointSliceList",
            "apiVersion": "discovery.k8s.io/v1",
            "metadata": {"resourceVersion": str(server.version)},
            "items": [*server.slices.values()],
        }
    request.answer(200, document)


def _watch(request: Request) -> None:
    server, seen = request.server, int(request.query["resourceVersion"])
    until_s = time.monotonic() + MEMORY_S
    request.begin()
    while not server.is_over and time.monotonic() < until_s:
        with server.changed:
            fresh = [line for version, line in server.events if version > seen]
            seen = server.version
            if not fresh:
                server.changed.wait(0.05)
        for line in fresh:
            request.chunk(line)
    request.chunk(b"")


def _scale(request: Request) -> None:
    server = request.server
    if request.command == "GET":
        request.answer(200, server.scale())
        return
    document = json.loads(request.body)
    kubernetes_validate.validate(document, KUBERNETES, strict=True)
    if document["metadata"].get("resourceVersion") != str(server.scale_version):
        request.answer(409, status(409, "Conflict", "the object has been modified"))
        return
    server.sent.append(document)
    if request.query.get("dryRun") != "All":
        server.replicas = document["spec"]["replicas"]
        server.scale_version += 1
    request.answer(200, server.scale())


def _patch(request: Request) -> None:
    server, name = request.server, request.place.rpartition("/")[2]
    if name not in server.pods:
        request.answer(404, status(404, "NotFound"))
        return
    assert request.headers["Content-Type"] == "application/merge-patch+json"
    pod = _merged(server.pods[name], json.loads(request.body))
    kubernetes_validate.validate(pod, KUBERNETES, strict=True)
    server.sent.append(pod)
    if request.query.get("dryRun") != "All":
        server.pods[name] = pod
    request.answer(200, pod)


def _merged(document: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    result = dict(document) if isinstance(document, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = _merged(result.get(key), value)
    return result


@contextmanager
def api_server(certificate: Path | None = None) -> Iterator[ApiServer]:
    """Serve in a thread, over TLS with a certificate (and its key in the same file); everything has ended afterwards."""
    server = ApiServer()
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="api-server")
    thread.start()
    try:
        yield server
    finally:
        server.is_over = True
        server.shutdown()
        server.server_close()
        thread.join()


# Planned answers


def says(code: int, document: object | None = None) -> Answer:
    """Answer with a status."""
    return lambda request: request.answer(code, status(code) if document is None else document)


def streams(*lines: bytes, then: Answer | None = None) -> Answer:
    """Send lines as chunks, then end the watch, or do as told."""

    def answer(request: Request) -> None:
        request.begin()
        for line in lines:
            request.chunk(line)
        (then or (lambda each: each.chunk(b"")))(request)

    return answer


def cuts(request: Request) -> None:
    """Close the connection in the middle."""
    request.wfile.write(b'40\r\n{"type":"MODI')
    request.close_connection = True


def hangs(request: Request) -> None:
    """Say nothing until the server ends or the client has gone."""
    request.connection.settimeout(0.05)
    until_s = time.monotonic() + MEMORY_S
    while not request.server.is_over and time.monotonic() < until_s:
        try:
            if not request.connection.recv(1):
                break
        except TimeoutError:
            continue
        except OSError:
            break
    request.close_connection = True


def drips(content: bytes, pause_s: float) -> Answer:
    """Answer byte by byte."""

    def answer(request: Request) -> None:
        request.begin()
        for byte in content:
            if request.server.is_over:
                break
            request.chunk(bytes([byte]))
            time.sleep(pause_s)
        request.close_connection = True

    return answer


# Objects as an API server writes them


def slice_document(
    name: str, endpoints: Iterable[dict[str, Any]] | None, *, family: str = "IPv4", ports: object = ..., **more: Any
) -> dict[str, Any]:
    """An EndpointSlice of vllm-qwen-72b as the slice controller writes it."""
    return {
        "metadata": {
            "name": name,
            "generateName": "vllm-qwen-72b-",
            "namespace": NAMESPACE,
            "uid": f"uid-{name}",
            "resourceVersion": "1",
            "generation": 3,
            "creationTimestamp": "2026-11-01T02:00:00Z",
            "labels": {
                "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                "kubernetes.io/service-name": "vllm-qwen-72b",
            },
            "annotations": {"endpoints.kubernetes.io/last-change-trigger-time": "2026-11-01T02:05:00Z"},
            "ownerReferences": [
                {
                    "apiVersion": "v1",
                    "kind": "Service",
                    "name": "vllm-qwen-72b",
                    "uid": "0f4d",
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
            "managedFields": [
                {
                    "manager": "kube-controller-manager",
                    "operation": "Update",
                    "apiVersion": "discovery.k8s.io/v1",
                    "time": "2026-11-01T02:05:00Z",
                    "fieldsType": "FieldsV1",
                    "fieldsV1": {"f:addressType": {}, "f:endpoints": {}, "f:ports": {}},
                }
            ],
        },
        "addressType": family,
        "endpoints": None if endpoints is None else [*endpoints],
        "ports": [{"name": "http", "protocol": "TCP", "port": 8000}] if ports is ... else ports,
        **more,
    }


def endpoint(address: str, pod: str = "", **conditions: bool | None) -> dict[str, Any]:
    """One endpoint of a slice, ready unless said otherwise."""
    conditions = {"ready": True, "serving": True, "terminating": False} | conditions
    target = {"kind": "Pod", "namespace": NAMESPACE, "name": pod, "uid": f"uid-{pod}"}
    return {
        "addresses": [address],
        "conditions": conditions,
        "nodeName": f"node-of-{pod}" if pod else None,
        "zone": "z1",
        **({"targetRef": target} if pod else {}),
    }


def pod_document(name: str, address: str = "10.0.0.1", *, ready: bool = True, **labels: str) -> dict[str, Any]:
    """A pod of vllm-qwen-72b, valid and as short as can be."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": NAMESPACE,
            "labels": {"app": "vllm-qwen-72b", "xiaozhi-fleet/serving": "true"} | labels,
        },
        "spec": {"containers": [{"name": "vllm", "image": "vllm/vllm-openai:v0.11.0"}]},
        "status": {
            "phase": "Running",
            "podIP": address,
            "conditions": [{"type": "Ready", "status": "True" if ready else "False"}],
        },
    }
