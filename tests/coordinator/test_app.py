from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import nullcontext
from typing import NoReturn

import msgspec
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from starlette.applications import Starlette
from starlette.testclient import TestClient

from coordinator import wire
from coordinator.app import Bootstrap, check, first_policy, hear_edges, listing, open_api, run
from coordinator.bus import Bus
from coordinator.cluster import api
from coordinator.fleet.bootstrap import MAX_BODY_BYTES
from coordinator.fleet.registry import Registry
from coordinator.fleet.tokens import TokenAuthenticator
from coordinator.memory_bus import MemoryBus
from coordinator.metrics import Metrics
from coordinator.probes import probes
from coordinator.remote import Asker
from coordinator.routing.policy import Policy
from coordinator.routing.router import Router
from coordinator.settings import CoordinatorSettings, load
from models.errors import CloudUnreachableError, ConfigError, DeviceAuthError
from tests import virtual_time

SECRET = "correct horse battery staple"
MAC = "AA:bb:cc:dd:ee:ff"
CLIENT_ID = "9f1e7a1c-0000-4000-8000-000000000000"
HEADERS = {
    "Device-Id": MAC,
    "Client-Id": CLIENT_ID,
    "User-Agent": "bread-compact-wifi/2.4.2",
    "Accept-Language": "zh-CN",
    "Activation-Version": "1",
    "Content-Type": "application/json",
}
STOCK = {
    "version": 2,
    "language": "zh-CN",
    "flash_size": 16777216,
    "minimum_free_heap_size": "8318916",
    "mac_address": MAC.lower(),
    "uuid": CLIENT_ID,
    "chip_model_name": "esp32s3",
    "chip_info": {"model": 9, "cores": 2, "revision": 2, "features": 18},
    "application": {
        "name": "xiaozhi",
        "version": "2.4.2",
        "compile_time": "x",
        "idf_version": "v5.5",
        "elf_sha256": "0",
    },
    "partition_table": [{"label": "nvs", "type": 1, "subtype": 2, "address": 36864, "size": 16384}],
    "ota": {"label": "ota_0"},
    "board": {"type": "bread-compact-wifi", "name": "bread-compact-wifi", "ssid": "home", "rssi": -50, "channel": 1},
}


class Site:
    """A coordinator without NATS, and a clock."""

    def __init__(self, **environ: str) -> None:
        self.now_s = 1000.0
        environ = {"COORDINATOR_DEVICE_TOKEN_SECRET": SECRET} | environ
        self.settings = load(CoordinatorSettings, environ)
        self.metrics = Metrics(CollectorRegistry())
        self.edges = Registry(stale_s=self.settings.edge_stale_s, now=lambda: self.now_s)
        bootstrap = Bootstrap(self.settings, self.edges, self.metrics)
        self.client = TestClient(probes(self.metrics, not_ready=dict, routes=bootstrap.routes), follow_redirects=False)

    def saw(self, edge_id: str, **fields: object) -> None:
        self.edges.saw(wire.EdgeBeat(edge_id=edge_id, websocket_url=f"ws://{edge_id}:8000/xiaozhi/v1/", **fields))  # type: ignore[arg-type]  # a test's fields

    def boots(self, result: str) -> float:
        return self.metrics.registry.get_sample_value("voice_boots_total", {"result": result}) or 0


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    with site.client:
        yield site


# A boot that succeeds


@pytest.mark.parametrize("path", ["/xiaozhi/ota/", "/xiaozhi/ota"])
def test_stock_firmware_is_told_its_edge(site: Site, path: str) -> None:
    site.saw("edge-1")
    before_ms = time.time() * 1000
    answer = site.client.post(path, headers=HEADERS, json=STOCK)
    assert answer.status_code == 200
    assert int(answer.headers["content-length"]) == len(answer.content), "firmware needs it"
    assert "transfer-encoding" not in answer.headers
    said = answer.json()
    assert said.keys() == {"server_time", "websocket", "firmware"}
    assert said["websocket"].keys() == {"url", "token", "version"}
    assert said["websocket"]["url"] == "ws://edge-1:8000/xiaozhi/v1/"
    assert said["websocket"]["version"] == 1
    assert said["firmware"] == {"version": "2.4.2", "url": ""}
    assert said["server_time"]["timezone_offset"] == 480
    assert before_ms - 1 <= said["server_time"]["timestamp"] <= time.time() * 1000
    assert site.boots("answered") == 1


