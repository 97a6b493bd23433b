from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.gateway.mcp import CAMERA_TOOL, McpClient, McpLimits
from edge.gateway.mcp_messages import ToolResult
from edge.gateway.vision_tokens import VisionOffer
from models.errors import DeviceProtocolError, DeviceTooSlowError

OFFER = VisionOffer("http://edge:8003/xiaozhi/vision/", "t")
GREETING = {"protocolVersion": "2024-11-05", "serverInfo": {"name": "bread", "version": "2.4.2"}}


def answer(request: Any, result: object) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request["id"], "result": result}


def refusal(request: Any, error: object) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": request["id"], "error": error}


def page(*names: str, cursor: object = None) -> dict[str, Any]:
    tools = [{"name": name, "description": "d", "inputSchema": {"type": "object"}} for name in names]
    return {"tools": tools} if cursor is None else {"tools": tools, "nextCursor": cursor}


def greeted(limits: McpLimits | None = None) -> tuple[McpClient, Any]:
    """Return a client and its first request for tools."""
    client = McpClient(limits)
    (request,) = client.receive(answer(client.begin(0.0), GREETING), 0.0)
    return client, request


def names(client: McpClient) -> list[str]:
    return [tool.name for tool in client.tools]


def test_greeting_is_what_devices_read() -> None:
    assert McpClient().begin(0.0) == {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "initialize",
        "params": {
            "protocolVersion": "2024-11-05",
            "capabilities": {},
            "clientInfo": {"name": "xiaozhi-fleet", "version": "1"},
        },
    }


def test_greeting_may_offer_an_address_for_pictures() -> None:
    assert McpClient().begin(0.0, OFFER)["params"]["capabilities"] == {"vision": {"url": OFFER.url, "token": "t"}}


def test_renewal_greets_anew_and_asks_for_nothing_more() -> None:
    client, first = greeted()
    assert client.receive(answer(first, page("a")), 0.0) == []
    renewal = client.renew(5.0, OFFER)
    assert (renewal["method"], renewal["id"]) == ("initialize", 3)
    assert renewal["params"]["capabilities"]["vision"]["token"] == "t"
    assert client.receive(answer(renewal, GREETING), 5.0) == []
    assert (names(client), client.is_done, client.failure, client.ignored) == (["a"], True, "", 0)


@pytest.mark.parametrize("is_refused", [False, True])
def test_renewal_without_a_proper_answer_changes_nothing(is_refused: bool) -> None:
    client, first = greeted()
    client.receive(answer(first, page("a")), 0.0)
    renewal = client.renew(5.0, OFFER)
    if is_refused:
        client.receive(refusal(renewal, {"message": "no"}), 6.0)
    assert client.tick(100.0) == []
    assert (client.is_done, client.failure, client.ignored) == (True, "", 0)


def test_tools_are_read_page_by_page() -> None:
    client, first = greeted()
    assert first == {"jsonrpc": "2.0", "id": 2, "method": "tools/list", "params": {}}
    (second,) = client.receive(answer(first, page("a", "b", cursor="c")), 0.0)
    assert second == {"jsonrpc": "2.0", "id": 3, "method": "tools/list", "params": {"cursor": "c"}}
    assert not client.is_done
    assert client.receive(answer(second, page("c", cursor="")), 0.0) == []
    assert (client.is_done, client.failure, client.ignored) == (True, "", 0)
    assert (client.device_name, client.firmware_version, names(client)) == ("bread", "2.4.2", ["a", "b", "c"])
    assert client.tools[0].input_schema == {"type": "object"}


@pytest.mark.parametrize(
    ("cursor", "failure"),
    [(7, "bad-cursor"), ({}, "bad-cursor"), ("x" * 129, "bad-cursor"), ("\ud800", "bad-cursor"), ("\n", "bad-cursor")],
)
def test_cursor_that_names_no_tool_ends_the_list(cursor: object, failure: str) -> None:
    client, first = greeted()
    assert client.receive(answer(first, page("a", cursor=cursor)), 0.0) == []
    assert (client.is_done, client.failure, names(client)) == (True, failure, ["a"])


def test_repeated_cursor_ends_the_list() -> None:
    client, first = greeted()
    (second,) = client.receive(answer(first, page("a", cursor="b")), 0.0)
    assert client.receive(answer(second, page("a", "b", cursor="b")), 0.0) == []
    assert (client.failure, names(client), client.ignored) == ("cursor-repeated", ["a", "b"], 1)


def test_pages_and_tools_are_bounded() -> None:
    client, request = greeted()
    asked = 1
    while steps := client.receive(answer(request, page(f"t{asked}", cursor=f"c{asked}")), 0.0):
        (request,) = steps
        asked += 1
    assert (asked, client.failure, len(client.tools)) == (16, "too-many-pages", 16)
    client, request = greeted()
    assert client.receive(answer(request, page(*(f"t{n}" for n in range(200)), cursor="c")), 0.0) == []
    assert (client.failure, len(client.tools)) == ("too-many-tools", 128)


def test_what_is_no_tool_is_left_out_and_counted() -> None:
    client, request = greeted()
    bad = [3, {}, {"name": 1}, {"name": ""}, {"name": "x" * 129}, {"name": "a", "inputSchema": []}]
    long = {"name": "b", "description": "d" * 9_000}
    client.receive(answer(request, {"tools": [*bad, long]}), 0.0)
    assert (names(client), client.ignored, client.is_done) == (["b"], len(bad), True)
    assert len(client.tools[0].description) == 2_000


