"""A Kubernetes API server, as far as discovery and scaling need it; the one module that imports kubernetes.

Every call blocks: make it in a thread. Objects are decoded here and not by the library, whose models refuse what the API may answer
(null endpoints, for one).
"""

from __future__ import annotations

import os
import socket
import threading
import time
import weakref
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, TypeVar

import msgspec

from coordinator.cluster.endpoints import SERVICE_LABEL, ServicePort, Slice, SliceList, Status, WatchEvent
from coordinator.cluster.objects import Pod, PodList, Scale
from models.errors import CloudUnreachableError, ConfigError, VoiceError

CONNECT_S = 2.0
"""An API server on the same network that does not accept by then is away."""
READ_S = 5.0
"""How long it may pause in an answer."""
ANSWER_S = 15.0
"""How long a whole answer may take, however it drips."""
WATCH_S = 60
"""How long the API is asked to keep a watch open; it then closes it, and the next goes on from there."""
SILENCE_S = WATCH_S + 10.0
"""A watch that says nothing for so long, not even that it ends, is cut off."""
MAX_ANSWER_BYTES = 16 * 1024 * 1024
"""A pool's slices and pods are a few hundred kilobytes."""
MAX_LINE_BYTES = 4 * 1024 * 1024
"""One event of a watch: a slice with all of 1000 endpoints is about half a megabyte."""
_CHUNK_BYTES = 64 * 1024
_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds the account it runs under."""
_UNAUTHORIZED, _FORBIDDEN, _NOT_FOUND, _CONFLICT, _GONE = 401, 403, 404, 409, 410
_DISCOVERY = "discovery.k8s.io"
_METHODS = {
    "list": ("GET", ""),
    "watch": ("GET", ""),
    "get": ("GET", ""),
    "update": ("PUT", "application/json"),
    "patch": ("PATCH", "application/merge-patch+json"),
}

T = TypeVar("T")
_slices = msgspec.json.Decoder(Slice)
_lists = msgspec.json.Decoder(SliceList)
_events = msgspec.json.Decoder(WatchEvent)
_statuses = msgspec.json.Decoder(Status)
_scales = msgspec.json.Decoder(Scale)
_pods = msgspec.json.Decoder(PodList)
_any = msgspec.json.Decoder(Any)


@dataclass(frozen=True, slots=True)
class Call:
    """A call, from which follow its path and what a Role must allow for it."""

    verb: Literal["list", "watch", "get", "update", "patch"]
    resource: str
    """With its subresource: ``deployments/scale``."""
    namespace: str
    group: str = ""
    name: str = ""

    @property
    def path(self) -> str:
        """Return where it is made."""
        resource, _, part = self.resource.partition("/")
        words = [f"/apis/{self.group}/v1" if self.group else "/api/v1", "namespaces", self.namespace, resource]
        return "/".join([*words, *filter(None, (self.name, part))])

    @property
    def rule(self) -> str:
        """Return what lets it be made; pods have names that no Role can know."""
        only = f", resourceNames [{self.name}]" if self.name and self.resource != "pods" else ""
        return (
            f"bind this process's ServiceAccount to a Role in namespace {self.namespace} with"
            f' apiGroups ["{self.group}"], resources [{self.resource}], verbs [{self.verb}]{only}'
        )

    def refusal(self, status: int) -> VoiceError:
        """Return what a status that is no success means."""
        what = f"{self.verb} {self.resource}{self.name and ' ' + self.name} in namespace {self.namespace}"
        if status == _UNAUTHORIZED:
            return ConfigError(
                f"kubernetes: {what}: it does not know this account (401); mount a ServiceAccount's token"
            )
        if status == _FORBIDDEN:
            return ConfigError(f"kubernetes: {what} is forbidden (403); {self.rule}")
        if status == _NOT_FOUND:
            return ConfigError(f"kubernetes: {what}: there is none (404); mend the name or the namespace")
        return CloudUnreachableError(f"kubernetes: {what}: it answered {status}")


def check_installed() -> None:
    """Raise ConfigError naming the extra when the library is not here; loads nothing."""
    if find_spec("kubernetes") is None:
        raise ConfigError("the kubernetes library is not installed here: pip install 'xiaozhi-fleet[kubernetes]'")


class KubernetesApi:
    """Calls to one API server; raises ConfigError (refused, not found), CloudUnreachableError (away, slow, garbled).

    ``url`` is an API server that asks for no account, as ``kubectl proxy`` is; without it the account of this pod is used, and outside
    a cluster the current context of the kubeconfig file. Making one takes half a second of CPU and reads files.
    """

    def __init__(
        self, url: str = "", *, read_s: float = READ_S, answer_s: float = ANSWER_S, silence_s: float = SILENCE_S
    ) -> None:
        check_installed()
        from kubernetes import client

        self._read_s = read_s
        self._answer_s = answer_s
        self._silence_s = silence_s
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._is_closed = False
        configuration, self.namespace = _configuration(url)
        configuration.retries = False  # who calls waits with jitter and tries again
        self._client = client.ApiClient(configuration)
        _note_sockets(self._client.rest_client.pool_manager, self._note)

    def list_slices(self, where: ServicePort) -> tuple[list[Slice], str]:
        """Return the slices of a Service that can be read, and the version a watch goes on from."""
        call = Call("list", "endpointslices", where.namespace or self.namespace, _DISCOVERY)
        with self._ask(call, {"labelSelector": f"{SERVICE_LABEL}={where.service}"}) as response:
            found = self._read(response, _lists)
        slices = []
        for item in found.items or ():
            with suppress(msgspec.MsgspecError):
                slices.append(_slices.decode(item))
        return slices, found.metadata.resource_version

    def watch_slices(self, where: ServicePort, version: str) -> Generator[WatchEvent, None, None]:
        """Yield what changes after ``version`` until the API ends it; "the version is too old" is an ERROR event like any other."""
        call = Call("watch", "endpointslices", where.namespace or self.namespace, _DISCOVERY)
        query = {
            "labelSelector": f"{SERVICE_LABEL}={where.service}",
            "watch": "true",
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_S),
        }
        with self._ask(call, query, read_s=self._silence_s, allowed={_GONE}) as response:
            if response is None:
                yield WatchEvent(type="ERROR", object=msgspec.Raw(b'{"code":410}'))
                return
            with _as_ours(), closing(_lines(response.stream(_CHUNK_BYTES))) as lines:
                for line in lines:
                    yield _decoded(line, _events)

    def read_scale(self, deployment: str, namespace: str = "") -> Scale:
        """Return how many pods a Deployment should have and has."""
        call = Call("get", "deployments/scale", namespace or self.namespace, "apps", deployment)
        with self._ask(call) as response:
            return self._read(response, _scales)

    def write_scale(self, scale: Scale, replicas: int, *, dry_run: bool = False) -> bool:
        """Set how many pods there should be; return False when somebody else wrote since ``scale`` was read.

        ``dry_run`` has the API check everything and keep nothing.
        """
        call = Call("update", "deployments/scale", scale.metadata.namespace, "apps", scale.metadata.name)
        with self._ask(call, _dry(is_dry=dry_run), body=scale.body(replicas), allowed={_CONFLICT}) as response:
            if response is None:
                return False
            self._read(response, _scales)
        return True

    def list_pods(self, selector: str, namespace: str = "") -> list[Pod]:
        """Return the pods with these labels."""
        call = Call("list", "pods", namespace or self.namespace)
        with self._ask(call, {"labelSelector": selector}) as response:
            return self._read(response, _pods).items or []

    def patch_pod(self, name: str, patch: dict[str, Any], namespace: str = "", *, dry_run: bool = False) -> bool:
        """Merge into a pod's metadata; return False when the pod is gone or was changed at the same time."""
        call = Call("patch", "pods", namespace or self.namespace, name=name)
        with self._ask(call, _dry(is_dry=dry_run), body=patch, allowed={_NOT_FOUND, _CONFLICT}) as response:
            if response is None:
                return False
            self._read(response, _any)
        return True

    def close(self) -> None:
        """End what is under way in other threads, within ``CONNECT_S`` at most; later calls raise CloudUnreachableError."""
        with self._lock:
            self._is_closed = True
            sockets = list(self._sockets)
        for each in sockets:
            _shut(each)
        self._client.rest_client.pool_manager.clear()

    def _note(self, made: socket.socket) -> None:
        with self._lock:
            self._sockets.add(made)
            is_closed = self._is_closed
        if is_closed:
            _shut(made)

    @contextmanager
    def _ask(
        self,
        call: Call,
        query: Mapping[str, str] | None = None,
        *,
        body: dict[str, Any] | None = None,
        read_s: float | None = None,
        allowed: Collection[int] = (),
    ) -> Iterator[Any]:
        """Yield a good response, None for one of the ``allowed`` statuses; the connection is given back, or closed if unread."""
        if self._is_closed:
            raise CloudUnreachableError("kubernetes: the connection is closed")
        method, content_type = _METHODS[call.verb]
        with _as_ours():
            # Not the classes of each API group: making them costs seconds of CPU.
            request = self._client.param_serialize(
                method,
                call.path,
                query_params=list((query or {}).items()),
                header_params={"Accept": "application/json"} | ({"Content-Type": content_type} if body else {}),
                body=body,
                auth_settings=["BearerToken"],
            )
            response = self._client.call_api(*request, _request_timeout=(CONNECT_S, read_s or self._read_s)).response
        is_read = False
        try:
            is_good = 200 <= response.status < 300  # noqa: PLR2004 - 2xx
            if not is_good and response.status not in allowed:
                raise call.refusal(response.status)
            yield response if is_good else None
            is_read = is_good and call.verb != "watch"
        finally:
            (response.release_conn if is_read else response.close)()

    def _read(self, response: Any, decoder: msgspec.json.Decoder[T]) -> T:
        """Return a whole answer decoded."""
        until_s = time.monotonic() + self._answer_s
        parts: list[bytes] = []
        said_bytes = 0
        with _as_ours():
            for part in response.stream(_CHUNK_BYTES):
                parts.append(part)
                said_bytes += len(part)
                if said_bytes > MAX_ANSWER_BYTES:
                    raise CloudUnreachableError(f"kubernetes: an answer is longer than {MAX_ANSWER_BYTES} bytes")
                if time.monotonic() > until_s:
                    raise CloudUnreachableError(f"kubernetes: an answer took longer than {self._answer_s:g} s")
        return _decoded(b"".join(parts), decoder)