def test_the_token_opens_the_gateway_to_this_device_only(site: Site) -> None:
    site.saw("edge-1")
    token = site.client.post("/xiaozhi/ota/", headers=HEADERS, json=STOCK).json()["websocket"]["token"]
    assert " " not in token
    TokenAuthenticator(SECRET).check(MAC, CLIENT_ID, token)
    TokenAuthenticator(SECRET).check(MAC.lower(), CLIENT_ID, token)
    for wrong in (
        lambda: TokenAuthenticator(SECRET).check(MAC, "other", token),
        lambda: TokenAuthenticator(SECRET).check("00:11:22:33:44:55", CLIENT_ID, token),
        lambda: TokenAuthenticator("another secret of length").check(MAC, CLIENT_ID, token),
        lambda: TokenAuthenticator(SECRET, now=lambda: time.time() + 31 * 86_400).check(MAC, CLIENT_ID, token),
    ):
        with pytest.raises(DeviceAuthError):
            wrong()


def test_the_least_loaded_edge_of_the_region_is_chosen(site: Site) -> None:
    site.saw("far", region="north")
    site.saw("busy", region="south", active_devices=10)
    site.saw("near", region="south", active_devices=9)
    answer = site.client.post("/xiaozhi/ota/?region=south", headers=HEADERS, json=STOCK)
    assert answer.json()["websocket"]["url"] == "ws://near:8000/xiaozhi/v1/"
    answer = site.client.post("/xiaozhi/ota/?region=moon", headers=HEADERS, json=STOCK)
    assert answer.json()["websocket"]["url"] == "ws://far:8000/xiaozhi/v1/"


def test_settings_shape_the_answer() -> None:
    site = Site(COORDINATOR_PROTOCOL_VERSION="3", COORDINATOR_TIMEZONE_OFFSET_MIN="-60", COORDINATOR_TOKEN_TTL_S="60")
    site.saw("edge-1")
    said = site.client.post("/xiaozhi/ota/", headers=HEADERS, json=STOCK).json()
    assert (said["websocket"]["version"], said["server_time"]["timezone_offset"]) == (3, -60)
    assert int(said["websocket"]["token"].split(".")[0]) <= time.time() + 60


@pytest.mark.parametrize("body", [b"", b"{}", b'{"application": 3, "board": [], "uuid": {}}'])
def test_a_small_client_is_answered_too(site: Site, body: bytes) -> None:
    site.saw("edge-1")
    answer = site.client.post("/xiaozhi/ota/", headers={"Device-Id": MAC}, content=body)
    assert answer.status_code == 200
    assert "firmware" not in answer.json()


# No edge


def test_a_device_is_sent_away_for_a_while_when_no_edge_is_heard_of(site: Site) -> None:
    answer = site.client.post("/xiaozhi/ota/", headers=HEADERS, json=STOCK)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
    assert "websocket" not in answer.json()
    assert site.boots("503") == 1


def test_an_edge_that_fell_silent_or_is_full_gets_nobody(site: Site) -> None:
    site.saw("silent")
    site.now_s += site.settings.edge_stale_s + 0.1
    site.saw("full", active_devices=150)
    site.saw("draining", ready=False)
    assert site.client.post("/xiaozhi/ota/", headers=HEADERS, json=STOCK).status_code == 503
    site.saw("silent")
    assert site.client.post("/xiaozhi/ota/", headers=HEADERS, json=STOCK).status_code == 200


def test_a_fallback_address_is_used_while_no_edge_is_heard_of() -> None:
    site = Site(COORDINATOR_WEBSOCKET_URL="ws://site-address/xiaozhi/v1/")
    said = site.client.post("/xiaozhi/ota/", headers=HEADERS, json=STOCK).json()
    assert said["websocket"]["url"] == "ws://site-address/xiaozhi/v1/"
    TokenAuthenticator(SECRET).check(MAC, CLIENT_ID, said["websocket"]["token"])
    site.saw("edge-1")
    said = site.client.post("/xiaozhi/ota/", headers=HEADERS, json=STOCK).json()
    assert said["websocket"]["url"] == "ws://edge-1:8000/xiaozhi/v1/"