@pytest.mark.parametrize(
    "payload",
    [
        None,
        [],
        "x",
        {},
        {"jsonrpc": "2.0", "method": "notifications/x"},
        {"jsonrpc": "2.0", "id": "1", "result": GREETING},
        {"jsonrpc": "2.0", "id": True, "result": GREETING},
        {"jsonrpc": "2.0", "id": 99, "result": GREETING},
        {"jsonrpc": "1.0", "id": 1, "result": GREETING},
        {"jsonrpc": "2.0", "id": 1},
        {"jsonrpc": "2.0", "id": 1, "result": []},
        {"jsonrpc": "2.0", "id": 1, "result": {"serverInfo": {"version": 2}}},
    ],
)
def test_what_is_no_answer_is_ignored_and_the_answer_still_awaited(payload: object) -> None:
    client = McpClient()
    request = client.begin(0.0)
    assert client.receive(payload, 0.0) == []
    assert (client.ignored, client.is_done) == (1, False)
    assert len(client.receive(answer(request, GREETING), 0.0)) == 1


def test_second_answer_to_a_request_is_ignored() -> None:
    client, request = greeted()
    client.receive(answer(request, page("a")), 0.0)
    assert client.receive(answer(request, page("b")), 0.0) == []
    assert (names(client), client.ignored) == (["a"], 1)


@pytest.mark.parametrize("error", [{"message": "no"}, {}, "no", 0, {"message": 3, "code": None}])
def test_error_without_code_ends_the_list(error: object) -> None:
    client = McpClient()
    assert client.receive(refusal(client.begin(0.0), error), 0.0) == []
    assert (client.is_done, client.failure, client.ignored) == (True, "refused", 0)


def test_request_without_answer_is_given_up_after_ten_seconds() -> None:
    client = McpClient()
    first = client.begin(100.0)
    assert client.tick(109.9) == []
    assert not client.is_done
    assert client.tick(110.0) == []
    assert (client.is_done, client.failure) == (True, "timeout")
    assert client.receive(answer(first, GREETING), 111.0) == []
    assert client.ignored == 1


def test_page_without_answer_keeps_the_tools_before_it() -> None:
    client, first = greeted()
    client.receive(answer(first, page("a", cursor="b")), 5.0)
    client.tick(15.0)
    assert (names(client), client.failure) == (["a"], "timeout")


@pytest.mark.parametrize(("name", "wait_s"), [(CAMERA_TOOL, 30.0), ("self.get_device_status", 5.0)])
def test_call_without_answer_times_out(name: str, wait_s: float) -> None:
    client = McpClient()
    number = client.call(name, {}, 0.0)["id"]
    assert client.tick(wait_s - 0.1) == []
    assert client.tick(wait_s) == [ToolResult(id=number, is_error=True, timed_out=True)]
    assert client.tick(wait_s) == []
    assert not client.is_done


def test_call_is_answered_by_its_id() -> None:
    client = McpClient()
    first, second = client.call("a", {"on": True, "n": -(2**31), "text": "你好"}, 0.0), client.call("b", {}, 0.0)
    assert first["params"] == {"name": "a", "arguments": {"on": True, "n": -(2**31), "text": "你好"}}
    said = {"content": [{"type": "text", "text": "ok"}], "isError": False}
    assert client.receive(answer(second, said), 0.0) == [ToolResult(id=second["id"], text="ok")]
    failed = client.receive(refusal(first, {"message": "no"}), 0.0)
    assert failed == [ToolResult(id=first["id"], text="no", is_error=True)]


def test_calls_that_wait_are_bounded() -> None:
    client = McpClient(McpLimits(calls=2))
    client.call("a", {}, 0.0)
    client.call("a", {}, 0.0)
    with pytest.raises(DeviceTooSlowError):
        client.call("a", {}, 0.0)
    client.tick(5.0)
    client.call("a", {}, 5.0)


def test_refused_arguments_leave_nothing_waiting() -> None:
    client = McpClient()
    with pytest.raises(DeviceProtocolError):
        client.call("a", {"n": 2**31}, 0.0)
    assert client.tick(100.0) == []


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=10,
)
pages = st.fixed_dictionaries(
    {"tools": st.lists(st.fixed_dictionaries({"name": st.text(max_size=3)}) | json_values, max_size=4) | json_values},
    optional={"nextCursor": st.text(max_size=2) | json_values},
)
answers = st.fixed_dictionaries(
    {"jsonrpc": st.just("2.0"), "id": st.integers(1, 4) | json_values},
    optional={"result": st.just(GREETING) | pages | json_values, "error": json_values},
)


@given(st.lists(answers | json_values, max_size=20))
def test_whatever_the_device_says_nothing_is_raised_and_ids_are_new_numbers(said: list[Any]) -> None:
    client = McpClient(McpLimits(pages=3, tools=4))
    asked = [client.begin(0.0), client.call("a", {}, 0.0)]
    for payload in said:
        asked += [step for step in client.receive(payload, 0.0) if isinstance(step, dict)]
    client.tick(60.0)
    assert client.is_done
    assert [request["id"] for request in asked] == list(range(1, len(asked) + 1))
    assert len(asked) <= 2 + 3
    assert len(client.tools) <= 4