def status_of(event: WatchEvent) -> Status:
    """Return what an ERROR event says."""
    with suppress(msgspec.MsgspecError):
        return _statuses.decode(event.object)
    return Status()


def slice_of(event: WatchEvent) -> Slice:
    """Return the slice of an event; raise CloudUnreachableError when it is none."""
    return _decoded(event.object, _slices)


def _configuration(url: str) -> tuple[Any, str]:
    """Return whom to ask and under which account, and the namespace meant when none is named; raise ConfigError."""
    import yaml
    from kubernetes import client, config

    accounts: Any = config  # its functions have no types
    configuration = client.Configuration(host=url.rstrip("/") or None)
    try:
        if url:
            return configuration, _account_namespace()
        if os.environ.get("KUBERNETES_SERVICE_HOST"):
            accounts.load_incluster_config(client_configuration=configuration)
            return configuration, _account_namespace()
        accounts.load_kube_config(client_configuration=configuration)
        _, current = accounts.list_kube_config_contexts()
        return configuration, current["context"].get("namespace") or "default"
    except (
        config.ConfigException,
        yaml.YAMLError,
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
    ) as error:
        raise ConfigError(
            f"no Kubernetes account: {type(error).__name__} while reading it; run in a pod with a ServiceAccount, or set KUBECONFIG"
        ) from error


