from __future__ import annotations

from typing import Any

import httpx
import pytest
from prometheus_client import CollectorRegistry

from coordinator.metrics import Metrics
from edge.looking import looking, offers, vision_tokens
from edge.settings import EdgeSettings
from models.scripted import ScriptedCompleter
from tests.edge.gateway.jpegs import jpeg
from tests.real_time import run

SECRET = "a secret of the fleet"


def settings(**changes: Any) -> EdgeSettings:
    return EdgeSettings(**changes)


@pytest.mark.parametrize(
    ("changes", "role", "are_taken"),
    [
        ({}, "", True),
        ({"vision_pool": ""}, "", False),
        ({}, "brain", False),
        ({"device_token_secret": SECRET}, "brain", False),
        ({"vision_port": 8003}, "gateway", False),
        ({"vision_port": 8003, "device_token_secret": SECRET}, "gateway", True),
        ({"vision_port": 8003, "device_token_secret": SECRET, "vision_pool": ""}, "brain", False),
    ],
)
def test_pictures_are_taken_where_both_sides_know_how(changes: dict[str, Any], role: str, are_taken: bool) -> None:
    assert (vision_tokens(settings(**changes), role) is not None) is are_taken


def test_two_roles_with_one_secret_understand_each_other() -> None:
    own = settings(vision_port=8003, device_token_secret=SECRET)
    gateway, brain = vision_tokens(own, "gateway"), vision_tokens(own, "brain")
    assert gateway is not None
    assert brain is not None
    assert brain.check("aa:bb", "c", gateway.mint("aa:bb", "c", "s1")) == "s1"


def test_nothing_is_offered_where_none_are_taken() -> None:
    assert offers("http://edge/vision", None)("aa:bb", "c", "s1") is None


def test_posted_picture_is_answered_and_counted() -> None:
    async def work() -> tuple[Any, float | None]:
        metrics, own = Metrics(CollectorRegistry()), settings(private_devices="cc:*")
        tokens = vision_tokens(own, "")
        async with (
            looking(own, ScriptedCompleter(lambda _: "一只猫。"), tokens, metrics) as url,
            httpx.AsyncClient() as http,
        ):
            said = []
            for device in ("aa:bb", "cc:dd"):
                offer = offers(url, tokens)(device, "c", "s1")
                assert offer is not None
                headers = {"Device-Id": device, "Client-Id": "c", "Authorization": f"Bearer {offer.token}"}
                parts = {"question": (None, "这是什么？"), "file": ("camera.jpg", jpeg(), "image/jpeg")}
                said.append((await http.post(offer.url, headers=headers, files=parts)).json())
        return said, metrics.registry.get_sample_value("voice_photos_total", {"result": "private"})

    (open_, private), counted = run(work())
    assert open_ == {"success": True, "result": "一只猫。"}
    assert private["success"] is False
    assert counted == 1


def test_nothing_listens_where_none_are_taken() -> None:
    async def work() -> str:
        async with looking(settings(), ScriptedCompleter(), None, Metrics(CollectorRegistry())) as url:
            return url

    assert run(work()) == ""


@pytest.mark.parametrize(
    ("changes", "url"),
    [
        ({}, "http://127.0.0.1:8003/xiaozhi/vision/"),
        ({"vision_host": "10.0.0.5"}, "http://10.0.0.5:8003/xiaozhi/vision/"),
        ({"public_vision_url": "https://edge.example/vision/"}, "https://edge.example/vision/"),
    ],
)
def test_address_devices_are_told(changes: dict[str, Any], url: str) -> None:
    assert settings(**changes).vision_url(8003) == url
