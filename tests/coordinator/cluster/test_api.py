from __future__ import annotations

import datetime as dt
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from coordinator.cluster import api as module
from coordinator.cluster.api import Call, KubernetesApi, check_installed, slice_of, status_of
from coordinator.cluster.endpoints import ServicePort
from coordinator.cluster.objects import drained, first_to_go, serving
from models.errors import CloudUnreachableError, ConfigError, VoiceError
from tests.coordinator.cluster.api_server import (
    NAMESPACE,
    ApiServer,
    api_server,
    bookmark,
    cuts,
    drips,
    endpoint,
    event,
    expired,
    hangs,
    pod_document,
    says,
    slice_document,
    streams,
)

pytest.importorskip("kubernetes", reason="pip install 'xiaozhi-fleet[kubernetes]'")

WHERE = ServicePort("vllm-qwen-72b", NAMESPACE, "http")
NAME = "vllm-qwen-72b"


@pytest.fixture
def server() -> Iterator[ApiServer]:
    with api_server() as server:
        yield server


@pytest.fixture
def api(server: ApiServer) -> Iterator[KubernetesApi]:
    api = KubernetesApi(server.url)
    yield api
    api.close()


def hurried(server: ApiServer) -> KubernetesApi:
    """One that waits for nobody long."""
    return KubernetesApi(server.url, read_s=0.1, answer_s=0.2, silence_s=0.1)


# Slices


def test_slices_are_listed_by_the_label_of_their_service(server: ApiServer, api: KubernetesApi) -> None:
    server.put_slice(slice_document("a", [endpoint("10.0.0.1", "p1")]))
    server.put_slice(slice_document("b", None, ports=None))
    slices, version = api.list_slices(WHERE)
    assert ([each.metadata.name for each in slices], version) == (["a", "b"], "102")
    ((_, place, query),) = server.asked
    assert place == f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"
    assert query == {"labelSelector": "kubernetes.io/service-name=vllm-qwen-72b"}


@pytest.mark.parametrize("items", [None, []])
def test_a_list_without_items_is_an_empty_one(server: ApiServer, api: KubernetesApi, items: object) -> None:
    server.plan("get", says(200, {"metadata": {"resourceVersion": "5"}, "items": items}))
    assert api.list_slices(WHERE) == ([], "5")


def test_a_broken_slice_costs_only_itself(server: ApiServer, api: KubernetesApi) -> None:
    broken = {"metadata": {"name": "b"}, "endpoints": {"no": "list"}}
    good = slice_document("a", [endpoint("10.0.0.1")])
    server.plan("get", says(200, {"metadata": {"resourceVersion": "5"}, "items": [broken, good, 7]}))
    assert [each.metadata.name for each in api.list_slices(WHERE)[0]] == ["a"]


def test_a_watch_goes_on_from_a_version_and_asks_for_bookmarks(server: ApiServer, api: KubernetesApi) -> None:
    server.plan("watch", streams(event("ADDED", slice_document("a", [])), b"\n", bookmark(7), expired()))
    events = list(api.watch_slices(WHERE, "5"))
    assert [each.type for each in events] == ["ADDED", "BOOKMARK", "ERROR"]
    assert slice_of(events[1]).metadata.resource_version == "7"
    assert status_of(events[2]).code == 410
    ((_, _, query),) = server.asked
    assert query == {
        "labelSelector": "kubernetes.io/service-name=vllm-qwen-72b",
        "watch": "true",
        "resourceVersion": "5",
        "allowWatchBookmarks": "true",
        "timeoutSeconds": "60",
    }


def test_a_version_too_old_is_an_event_in_either_form(server: ApiServer, api: KubernetesApi) -> None:
    server.plan("watch", says(410))
    (only,) = api.watch_slices(WHERE, "5")
    assert (only.type, status_of(only).code) == ("ERROR", 410)