# Bad questions


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, b"{}"),
        ({"Device-Id": ""}, b"{}"),
        ({"Device-Id": "a b"}, b"{}"),
        ({"Device-Id": "x" * 65}, b"{}"),
        (HEADERS, b"[1]"),
        (HEADERS, b"nonsense"),
        (HEADERS, b"\xff\xfe"),
        (HEADERS, b"[" * 5000),
    ],
)
def test_a_question_that_makes_no_sense_is_a_400(site: Site, headers: dict[str, str], body: bytes) -> None:
    site.saw("edge-1")
    answer = site.client.post("/xiaozhi/ota/", headers=headers, content=body)
    assert answer.status_code == 400
    assert answer.json().keys() == {"error"}
    assert site.boots("400") == 1


def test_a_body_over_the_limit_is_a_413(site: Site) -> None:
    site.saw("edge-1")
    fits = json.dumps(STOCK).encode().ljust(MAX_BODY_BYTES)
    assert site.client.post("/xiaozhi/ota/", headers=HEADERS, content=fits).status_code == 200
    assert site.client.post("/xiaozhi/ota/", headers=HEADERS, content=fits + b" ").status_code == 413
    assert site.boots("413") == 1


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.binary(max_size=64) | st.recursive(st.none() | st.text(max_size=8) | st.integers(), lambda inner: st.dictionaries(st.sampled_from(["application", "board", "uuid", "mac_address", "version", "type"]), inner, max_size=3), max_leaves=6).map(msgspec.json.encode),
    device_id=st.binary(max_size=20),
)  # fmt: skip
@example(body=b'{"mac_address": "' + b"\xc3" * 9, device_id=b"")
@example(body=b'"\\ud800"', device_id=MAC.encode())
def test_garbage_is_never_our_fault(site: Site, body: bytes, device_id: bytes) -> None:
    site.saw("edge-1")
    shown = bytes(byte for byte in device_id if byte > 31 and byte != 127)
    answer = site.client.post("/xiaozhi/ota/", headers={b"Device-Id": shown, b"Client-Id": shown}, content=body)
    assert answer.status_code in {200, 400}


# The other paths


@pytest.mark.parametrize("body", [b"{}", b"", b"nonsense"])
def test_a_device_that_wants_to_be_activated_is(site: Site, body: bytes) -> None:
    answer = site.client.post("/xiaozhi/ota/activate", headers=HEADERS, content=body)
    assert answer.status_code == 200
    assert int(answer.headers["content-length"]) == len(answer.content)


def test_a_person_with_a_browser_is_told_what_this_is(site: Site) -> None:
    site.saw("edge-1")
    said = site.client.get("/xiaozhi/ota/").json()
    assert said["edges"] == ["edge-1"]
    assert "OTA" in said["use"]


@pytest.mark.parametrize(("method", "path"), [("PUT", "/xiaozhi/ota/"), ("GET", "/xiaozhi/ota/activate")])
def test_other_methods_are_refused(site: Site, method: str, path: str) -> None:
    assert site.client.request(method, path).status_code == 405


# Hearing the edges


def test_beats_are_noted_and_nonsense_is_counted() -> None:
    async def scenario() -> None:
        bus, site = MemoryBus(), Site()
        hearing = asyncio.create_task(hear_edges(bus, site.edges, site.metrics))
        await asyncio.sleep(0)
        for payload in (b"nonsense", b"\x91" * 20_000, wire.encode(wire.EdgeBeat(edge_id="e", websocket_url="ws://e"))):
            await bus.publish(wire.edge_beat_subject("e"), payload)
        await asyncio.sleep(1)
        registry = site.metrics.registry
        assert [beat.edge_id for beat in site.edges.alive()] == ["e"]
        assert registry.get_sample_value("voice_dropped_total", {"kind": "edge-beat"}) == 2
        assert registry.get_sample_value("voice_edges_alive") == 1
        site.now_s += site.settings.edge_stale_s + 0.1
        assert registry.get_sample_value("voice_edges_alive") == 0, "though nobody beats any more"
        hearing.cancel()
        await asyncio.wait([hearing])
        assert not bus._lines

    virtual_time.run(scenario())


class Lost(MemoryBus):
    """A bus that gave its connection up."""

    async def lost(self) -> NoReturn:
        raise CloudUnreachableError("the reason")


def test_a_bus_that_closes_is_an_error_that_says_why() -> None:
    async def scenario() -> None:
        bus, site = Lost(), Site()
        hearing = asyncio.create_task(hear_edges(bus, site.edges, site.metrics))
        await asyncio.sleep(0)
        bus._lines[0].end()
        with pytest.raises(CloudUnreachableError, match="the reason"):
            await hearing

    virtual_time.run(scenario())


