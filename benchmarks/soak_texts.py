"""JSON that no device would send, from seeded dice: noise, nesting, numbers without end, and real messages with one thing wrong."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

HELLO: dict[str, Any] = {
    "type": "hello",
    "version": 1,
    "features": {"mcp": True, "aec": False},
    "transport": "websocket",
    "audio_params": {"format": "opus", "sample_rate": 16_000, "channels": 1, "frame_duration": 60},
}
REAL: tuple[dict[str, Any], ...] = (
    HELLO,
    {"type": "listen", "state": "start", "mode": "auto", "session_id": "s"},
    {"type": "listen", "state": "start", "mode": "realtime"},
    {"type": "listen", "state": "stop"},
    {"type": "listen", "state": "detect", "text": "你好小智"},
    {"type": "abort", "reason": "wake_word_detected"},
    {"type": "abort"},
    {"type": "mcp", "payload": {"jsonrpc": "2.0", "id": 1, "result": {"capabilities": {"tools": {}}}}},
    {"type": "mcp", "payload": {"jsonrpc": "2.0", "id": 2, "result": {"tools": [{"name": "a"}], "nextCursor": "b"}}},
    {"type": "mcp", "payload": {"jsonrpc": "2.0", "id": 2, "error": {"message": "no"}}},
    {"type": "iot", "states": []},
    {"type": "ping"},
)
MAX_CHARS = 65_536
"""The largest message the gateway's WebSocket lets in."""
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1.5, 2**31, 2**63, 2**64, -(2**70), 1e300, "", " ", "auto", "\0", "𝄞" * 9, "x" * 3_000, [], [[]], {},
    {"type": "hello"}, [None] * 40,
)  # fmt: skip
_NUMBERS = (
    "1e999",
    "-1e999",
    "1e-9999",
    "9" * 4_000,
    "-" + "8" * 20,
    "0." + "3" * 3_000,
    "NaN",
    "Infinity",
    "00",
    "-",
    "1e",
    "0x1F",
)
_SCRAPS = (
    '"',
    "\\",
    "\\u0000",
    "\\ud800",
    "\\ud800\\u0041",
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "\0",
    "\u2028",
    "\ufeff",
    "🙂",
    "\x7f",
    "null",
)
_KEYS = (
    "type",
    "state",
    "mode",
    "text",
    "version",
    "payload",
    "id",
    "transport",
    "features",
    "audio_params",
    "reason",
    "",
)


class TextGarbage:
    """Text messages as bytes of a WebSocket frame; with the same dice always the same ones."""

    def __init__(self, dice: random.Random) -> None:
        self._dice = dice
        ways: dict[Callable[[], str], int] = {
            self._real: 14,
            self._wrong_type: 24,
            self._mutated: 24,
            self._noise: 8,
            self._twice: 8,
            self._number: 8,
            self._unknown: 6,
            self._nested: 3,
            self._long: 1,
        }
        self._ways = [way for way, share in ways.items() for _ in range(share)]

    def message(self) -> bytes:
        """Return the next message; now and then it is not UTF-8."""
        dice = self._dice
        if self._happens(0.003):
            return dice.randbytes(int(dice.random() * 200))
        ways = self._ways
        return ways[int(dice.random() * len(ways))]().encode("utf-8", "replace")[:MAX_CHARS]

    def _real(self) -> str:
        return json.dumps(self._message(), ensure_ascii=self._happens(0.5))

    def _wrong_type(self) -> str:
        """One field, of any depth, is of another type, is missing, or is one more."""
        dice, message = self._dice, json.loads(json.dumps(self._message()))
        inside = message
        while self._happens(0.4) and (deeper := [value for value in inside.values() if isinstance(value, dict)]):
            inside = dice.choice(deeper)
        key = dice.choice([*inside, *_KEYS])
        if self._happens(0.1):
            inside.pop(key, None)
        else:
            inside[key] = dice.choice(_VALUES)
        return json.dumps(message, ensure_ascii=False)

    def _mutated(self) -> str:
        """Characters of a real message are gone, others or twice."""
        dice, text = self._dice, json.dumps(self._message(), ensure_ascii=False)
        for _ in range(1 + int(dice.random() * 6)):
            at = int(dice.random() * (len(text) + 1))
            until = at + int(dice.random() * 6)
            text = text[:at] + dice.choice((*_SCRAPS, text[at:until] * 2, "")) + text[until:]
        return text

    def _noise(self) -> str:
        dice = self._dice
        if self._happens(0.5):
            return "".join(dice.choice(_SCRAPS) for _ in range(int(dice.random() * 60)))
        return "".join(chr(int(dice.random() * 0xD800)) for _ in range(int(dice.random() * 60)))

    def _twice(self) -> str:
        """The same key twice or oftener."""
        dice = self._dice
        fields = [
            f"{json.dumps(key)}:{json.dumps(value)}"
            for _ in range(2 + int(dice.random() * 3))
            for key, value in self._message().items()
        ]
        dice.shuffle(fields)
        return "{" + ",".join(fields) + "}"

    def _number(self) -> str:
        """A number without end, or none that JSON knows, in place of any value."""
        dice, message = self._dice, self._message()
        key = dice.choice([*message, *_KEYS])
        fields = [f"{json.dumps(name)}:{json.dumps(value)}" for name, value in message.items() if name != key]
        return "{" + ",".join([*fields, f"{json.dumps(key)}:{dice.choice(_NUMBERS)}"]) + "}"

    def _unknown(self) -> str:
        dice = self._dice
        kind = dice.choice(("", "HELLO", "hello ", "listen\0", "tts", "stt", "system", "alert", "xyz", "x" * 200))
        return json.dumps({**self._message(), "type": kind})

    def _nested(self) -> str:
        """Arrays in arrays, objects in objects, closed or not, alone or where a payload belongs."""
        dice = self._dice
        depth = int(dice.choice((10, 100, 1_000, 10_000)) * dice.random())
        begin, end = dice.choice((("[", "]"), ('{"a":', "}"), ('{"payload":[', "]}")))
        nested = begin * depth + "1" + (end * depth if self._happens(0.7) else "")
        return nested if self._happens(0.5) else '{"type":"mcp","payload":' + nested + "}"

    def _long(self) -> str:
        return json.dumps({**self._message(), self._dice.choice(_KEYS): "字" * int(self._dice.random() * 20_000)})

    def _message(self) -> dict[str, Any]:
        return REAL[int(self._dice.random() * len(REAL))]

    def _happens(self, share: float) -> bool:
        return self._dice.random() < share