def test_events_are_whole_however_they_are_cut(server: ApiServer, api: KubernetesApi) -> None:
    line = event("ADDED", slice_document("a", [endpoint("10.0.0.1")]))
    text = line * 3
    server.plan("watch", streams(*(text[at : at + 700] for at in range(0, len(text), 700))))
    assert [slice_of(each).metadata.name for each in api.watch_slices(WHERE, "5")] == ["a"] * 3


def test_a_cut_watch_gives_what_came_and_then_says_so(server: ApiServer, api: KubernetesApi) -> None:
    server.plan("watch", streams(bookmark(7), then=cuts))
    events = api.watch_slices(WHERE, "5")
    assert next(events).type == "BOOKMARK"
    with pytest.raises(CloudUnreachableError):
        next(events)


@pytest.mark.parametrize(
    "line", [b"garbage\n", b"[]\n", b'{"type":1,"object":{}}\n', b'{"object":{}}\n', b"\xff\xfe\n", b"[" * 5000 + b"\n"]
)
def test_a_garbage_line_ends_a_watch(server: ApiServer, api: KubernetesApi, line: bytes) -> None:
    server.plan("watch", streams(bookmark(7), line, bookmark(8)))
    events = api.watch_slices(WHERE, "5")
    next(events)
    with pytest.raises(CloudUnreachableError, match="bytes are not what was asked for"):
        next(events)


def test_an_event_that_holds_no_slice_is_told(server: ApiServer, api: KubernetesApi) -> None:
    server.plan("watch", streams(event("MODIFIED", {"endpoints": "none"})))
    (only,) = api.watch_slices(WHERE, "5")
    with pytest.raises(CloudUnreachableError):
        slice_of(only)
    assert status_of(only).code == 0


