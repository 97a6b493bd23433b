"""The JSON of MCP as devices speak it (protocol.md §10): what an answer of theirs means, and what their tools may be given."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypeVar

import msgspec

from models.errors import DeviceProtocolError

MAX_REQUEST_BYTES = 7_500
"""What a call may hold; a device has room for 8 kB with the envelope (protocol §4.1)."""
MAX_NAME_CHARS = 128
"""Longest name or version we keep; a page's cursor is a name (protocol §10). A guess."""
MAX_DESCRIPTION_CHARS = 2_000
MAX_RESULT_CHARS = 8_000
_INT_RANGE = range(-(2**31), 2**31)
T = TypeVar("T")


class Tool(msgspec.Struct, frozen=True, kw_only=True):
    """One thing the device can do; ``input_schema`` is the JSON schema of its arguments."""

    name: str
    description: str = ""
    input_schema: dict[str, Any] = msgspec.field(default_factory=dict, name="inputSchema")


class ToolResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the call whose request had ``id``; ``text`` is the device's, an image has none."""

    id: int
    text: str = ""
    is_error: bool = False
    timed_out: bool = False


class Answer(msgspec.Struct):
    """A JSON-RPC answer; an error is any JSON, it has no code and only perhaps a message."""

    jsonrpc: Literal["2.0"]
    id: int
    result: Any = None
    error: Any = None


class ServerInfo(msgspec.Struct):
    """The device's board and firmware."""

    name: str = ""
    version: str = ""


class Greeting(msgspec.Struct):
    """The answer to ``initialize``."""

    server: ServerInfo = msgspec.field(default_factory=ServerInfo, name="serverInfo")


class Page(msgspec.Struct):
    """The answer to ``tools/list``; each tool is still to be judged."""

    tools: list[Any]
    next_cursor: Any = msgspec.field(default=None, name="nextCursor")


class _Called(msgspec.Struct):
    content: list[Any] = []
    is_error: bool = msgspec.field(default=False, name="isError")


class _Text(msgspec.Struct):
    type: Literal["text"]
    text: str


class _Error(msgspec.Struct):
    message: str


def shaped(raw: object, shape: type[T]) -> T | None:
    """Return decoded JSON as ``shape``, None when it has another; never raises."""
    try:
        return msgspec.convert(raw, type=shape)
    except (msgspec.ValidationError, RecursionError):
        return None


def is_name(text: object) -> bool:
    """Return whether this may name a tool or a page: short, and free of what JSON cannot carry back."""
    return isinstance(text, str) and 0 < len(text) <= MAX_NAME_CHARS and text.isprintable()


def tool(raw: object) -> Tool | None:
    """Return a tool of a page with its description cut to MAX_DESCRIPTION_CHARS, None for what is none."""
    found = shaped(raw, Tool)
    if found is None or not is_name(found.name):
        return None
    return msgspec.structs.replace(found, description=found.description[:MAX_DESCRIPTION_CHARS])


def result(answer: Answer) -> ToolResult | None:
    """Return what the answer to a call says, None when it says nothing."""
    if answer.error is not None:
        error = shaped(answer.error, _Error)
        return ToolResult(id=answer.id, text=error.message[:MAX_RESULT_CHARS] if error else "", is_error=True)
    called = shaped(answer.result, _Called)
    if called is None:
        return None
    texts = [part.text for part in (shaped(raw, _Text) for raw in called.content) if part]
    return ToolResult(id=answer.id, text="\n".join(texts)[:MAX_RESULT_CHARS], is_error=called.is_error)


def call_params(name: str, arguments: Mapping[str, bool | int | str]) -> dict[str, Any]:
    """Return the parameters of a call; raise DeviceProtocolError for what no device takes (protocol §10)."""
    wrong = sum(not _is_argument(value) for value in arguments.values())
    if wrong:
        raise DeviceProtocolError(f"{wrong} arguments are neither boolean, 32-bit integer nor string")
    params = {"name": name, "arguments": dict(arguments)}
    try:
        size_bytes = len(msgspec.json.encode(params))
    except UnicodeEncodeError as error:
        raise DeviceProtocolError("an argument is no valid Unicode") from error
    if size_bytes > MAX_REQUEST_BYTES:
        raise DeviceProtocolError(f"arguments of {size_bytes} bytes, a device takes {MAX_REQUEST_BYTES}")
    return params


def _is_argument(value: object) -> bool:
    return isinstance(value, bool | str) or (isinstance(value, int) and value in _INT_RANGE)
