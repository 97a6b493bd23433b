from __future__ import annotations

from typing import Any

import structlog

from edge.gateway.observer import DeafObserver
from edge.gateway.tools import RENEW_S, DeviceTools
from edge.gateway.vision_tokens import TTL_S, VisionOffer

GREETING = {"serverInfo": {"name": "bread", "version": "2.4.2"}}


class Counting(DeafObserver):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def dropped(self, kind: str) -> None:
        self.seen.append(kind)


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def begun() -> tuple[DeviceTools, list[dict[str, Any]], Counting, Clock]:
    asked: list[dict[str, Any]] = []
    observer, clock = Counting(), Clock()
    tools = DeviceTools("aa:bb", asked.append, observer, now=clock)
    tools.begin()
    return tools, asked, observer, clock


def told(logs: list[Any]) -> list[tuple[Any, ...]]:
    return [tuple(log[key] for key in ("event", "device_id", "count", "firmware", "failure")) for log in logs]


def test_tools_are_asked_for_and_logged_once() -> None:
    tools, asked, observer, clock = begun()
    with structlog.testing.capture_logs() as logs:
        tools.receive({"jsonrpc": "2.0", "id": 1, "result": GREETING})
        tools.receive({"jsonrpc": "2.0", "id": 2, "result": {"tools": [{"name": "a"}]}})
        clock.now_s = 60.0
        tools.tick()
    assert [request["method"] for request in asked] == ["initialize", "tools/list"]
    assert told(logs) == [("device-tools", "aa:bb", 1, "2.4.2", "")]
    assert observer.seen == []


def test_device_that_never_answers_is_logged_once_as_such() -> None:
    tools, asked, _, clock = begun()
    with structlog.testing.capture_logs() as logs:
        for clock.now_s in (9.0, 10.0, 11.0):
            tools.tick()
    assert len(asked) == 1
    assert told(logs) == [("device-tools", "aa:bb", 0, "", "timeout")]


def test_what_means_nothing_is_counted() -> None:
    tools, asked, observer, _ = begun()
    with structlog.testing.capture_logs() as logs:
        tools.receive({"jsonrpc": "2.0", "id": "1", "result": GREETING})
    assert (len(asked), observer.seen, logs) == (1, ["mcp"], [])


def test_address_for_pictures_is_offered_and_its_token_renewed_in_time() -> None:
    asked: list[dict[str, Any]] = []
    clock, made = Clock(), iter(range(9))
    offer = lambda: VisionOffer("http://edge/vision", f"t{next(made)}")  # noqa: E731 - a counter
    tools = DeviceTools("aa:bb", asked.append, Counting(), offer=offer, now=clock)
    tools.begin()
    for clock.now_s in (1.0, RENEW_S - 1, RENEW_S, RENEW_S + 1, 2 * RENEW_S):
        tools.tick()
    greetings = [request["params"]["capabilities"]["vision"]["token"] for request in asked]
    assert greetings == ["t0", "t1", "t2"]
    assert {request["method"] for request in asked} == {"initialize"}
    assert RENEW_S < TTL_S


def test_nothing_is_offered_where_nobody_looks_at_pictures() -> None:
    tools, asked, _, clock = begun()
    clock.now_s = 10 * RENEW_S
    tools.tick()
    assert [request["params"]["capabilities"] for request in asked] == [{}]