# Settings that cannot work


@pytest.mark.parametrize("secret", ["", "x" * 15])
def test_a_secret_that_can_be_guessed_is_refused_with_the_mend(secret: str) -> None:
    environ = {"COORDINATOR_DEVICE_TOKEN_SECRET": secret}
    with pytest.raises(ConfigError, match=r"COORDINATOR_DEVICE_TOKEN_SECRET .* openssl rand"):
        check(load(CoordinatorSettings, environ))


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"COORDINATOR_EDGE_SERVICE": "a.b.c"}, "names no Service"),
        ({"COORDINATOR_EDGE_WEBSOCKET_URL": "http://{node}/"}, "no template of an address"),
    ],
)
def test_a_kubernetes_discovery_that_cannot_work_is_refused(more: dict[str, str], says: str) -> None:
    pytest.importorskip("kubernetes", reason="pip install 'xiaozhi-fleet[kubernetes]'")
    environ = {"COORDINATOR_DEVICE_TOKEN_SECRET": SECRET, "EDGE_NODES_DISCOVERY": "kubernetes"}
    check(load(CoordinatorSettings, environ))
    check(load(CoordinatorSettings, {**environ, **more, "EDGE_NODES_DISCOVERY": "nats"}))
    with pytest.raises(ConfigError, match=says):
        check(load(CoordinatorSettings, environ | more))


def test_a_kubernetes_discovery_without_the_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api, "find_spec", lambda _name: None)
    environ = {"COORDINATOR_DEVICE_TOKEN_SECRET": SECRET, "EDGE_NODES_DISCOVERY": "kubernetes"}
    with pytest.raises(ConfigError, match=r"pip install 'xiaozhi-fleet\[kubernetes\]'"):
        check(load(CoordinatorSettings, environ))


def test_only_a_kubernetes_discovery_watches_anything() -> None:
    settings = load(CoordinatorSettings, {})
    assert isinstance(listing(settings, Registry()), nullcontext)
    assert not isinstance(
        listing(load(CoordinatorSettings, {"EDGE_NODES_DISCOVERY": "kubernetes"}), Registry()), nullcontext
    )


def test_settings_are_checked_before_anything_is_opened() -> None:
    async def scenario() -> None:
        with pytest.raises(ConfigError, match="SECRET"):
            await run(load(CoordinatorSettings, {}), "", asyncio.Event())

    virtual_time.run(scenario())


# Chat completions


def road() -> tuple[Bus, Asker]:
    bus = MemoryBus()
    return bus, Asker(bus, "coordinator")


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, ["auto", "qwen-14b", "qwen-72b", "qwen-vl"]),
        ({"api_pools": " edge ,qwen-14b"}, ["auto", "edge", "qwen-14b"]),
    ],
)
def test_pools_on_offer_are_those_of_the_setting(changes: dict[str, str], names: list[str]) -> None:
    key = "k" * 16
    settings = CoordinatorSettings(api_keys=key, **changes)
    router = Router(first_policy(settings), None)
    routes = open_api(settings, *road(), router, Metrics(CollectorRegistry()))
    with TestClient(Starlette(routes=routes)) as client:
        listed = client.get("/v1/models", headers={"Authorization": f"Bearer {key}"})
        assert client.get("/v1/models").status_code == 401
    assert [model["id"] for model in listed.json()["data"]] == names


def test_without_pools_there_is_no_endpoint() -> None:
    settings = CoordinatorSettings(api_pools="")
    assert open_api(settings, *road(), Router(first_policy(settings), None), Metrics(CollectorRegistry())) == []


def test_first_policy_prefers_the_pools_named_first() -> None:
    pools = first_policy(CoordinatorSettings()).pools
    assert [(pool.name, pool.vision) for pool in pools] == [("qwen-72b", False), ("qwen-14b", False), ("qwen-vl", True)]
    assert [pool.strength for pool in pools] == sorted((pool.strength for pool in pools), reverse=True)


@pytest.mark.parametrize("changes", [{"api_keys": "short"}, {"api_pools": "a.b"}])
def test_keys_and_pools_that_cannot_be_used_are_a_config_error(changes: dict[str, str]) -> None:
    settings = CoordinatorSettings(**changes)
    with pytest.raises(ConfigError):
        open_api(settings, *road(), Router(Policy(), None), Metrics(CollectorRegistry()))
