from __future__ import annotations

import msgspec

from benchmarks.requests_zh.request import Request, dump_requests, load_requests
from coordinator.routing.signals import Kind


def test_requests_survive_their_file() -> None:
    requests = [
        Request(id="a", kind=Kind.FACT, group="g", text="三加五", gold=8.0, grader="number", tolerance=0.5, unit="元"),
        Request(id="b", kind=Kind.CHAT, group="h", text="你好", gold=None, grader=None),
        Request(id="c", kind=Kind.REASONING, group="i", text="谁高", gold=("甲",), grader="choice", rivals=("乙",)),
    ]
    lines = dump_requests(requests).splitlines()
    assert [msgspec.json.decode(line, type=Request) for line in lines] == requests


def test_an_unchecked_request_says_so_in_the_file() -> None:
    line = dump_requests([Request(id="b", kind=Kind.CHAT, group="h", text="你好", gold=None, grader=None)])
    assert msgspec.json.decode(line) == {
        "id": "b",
        "kind": "chat",
        "group": "h",
        "text": "你好",
        "gold": None,
        "grader": None,
    }


def test_the_committed_requests_can_be_read() -> None:
    assert len(load_requests()) >= 2000