def test_a_line_without_end_is_given_up(server: ApiServer, api: KubernetesApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_LINE_BYTES", 1000)
    server.plan("watch", streams(*[b"x" * 400] * 10))
    with pytest.raises(CloudUnreachableError, match="longer than 1000 bytes"):
        list(api.watch_slices(WHERE, "5"))


def test_a_silent_watch_is_given_up(server: ApiServer) -> None:
    api = hurried(server)
    server.plan("watch", streams(bookmark(7), then=hangs))
    events = api.watch_slices(WHERE, "5")
    next(events)
    with pytest.raises(CloudUnreachableError):
        next(events)
    api.close()


def test_leaving_a_watch_closes_its_connection(server: ApiServer, api: KubernetesApi) -> None:
    left = threading.Event()

    def until_left(request: object) -> None:
        hangs(request)  # type: ignore[arg-type]  # the planned answers' request
        left.set()

    server.plan("watch", streams(bookmark(7), then=until_left))
    events = api.watch_slices(WHERE, "5")
    next(events)
    events.close()
    assert left.wait(5)


# Scale and pods


def test_a_scale_is_read_and_written_once_per_version(server: ApiServer, api: KubernetesApi) -> None:
    scale = api.read_scale(NAME, NAMESPACE)
    assert (scale.spec.replicas, scale.status.selector) == (1, "app=vllm-qwen-72b")
    assert api.write_scale(scale, 3)
    assert server.replicas == 3
    assert not api.write_scale(scale, 5), "somebody wrote since"
    assert server.replicas == 3
    assert [place for _, place, _ in server.asked] == [
        f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/{NAME}/scale"
    ] * 3


def test_a_dry_run_is_checked_and_kept_nowhere(server: ApiServer, api: KubernetesApi) -> None:
    server.pods = {"p": pod_document("p")}
    assert api.write_scale(api.read_scale(NAME, NAMESPACE), 3, dry_run=True)
    assert api.patch_pod("p", drained(), NAMESPACE, dry_run=True)
    assert (server.replicas, server.pods["p"], len(server.sent)) == (1, pod_document("p"), 2)


def test_pods_are_listed_and_marked(server: ApiServer, api: KubernetesApi) -> None:
    server.pods = {"p": pod_document("p", "10.0.0.7"), "q": pod_document("q", ready=False)}
    assert [(pod.name, pod.address, pod.is_ready) for pod in api.list_pods("app=x", NAMESPACE)] == [
        ("p", "10.0.0.7", True),
        ("q", "10.0.0.1", False),
    ]
    for patch in (drained(), first_to_go()):
        assert api.patch_pod("p", patch, NAMESPACE)
    (marked,) = [pod for pod in api.list_pods("app=x", NAMESPACE) if pod.name == "p"]
    assert marked.is_draining
    assert marked.is_first_to_go
    assert api.patch_pod("p", serving(), NAMESPACE)
    assert server.pods["p"] == pod_document("p", "10.0.0.7") | {
        "metadata": pod_document("p")["metadata"] | {"annotations": {}}
    }


@pytest.mark.parametrize("code", [404, 409])
def test_a_pod_that_went_or_changed_is_no_error(server: ApiServer, api: KubernetesApi, code: int) -> None:
    server.plan("patch", says(code))
    assert not api.patch_pod("p", drained(), NAMESPACE)


# Refusals and failures

CALLS: dict[str, Callable[[KubernetesApi], object]] = {
    "list": lambda api: api.list_slices(WHERE),
    "watch": lambda api: list(api.watch_slices(WHERE, "5")),
    "scale": lambda api: api.read_scale(NAME, NAMESPACE),
    "pods": lambda api: api.list_pods("app=x", NAMESPACE),
}


@pytest.mark.parametrize(
    ("call", "says_rule"),
    [
        ("list", 'apiGroups ["discovery.k8s.io"], resources [endpointslices], verbs [list]'),
        ("watch", 'apiGroups ["discovery.k8s.io"], resources [endpointslices], verbs [watch]'),
        ("scale", 'apiGroups ["apps"], resources [deployments/scale], verbs [get], resourceNames [vllm-qwen-72b]'),
        ("pods", 'apiGroups [""], resources [pods], verbs [list]'),
    ],
)
def test_a_forbidden_call_names_the_rule_that_is_missing(
    server: ApiServer, api: KubernetesApi, call: str, says_rule: str
) -> None:
    server.plan("watch" if call == "watch" else "get", says(403))
    with pytest.raises(ConfigError, match=r"\(403\); bind this process's ServiceAccount to a Role") as caught:
        CALLS[call](api)
    assert says_rule in str(caught.value)
    assert NAMESPACE in str(caught.value)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(
    ("code", "error", "text"),
    [
        (401, ConfigError, "does not know this account"),
        (404, ConfigError, "there is none"),
        (500, CloudUnreachableError, "answered 500"),
        (503, CloudUnreachableError, "answered 503"),
        (429, CloudUnreachableError, "answered 429"),
        (302, CloudUnreachableError, "answered 302"),
    ],
)
def test_other_refusals_say_what_they_are(
    server: ApiServer, api: KubernetesApi, call: str, code: int, error: type[VoiceError], text: str
) -> None:
    server.plan("watch" if call == "watch" else "get", says(code))
    with pytest.raises(error, match=text):
        CALLS[call](api)
    assert len(server.asked) == 1, "the library tries nothing again by itself"


@pytest.mark.parametrize("document", [b"", b"garbage", b"[]", b'{"items": 3}', b'{"metadata": 3}', b'{"items": ['])
def test_a_garbled_answer_is_an_api_that_is_away(server: ApiServer, api: KubernetesApi, document: bytes) -> None:
    server.plan("get", says(200, document))
    with pytest.raises(CloudUnreachableError):
        api.list_slices(WHERE)


@pytest.mark.parametrize("call", CALLS)
def test_an_api_that_says_nothing_is_away(server: ApiServer, call: str) -> None:
    api = hurried(server)
    server.plan("watch" if call == "watch" else "get", hangs)
    with pytest.raises(CloudUnreachableError):
        CALLS[call](api)
    api.close()


def test_an_answer_that_drips_is_given_up(server: ApiServer) -> None:
    api = hurried(server)
    server.plan("get", drips(b'{"items": [' + b" " * 1000, 0.02))
    with pytest.raises(CloudUnreachableError, match=r"longer than 0\.2 s"):
        api.list_slices(WHERE)
    api.close()


def test_an_endless_answer_is_given_up(server: ApiServer, api: KubernetesApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ANSWER_BYTES", 1000)
    server.plan("get", says(200, b" " * 100_000))
    with pytest.raises(CloudUnreachableError, match="longer than 1000 bytes"):
        api.list_slices(WHERE)


def test_nobody_there_is_an_api_that_is_away() -> None:
    with api_server() as server:
        url = server.url
    api = KubernetesApi(url)
    with pytest.raises(CloudUnreachableError):
        api.list_slices(WHERE)
    api.close()


# Closing


@pytest.mark.parametrize(
    ("call", "answer"),
    [("list", hangs), ("watch", hangs), ("watch", streams(then=hangs)), ("list", drips(b"[" * 1000, 0.01))],
)
def test_closing_ends_a_call_in_another_thread(
    server: ApiServer, api: KubernetesApi, call: str, answer: Callable[..., None]
) -> None:
    server.plan("watch" if call == "watch" else "get", answer)
    ended_by_closing(server, api, call)


def ended_by_closing(server: ApiServer, api: KubernetesApi, call: str) -> None:
    """Make a call in a thread, close the API meanwhile, and check that the call has ended."""
    ended: list[VoiceError] = []

    def ask() -> None:
        try:
            CALLS[call](api)
        except VoiceError as error:
            ended.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    until_s = time.monotonic() + 5
    while not server.asked and time.monotonic() < until_s:
        time.sleep(0.01)  # the request is on its way to a thread of the server
    api.close()
    asking.join(4.0)  # below what the call itself would wait
    assert not asking.is_alive()
    assert isinstance(ended[0], CloudUnreachableError)


def test_a_closed_api_answers_nothing(server: ApiServer, api: KubernetesApi) -> None:
    api.close()
    api.close()
    with pytest.raises(CloudUnreachableError, match="closed"):
        api.read_scale(NAME, NAMESPACE)
    assert not server.asked


# Accounts


def kubeconfig(folder: Path, server: str, namespace: str | None) -> Path:
    context = {"cluster": "c", "user": "u"} | ({"namespace": namespace} if namespace else {})
    file = folder / "config"
    file.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "here",
                "contexts": [{"name": "here", "context": context}],
                "clusters": [{"name": "c", "cluster": {"server": server}}],
                "users": [{"name": "u", "user": {"token": "a-made-up-token"}}],
            }
        )
    )
    return file


