from __future__ import annotations

import json
import random
from collections import Counter

from benchmarks.soak_texts import HELLO, MAX_CHARS, TextGarbage
from edge.gateway.device_protocol import MAX_TEXT_CHARS, DeviceProtocol, Violation


def texts(count: int, seed: int = 1) -> list[bytes]:
    garbage = TextGarbage(random.Random(seed))
    return [garbage.message() for _ in range(count)]


def test_the_same_dice_bring_the_same_texts() -> None:
    assert texts(500) == texts(500)
    assert texts(500) != texts(500, seed=2)


def test_texts_reach_every_answer_of_the_protocol() -> None:
    seen: Counter[str] = Counter()
    for message in texts(20_000):
        protocol = DeviceProtocol("s")
        protocol.receive(json.dumps(HELLO))
        for event in protocol.receive(message.decode("utf-8", "replace")):
            seen[event.code if isinstance(event, Violation) else type(event).__name__] += 1
    wanted = {
        "malformed",
        "hello-twice",
        "text-too-large",
        "Ignored",
        "ListenStart",
        "ListenStop",
        "WakeWord",
        "Abort",
        "Mcp",
    }
    assert wanted <= seen.keys(), seen


def test_texts_are_deep_long_not_utf_8_and_no_json() -> None:
    found = texts(20_000)
    assert any(message.count(b"[") > 1_000 for message in found)
    assert any(len(message.decode("utf-8", "replace")) > MAX_TEXT_CHARS for message in found)
    assert max(map(len, found)) <= 4 * MAX_CHARS
    assert any(not is_utf_8(message) for message in found)
    assert any(b"1e999" in message for message in found)


def is_utf_8(message: bytes) -> bool:
    try:
        message.decode()
    except UnicodeDecodeError:
        return False
    return True