def _account_namespace() -> str:
    with suppress(OSError, UnicodeDecodeError):
        return (_ACCOUNT / "namespace").read_text().strip() or "default"
    return "default"


def _note_sockets(pools: Any, note: Callable[[socket.socket], None]) -> None:
    """Have every connection told to ``note`` once it is made; a thread that waits on a socket can only be woken through it."""
    from urllib3.connection import HTTPConnection, HTTPSConnection
    from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

    class Plain(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            note(self.sock)

    class Secure(HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            note(self.sock)

    class PlainPool(HTTPConnectionPool):
        ConnectionCls = Plain

    class SecurePool(HTTPSConnectionPool):
        ConnectionCls = Secure

    pools.pool_classes_by_scheme = {"http": PlainPool, "https": SecurePool}


def _shut(each: socket.socket) -> None:
    with suppress(OSError):
        # Not each.shutdown: that of a TLS socket takes the session away from under the thread that reads.
        socket.socket.shutdown(each, socket.SHUT_RDWR)


@contextmanager
def _as_ours() -> Iterator[None]:
    """Let only errors of ours out of what the libraries do; messages name the kind, for theirs repeat headers and tokens."""
    from kubernetes.client.exceptions import OpenApiException
    from kubernetes.config import ConfigException
    from urllib3.exceptions import HTTPError

    try:
        yield
    except VoiceError:
        raise
    except ConfigException as error:
        raise ConfigError("kubernetes: this pod's account cannot be read any more") from error
    except OpenApiException as error:
        raise CloudUnreachableError(f"kubernetes: {type(error.__context__ or error).__name__}") from error
    except (HTTPError, HTTPException, OSError, ValueError, AttributeError) as error:
        # The last two are what urllib3 and ssl raise when a socket is shut while they read from it.
        raise CloudUnreachableError(f"kubernetes: {type(error).__name__}") from error


def _dry(*, is_dry: bool) -> dict[str, str]:
    return {"dryRun": "All"} if is_dry else {}


def _lines(chunks: Iterator[bytes]) -> Generator[bytes, None, None]:
    """Yield whole lines; what is left without an end when the stream ends was cut and is dropped."""
    rest = b""
    for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        if len(rest) > MAX_LINE_BYTES:
            raise CloudUnreachableError(f"kubernetes: a line is longer than {MAX_LINE_BYTES} bytes")
        yield from (line for line in lines if line.strip())


def _decoded(document: bytes | msgspec.Raw, decoder: msgspec.json.Decoder[T]) -> T:
    try:
        return decoder.decode(document)
    except (msgspec.MsgspecError, RecursionError) as error:
        raise CloudUnreachableError(f"kubernetes: {len(bytes(document))} bytes are not what was asked for") from error