@pytest.mark.parametrize(("namespace", "meant"), [("there", "there"), (None, "default")])
def test_outside_a_cluster_the_current_context_is_used(
    server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, namespace: str | None, meant: str
) -> None:
    import kubernetes.config.kube_config as library

    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(library, "KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig(tmp_path, server.url, namespace)))
    api = KubernetesApi()
    api.list_slices(ServicePort("s"))
    api.close()
    assert server.asked[0][1] == f"/apis/discovery.k8s.io/v1/namespaces/{meant}/endpointslices"
    assert server.tokens == ["Bearer a-made-up-token"]


@pytest.mark.parametrize("content", [None, "", "current-context: gone", "[]", "{", "3", "contexts: 3"])
def test_no_account_at_all_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None
) -> None:
    import kubernetes.config.kube_config as library

    file = tmp_path / "config"
    if content is not None:
        file.write_text(content)
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(library, "KUBE_CONFIG_DEFAULT_LOCATION", str(file))
    with pytest.raises(ConfigError, match=r"no Kubernetes account.*ServiceAccount, or set KUBECONFIG"):
        KubernetesApi()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate of 127.0.0.1 with its key, signed by itself."""
    openssl = shutil.which("openssl") or pytest.skip("openssl makes the certificate")
    file = tmp_path_factory.mktemp("tls") / "both.pem"
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
               *names, "-keyout", str(file.with_name("key")), "-out", str(file.with_name("cert"))]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    file.write_bytes(file.with_name("cert").read_bytes() + file.with_name("key").read_bytes())
    return file


@pytest.fixture
def pod(certificate: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """The API server of the pod this process seems to run in."""
    import kubernetes.config.incluster_config as library

    for name, content in {"token": "first", "namespace": "of-the-pod\n"}.items():
        (tmp_path / name).write_text(content)
    monkeypatch.setattr(library, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(library, "SERVICE_CERT_FILENAME", str(certificate.with_name("cert")))
    monkeypatch.setattr(module, "_ACCOUNT", tmp_path)
    with api_server(certificate) as server:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.server_address[1]))
        yield server


def test_in_a_pod_its_account_is_used_and_a_renewed_token_is_read(
    pod: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import kubernetes.config.incluster_config as library

    api = KubernetesApi()
    api.list_slices(ServicePort("s"))
    (tmp_path / "token").write_text("second")

    class Later(dt.datetime):
        @classmethod
        def now(cls, tz: dt.tzinfo | None = None) -> Any:
            return dt.datetime.now(tz) + dt.timedelta(minutes=2)

    monkeypatch.setattr(library, "datetime", SimpleNamespace(datetime=Later, timedelta=dt.timedelta))
    api.list_slices(ServicePort("s"))
    api.close()
    assert [place for _, place, _ in pod.asked] == [
        "/apis/discovery.k8s.io/v1/namespaces/of-the-pod/endpointslices"
    ] * 2
    assert [token.lower() for token in pod.tokens] == ["bearer first", "bearer second"]


def test_a_server_that_is_not_the_clusters_is_away(
    pod: ApiServer, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import certifi
    import kubernetes.config.incluster_config as library

    monkeypatch.setattr(library, "SERVICE_CERT_FILENAME", certifi.where())
    api = KubernetesApi()
    with pytest.raises(CloudUnreachableError, match="SSLError"):
        api.list_slices(ServicePort("s"))
    api.close()
    assert not pod.asked


@pytest.mark.parametrize("answer", [hangs, streams(bookmark(7), then=hangs)])
def test_closing_ends_a_watch_over_tls(pod: ApiServer, answer: Callable[..., None]) -> None:
    pod.plan("watch", answer)
    api = KubernetesApi()
    ended_by_closing(pod, api, "watch")


def test_in_a_pod_without_an_account_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "1")
    with pytest.raises(ConfigError, match="no Kubernetes account"):
        KubernetesApi()


def test_errors_never_repeat_a_token(server: ApiServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import kubernetes.config.kube_config as library

    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    monkeypatch.setattr(library, "KUBE_CONFIG_DEFAULT_LOCATION", str(kubeconfig(tmp_path, server.url, None)))
    api = KubernetesApi(read_s=0.1)
    for plan in (says(401), says(403), says(500), hangs):
        server.plan("get", plan)
    for _ in range(4):
        with pytest.raises(VoiceError) as caught:
            api.list_slices(WHERE)
        assert "a-made-up-token" not in str(caught.value)
    api.close()


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    check_installed()
    monkeypatch.setattr(module, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"pip install 'xiaozhi-fleet\[kubernetes\]'"):
        check_installed()


@pytest.mark.parametrize(
    ("call", "path"),
    [
        (Call("list", "pods", "n"), "/api/v1/namespaces/n/pods"),
        (Call("patch", "pods", "n", name="p"), "/api/v1/namespaces/n/pods/p"),
        (Call("update", "deployments/scale", "n", "apps", "d"), "/apis/apps/v1/namespaces/n/deployments/d/scale"),
    ],
)
def test_a_call_has_the_path_the_api_documents(call: Call, path: str) -> None:
    assert call.path == path


def test_no_role_can_know_the_names_of_pods() -> None:
    assert Call("patch", "pods", "n", name="p").rule.endswith('apiGroups [""], resources [pods], verbs [patch]')
