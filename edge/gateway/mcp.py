"""What we ask of a device's tools: MCP with the device as the server (protocol.md §10), without I/O and without a clock.

``begin`` greets, each ``receive`` returns what to ask next until every page of tools was read, ``tick`` gives up what was not answered.
The greeting may offer an address for the camera's pictures; ``renew`` greets anew with another offer, for the token in it expires.
A device's answers are never trusted: what has no meaning is counted in ``ignored``, and every length and count has a bound.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from edge.gateway import mcp_messages as messages
from edge.gateway.mcp_messages import Answer, Greeting, Page, Tool, ToolResult, shaped
from edge.gateway.vision_tokens import VisionOffer
from models.errors import DeviceTooSlowError

CAMERA_TOOL = "self.camera.take_photo"
"""Takes and uploads a picture before it answers; every other tool answers within a few seconds (protocol §10)."""
_RENEWAL = "renewal"
"""Purpose of a greeting that is not the first."""

Request = dict[str, Any]
"""A JSON-RPC request, the payload of an ``mcp`` message."""


@dataclass(frozen=True, slots=True)
class McpLimits:
    """How much a device may make us ask, and how long it may take."""

    pages: int = 16
    tools: int = 128
    calls: int = 8
    """Calls that may wait at once; devices run them one after another."""
    answer_s: float = 10.0
    """How long ``initialize`` or a page of tools may take."""
    call_s: float = 5.0
    camera_s: float = 30.0


class McpClient:
    """The tools of one device; all times are seconds on one clock of the caller's."""

    def __init__(self, limits: McpLimits | None = None) -> None:
        self.device_name = ""
        self.firmware_version = ""
        self.is_done = False
        """Whether the list of tools is as long as it will get."""
        self.failure = ""
        """Why the list may be short, kebab-case; "" when it is whole."""
        self.ignored = 0
        """Messages, and tools in a page, that meant nothing."""
        self._limits = limits or McpLimits()
        self._tools: dict[str, Tool] = {}
        self._cursors: set[str] = set()
        self._pages = 0
        self._last_id = 0
        self._waiting: dict[int, tuple[str, float]] = {}
        """Method, or ``_RENEWAL``, and deadline of each request without an answer."""

    @property
    def tools(self) -> tuple[Tool, ...]:
        """Every tool the device listed so far, in its order."""
        return tuple(self._tools.values())

    def begin(self, now_s: float, vision: VisionOffer | None = None) -> Request:
        """Return the greeting to send; call once."""
        return self._greeting("initialize", now_s, vision)

    def renew(self, now_s: float, vision: VisionOffer) -> Request:
        """Return another greeting, whose answer means nothing: firmware reads only the offer in it (protocol §10)."""
        return self._greeting(_RENEWAL, now_s, vision)

    def call(self, name: str, arguments: Mapping[str, bool | int | str], now_s: float) -> Request:
        """Return the request that runs a tool; raise DeviceProtocolError for what no device takes, DeviceTooSlowError when too many wait."""
        if sum(method == "tools/call" for method, _ in self._waiting.values()) >= self._limits.calls:
            raise DeviceTooSlowError(f"{self._limits.calls} tool calls wait for the device")
        params = messages.call_params(name, arguments)
        wait_s = self._limits.camera_s if name == CAMERA_TOOL else self._limits.call_s
        return self._request("tools/call", params, now_s + wait_s)

    def receive(self, payload: object, now_s: float) -> list[Request | ToolResult]:
        """Take what the device said and return what to ask next, or what became of a call; never raises."""
        answer = shaped(payload, Answer)
        steps = self._take(answer, now_s) if answer and answer.id in self._waiting else None
        if answer is None or steps is None:
            self.ignored += 1
            return []
        del self._waiting[answer.id]
        return steps

    def tick(self, now_s: float) -> list[ToolResult]:
        """Give up what was not answered in time and return the calls among it."""
        late = {number: method for number, (method, until_s) in self._waiting.items() if now_s >= until_s}
        for number, method in late.items():
            del self._waiting[number]
            if method not in {"tools/call", _RENEWAL}:
                self._finish("timeout")
        calls = [number for number, method in late.items() if method == "tools/call"]
        return [ToolResult(id=number, is_error=True, timed_out=True) for number in calls]

    def _take(self, answer: Answer, now_s: float) -> list[Request | ToolResult] | None:
        """Return what follows from the answer to a request of ours, None when it is none."""
        method, _ = self._waiting[answer.id]
        if method == "tools/call":
            result = messages.result(answer)
            return [result] if result else None
        if method == _RENEWAL:
            return []
        if answer.error is not None:
            self._finish("refused")
            return []
        if method == "tools/list":
            page = shaped(answer.result, Page)
            return None if page is None else self._read(page, now_s)
        greeting = shaped(answer.result, Greeting)
        if greeting is None:
            return None
        self.device_name = greeting.server.name[: messages.MAX_NAME_CHARS]
        self.firmware_version = greeting.server.version[: messages.MAX_NAME_CHARS]
        return [self._list({}, now_s)]

    def _read(self, page: Page, now_s: float) -> list[Request | ToolResult]:
        for raw in page.tools:
            tool = messages.tool(raw)
            if tool is None or tool.name in self._tools:
                self.ignored += 1
            elif len(self._tools) < self._limits.tools:
                self._tools[tool.name] = tool
            else:
                self._finish("too-many-tools")
                return []
        cursor, failure = page.next_cursor, self._failure_of(page.next_cursor)
        if failure or not cursor:
            self._finish(failure)
            return []
        self._cursors.add(cursor)
        return [self._list({"cursor": cursor}, now_s)]

    def _failure_of(self, cursor: object) -> str:
        """Return why the page after ``cursor`` is not to be asked for, "" if nothing speaks against it."""
        if cursor is None or cursor == "":
            return ""
        if not isinstance(cursor, str) or not messages.is_name(cursor):
            return "bad-cursor"
        if cursor in self._cursors:
            return "cursor-repeated"
        return "too-many-pages" if self._pages >= self._limits.pages else ""

    def _list(self, params: dict[str, Any], now_s: float) -> Request:
        self._pages += 1
        return self._request("tools/list", params, now_s + self._limits.answer_s)

    def _greeting(self, purpose: str, now_s: float, vision: VisionOffer | None) -> Request:
        params = {
            "protocolVersion": "2024-11-05",
            "capabilities": {"vision": {"url": vision.url, "token": vision.token}} if vision else {},
            "clientInfo": {"name": "xiaozhi-fleet", "version": "1"},
        }
        return self._request("initialize", params, now_s + self._limits.answer_s, purpose)

    def _request(self, method: str, params: dict[str, Any], until_s: float, purpose: str = "") -> Request:
        self._last_id += 1
        self._waiting[self._last_id] = (purpose or method, until_s)
        return {"jsonrpc": "2.0", "id": self._last_id, "method": method, "params": params}

    def _finish(self, failure: str) -> None:
        self.is_done, self.failure = True, failure
