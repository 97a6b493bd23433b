from __future__ import annotations

from typing import Any

import pytest

from edge.gateway.mcp_messages import Answer, ToolResult, call_params, is_name, result, shaped, tool
from models.errors import DeviceProtocolError

TEXT = {"type": "text", "text": "ok"}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"result": {"content": [TEXT], "isError": False}}, ToolResult(id=1, text="ok")),
        ({"result": {"content": [TEXT, TEXT], "isError": True}}, ToolResult(id=1, text="ok\nok", is_error=True)),
        ({"result": {"content": [{"type": "image", "image": "{}"}, 3, TEXT]}}, ToolResult(id=1, text="ok")),
        ({"result": {}}, ToolResult(id=1)),
        ({"result": {"content": [{"type": "text", "text": "x" * 9_000}]}}, ToolResult(id=1, text="x" * 8_000)),
        ({"error": {"message": "no"}}, ToolResult(id=1, text="no", is_error=True)),
        ({"error": {}}, ToolResult(id=1, is_error=True)),
        ({"error": "no"}, ToolResult(id=1, is_error=True)),
        ({"result": [TEXT]}, None),
        ({}, None),
    ],
)
def test_answer_to_a_call_means(fields: dict[str, Any], expected: ToolResult | None) -> None:
    assert result(Answer(jsonrpc="2.0", id=1, **fields)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("self.a", True), ("", False), ("x" * 129, False), ("\ud800", False), ("a\n", False), (3, False)],
)
def test_name_is_short_and_printable(text: object, expected: bool) -> None:
    assert is_name(text) is expected


def test_tool_without_a_name_is_none() -> None:
    assert tool({"description": "d"}) is None
    assert tool({"name": "a", "annotations": {}}) is not None


def test_json_too_deep_for_the_interpreter_has_no_shape() -> None:
    deep: Any = {}
    for _ in range(100_000):
        deep = {"a": deep}
    assert shaped({"jsonrpc": "2.0", "id": deep}, Answer) is None
    found = tool({"name": "a", "inputSchema": deep})
    assert found is None or found.name == "a"


@pytest.mark.parametrize(
    "arguments", [{"a": 1.5}, {"a": None}, {"a": []}, {"a": {}}, {"a": 2**31}, {"a": "\ud800"}, {"a": "x" * 8_000}]
)
def test_arguments_that_no_device_takes_are_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(DeviceProtocolError):
        call_params("a", arguments)
