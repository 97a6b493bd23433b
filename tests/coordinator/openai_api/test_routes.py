from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import httpx
import msgspec
import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coordinator.openai_api.request import RequestLimits
from coordinator.openai_api.routes import BODY_S
from models.errors import CloudUnreachableError, CompletionError, DeadlineError, OverloadedError
from models.scripted import ScriptedCompleter
from tests.coordinator.openai_api.site import KEY, NEVER_CLOUD, events, site
from tests.virtual_time import run

PIXEL = "data:image/jpeg;base64,/9j/4AAQ"


def scripted(text: str = "好的。", **plan: Any) -> ScriptedCompleter:
    return ScriptedCompleter(lambda _prompt: text, **plan)


def question(*parts: Any, **changes: Any) -> dict[str, Any]:
    return {"model": "auto", "messages": [{"role": "user", "content": list(parts)}]} | changes


# The whole answer and the stream


def test_whole_answer_has_openais_form() -> None:
    async def work() -> httpx.Response:
        async with site({"qwen-14b": scripted()}) as door:
            return await door.ask()

    answer = run(work())
    said = answer.json()
    assert answer.status_code == 200
    assert said.pop("id") == answer.headers["x-request-id"]
    assert said == {
        "object": "chat.completion",
        "created": 1_000_000_000,
        "model": "qwen-14b",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "content": "好的。", "refusal": None},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {"prompt_tokens": 2, "completion_tokens": 3, "total_tokens": 5},
    }


@pytest.mark.parametrize("with_usage", [False, True])
def test_stream_has_openais_chunks_in_order(with_usage: bool) -> None:
    async def work() -> httpx.Response:
        async with site({"qwen-14b": scripted("你好")}) as door:
            return await door.ask(stream=True, stream_options={"include_usage": with_usage})

    answer = run(work())
    *chunks, done = events(answer.text)
    deltas = [(c["choices"][0]["delta"], c["choices"][0]["finish_reason"]) for c in chunks if c["choices"]]
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert deltas == [
        ({"role": "assistant", "content": ""}, None),
        ({"content": "你"}, None),
        ({"content": "好"}, None),
        ({}, "stop"),
    ]
    assert done == "[DONE]"
    assert {(c["id"], c["object"], c["created"], c["model"]) for c in chunks} == {
        (answer.headers["x-request-id"], "chat.completion.chunk", 1_000_000_000, "qwen-14b")
    }
    usages = [chunk.get("usage", "absent") for chunk in chunks]
    counted = {"prompt_tokens": 2, "completion_tokens": 2, "total_tokens": 4}
    assert usages == ([None] * 4 + [counted] if with_usage else ["absent"] * 4)


def test_answer_as_long_as_it_may_be_says_length() -> None:
    async def work() -> Any:
        async with site({"qwen-14b": scripted("一二三四五")}) as door:
            return (await door.ask(max_tokens=3)).json()["choices"][0]

    choice = run(work())
    assert (choice["message"]["content"], choice["finish_reason"]) == ("一二三", "length")


def test_stop_text_ends_the_answer_and_the_work_behind_it() -> None:
    async def work() -> tuple[Any, dict[str, int], float]:
        async with site({"qwen-14b": scripted("一二三四五六七八九十", per_token_s=1.0)}) as door:
            said = (await door.ask(stop=["四五"])).json()
            await asyncio.sleep(0.1)
            return said, door.running, asyncio.get_running_loop().time()

    said, running, at_s = run(work())
    assert said["choices"][0]["message"]["content"] == "一二三"
    assert said["choices"][0]["finish_reason"] == "stop"
    assert running == {"qwen-14b": 0}
    assert at_s == pytest.approx(4.1)


def test_empty_answer_is_an_answer() -> None:
    async def work() -> Any:
        async with site({"qwen-14b": scripted("")}) as door:
            return (await door.ask()).json()["choices"][0]["message"]["content"]

    assert run(work()) == ""


# The decision


def test_headers_say_why_auto_went_where_it_went() -> None:
    async def work() -> httpx.Response:
        async with site({"qwen-72b": scripted(), "qwen-14b": scripted()}) as door:
            return await door.ask(model="auto")

    answer = run(work())
    told = {name: value for name, value in answer.headers.items() if name.startswith("x-fleet-")}
    assert told.keys() == {
        f"x-fleet-{name}" for name in ("tier", "pool", "reason", "policy", "score", "threshold", "gain")
    }
    assert (told["x-fleet-tier"], told["x-fleet-pool"], told["x-fleet-policy"]) == ("cloud", "qwen-72b", "7")
    assert answer.json()["model"] == "qwen-72b"


def test_model_asked_for_by_name_has_no_score() -> None:
    async def work() -> httpx.Response:
        async with site({"qwen-14b": scripted()}) as door:
            return await door.ask()

    answer = run(work())
    assert (answer.headers["x-fleet-reason"], answer.headers["x-fleet-pool"]) == ("asked-for", "qwen-14b")
    assert "x-fleet-score" not in answer.headers


def test_auto_falls_back_before_the_first_word_and_says_why() -> None:
    async def work() -> tuple[httpx.Response, list[tuple[str, str]]]:
        full = scripted(fail_at_token=0, error=OverloadedError)
        async with site({"qwen-72b": full, "qwen-14b": scripted("我在")}) as door:
            return await door.ask(model="auto"), door.results

    answer, results = run(work())
    assert answer.json()["choices"][0]["message"]["content"] == "我在"
    assert (answer.headers["x-fleet-pool"], answer.headers["x-fleet-reason"]) == ("qwen-14b", "llm-overloaded")
    assert results == [("qwen-14b", "answered")]


def test_edge_is_a_pool_that_may_be_served() -> None:
    async def work() -> list[httpx.Response]:
        async with site({"edge": scripted("近"), "qwen-14b": scripted("远")}, threshold=NEVER_CLOUD) as door:
            return [await door.ask(model=model) for model in ("edge", "auto", "qwen-14b")]

    answers = run(work())
    assert [a.json()["choices"][0]["message"]["content"] for a in answers] == ["近", "近", "远"]
    assert [a.headers["x-fleet-tier"] for a in answers] == ["edge", "edge", "cloud"]


def test_picture_goes_to_the_pool_that_sees() -> None:
    async def work() -> tuple[httpx.Response, Any]:
        async with site({"qwen-14b": scripted(), "qwen-vl": scripted("一只猫")}) as door:
            show = {"type": "image_url", "image_url": {"url": PIXEL}}
            answer = await door.http.post(
                "/v1/chat/completions", json=question({"type": "text", "text": "这是什么？"}, show)
            )
            return answer, door.pools["qwen-vl"].prompts[0]

    answer, prompt = run(work())
    assert (answer.headers["x-fleet-pool"], answer.headers["x-fleet-reason"]) == ("qwen-vl", "picture")
    assert prompt.images[0].data == b"\xff\xd8\xff\xe0\x00\x10"
    assert prompt.question == "这是什么？"


# Errors


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (OverloadedError, 429, "llm-overloaded"),
        (CloudUnreachableError, 503, "cloud-unreachable"),
        (DeadlineError, 504, "llm-deadline"),
        (CompletionError, 502, "llm-failed"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_failure_before_the_first_word_has_its_status(
    error: type[CompletionError], status: int, code: str, stream: bool
) -> None:
    async def work() -> httpx.Response:
        async with site({"qwen-14b": scripted(fail_at_token=0, error=error)}) as door:
            return await door.ask(stream=stream)

    answer = run(work())
    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    assert ("retry-after" in answer.headers) == (status in {429, 503})


def test_failure_inside_a_stream_is_an_error_event_and_no_done() -> None:
    async def work() -> httpx.Response:
        async with site({"qwen-14b": scripted("一二三", fail_at_token=2)}) as door:
            return await door.ask(stream=True)

    answer = run(work())
    *_, said, last = events(answer.text)
    assert answer.status_code == 200
    assert said["choices"][0]["delta"] == {"content": "二"}
    assert last["error"]["code"] == "llm-failed"


def test_failure_inside_a_whole_answer_is_an_error() -> None:
    async def work() -> httpx.Response:
        async with site({"qwen-14b": scripted("一二三", fail_at_token=2)}) as door:
            return await door.ask()

    assert run(work()).status_code == 502


def test_pool_without_a_worker_is_unavailable() -> None:
    async def work() -> httpx.Response:
        async with site({"qwen-14b": None}) as door:
            return await door.ask()

    answer = run(work())
    assert (answer.status_code, answer.json()["error"]["code"]) == (503, "cloud-unreachable")


def test_model_that_hangs_is_given_up_at_the_budget() -> None:
    async def work() -> tuple[httpx.Response, float, dict[str, int]]:
        async with site({"qwen-14b": scripted(first_token_s=1e6)}, limits=RequestLimits(budget_ms=5_000)) as door:
            answer = await door.ask()
            at_s = asyncio.get_running_loop().time()
            await asyncio.sleep(1)
            return answer, at_s, door.running

    answer, at_s, running = run(work())
    assert answer.status_code == 504
    assert 5 - 1e-6 <= at_s <= 6
    assert running == {"qwen-14b": 0}


@pytest.mark.parametrize(
    ("model", "status", "words"),
    [("gpt-4o", 404, "auto, qwen-14b"), ("edge", 404, "no edge's model is offered here"), ("auto", 200, "")],
)
def test_models_are_those_offered(model: str, status: int, words: str) -> None:
    async def work() -> httpx.Response:
        async with site({"qwen-14b": scripted()}) as door:
            return await door.ask(model=model)

    answer = run(work())
    assert answer.status_code == status
    assert words in answer.text


def test_models_are_listed() -> None:
    async def work() -> list[httpx.Response]:
        async with site({"qwen-vl": scripted(), "qwen-14b": scripted()}) as door:
            return [await door.http.get(f"/v1/models{rest}") for rest in ("", "/auto", "/gpt-4o")]

    listed, one, other = run(work())
    assert [model["id"] for model in listed.json()["data"]] == ["auto", "qwen-14b", "qwen-vl"]
    assert one.json() == {"id": "auto", "object": "model", "created": 1_000_000_000, "owned_by": "xiaozhi-fleet"}
    assert (other.status_code, other.json()["error"]["code"]) == (404, "model_not_found")


# The door


@pytest.mark.parametrize("shown", ["", "Bearer wrong", f"Basic {KEY}", KEY, "Bearer"])
def test_wrong_key_is_refused_everywhere(shown: str) -> None:
    async def work() -> list[httpx.Response]:
        async with site({"qwen-14b": scripted()}) as door:
            door.http.headers["Authorization"] = shown
            return [await door.ask(), await door.http.get("/v1/models"), await door.http.get("/v1/models/auto")]

    for answer in run(work()):
        assert answer.status_code == 401
        assert answer.json()["error"]["code"] == "invalid_api_key"
        assert answer.headers["www-authenticate"] == "Bearer"


def test_without_keys_this_machine_is_served_and_a_proxy_is_not() -> None:
    async def work() -> list[int]:
        async with site({"qwen-14b": scripted()}, api_keys=()) as door:
            here = await door.ask()
            door.http.headers["X-Forwarded-For"] = "127.0.0.1"
            return [here.status_code, (await door.ask()).status_code]

    assert run(work()) == [200, 401]


def test_nothing_that_was_asked_or_answered_is_logged() -> None:
    async def work() -> None:
        async with site({"qwen-14b": scripted("秘密的回答")}) as door:
            await door.ask("秘密的问题", user="anna")
            await door.ask("秘密的问题", temperature=0.3)

    with structlog.testing.capture_logs() as logs:
        run(work())
    assert [(log["event"], log["pool"], log["result"]) for log in logs] == [("api_answered", "qwen-14b", "answered")]
    assert not any(word in str(logs) for word in ("秘密", "anna", KEY))


def test_body_over_the_limit_is_refused_unread() -> None:
    async def work() -> httpx.Response:
        async with site({"qwen-14b": scripted()}, limits=RequestLimits(body_bytes=1000)) as door:
            return await door.ask("长" * 1000)

    answer = run(work())
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")


def test_body_that_is_not_json_by_its_header_is_refused() -> None:
    async def work() -> httpx.Response:
        async with site({"qwen-14b": scripted()}) as door:
            return await door.http.post("/v1/chat/completions", content=b"{}", headers={"Content-Type": "text/plain"})

    assert run(work()).status_code == 415


def test_body_that_does_not_come_is_not_waited_for() -> None:
    async def work() -> tuple[float, int, bytes]:
        async with site({"qwen-14b": scripted()}) as door:

            async def drip() -> AsyncGenerator[bytes, None]:
                while True:
                    await asyncio.sleep(3)
                    yield b" "

            headers = {"Content-Type": "application/json"}
            answer = await door.http.post("/v1/chat/completions", content=drip(), headers=headers)
            return asyncio.get_running_loop().time(), answer.status_code, answer.content

    at_s, status, said = run(work())
    assert (at_s, status) == (BODY_S, 408)
    assert b"too_slow" in said


def test_more_requests_than_are_taken_in_are_told_to_come_back() -> None:
    async def work() -> list[int]:
        async with site({"qwen-14b": scripted(first_token_s=1.0)}, max_running=2) as door:
            answers = await asyncio.gather(*(door.ask() for _ in range(3)))
            return sorted(answer.status_code for answer in answers)

    assert run(work()) == [200, 200, 429]


# Whatever comes


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
PART = st.fixed_dictionaries(
    {"type": st.sampled_from(["text", "image_url", "input_audio"]) | JSON},
    optional={
        "text": st.text(max_size=8) | JSON,
        "image_url": st.fixed_dictionaries({"url": st.sampled_from([PIXEL, "http://a/b.png", "data:"]) | JSON}) | JSON,
    },
)
MESSAGE = st.fixed_dictionaries(
    {
        "role": st.sampled_from(["system", "user", "assistant", "tool"]) | JSON,
        "content": st.text(max_size=8) | st.lists(PART | JSON, max_size=3) | JSON,
    },
    optional={"name": JSON, "tool_calls": JSON, "colour": JSON},
)
BODY = st.fixed_dictionaries(
    {"messages": st.lists(MESSAGE | JSON, max_size=3), "model": st.sampled_from(["auto", "qwen-14b"]) | JSON},
    optional={
        "stream": st.booleans() | JSON,
        "stream_options": st.fixed_dictionaries({"include_usage": st.booleans() | JSON}) | JSON,
        "max_tokens": st.integers() | JSON,
        "max_completion_tokens": st.integers() | JSON,
        "stop": st.text(max_size=3) | st.lists(st.text(max_size=3), max_size=5) | JSON,
        "temperature": JSON,
        "n": JSON,
        "user": st.text(max_size=8) | JSON,
        "colour": JSON,
    },
)
GOOD = b'{"model": "auto", "messages": [{"role": "user", "content": "hi"}], "stream": true}'


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    body = bytearray(GOOD)
    for _ in range(draw(st.integers(1, 6))):
        place = draw(st.integers(0, len(body) - 1))
        body[place : place + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return bytes(body)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(bodies=st.lists(BODY.map(msgspec.json.encode) | damaged() | st.binary(max_size=64), min_size=1, max_size=6))
def test_no_body_is_a_servers_error(bodies: list[bytes]) -> None:
    async def work() -> list[httpx.Response]:
        async with site({"qwen-14b": scripted(), "qwen-vl": scripted()}) as door:
            headers = {"Content-Type": "application/json"}
            return [await door.http.post("/v1/chat/completions", content=body, headers=headers) for body in bodies]

    for answer in run(work()):
        assert answer.status_code in {200, 400, 404}
        if answer.status_code != 200:
            assert answer.json()["error"].keys() == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    "body",
    [
        b"[" * 100_000,
        b'{"messages":' + b"[" * 100_000,
        b'{"model":"auto","messages":[{"role":"user","content":"\\ud800"}]}',
        b'{"model":"auto","messages":[{"role":"user","content":"\xed\xa0\x80"}]}',
        b'{"model":"auto","messages":[{"role":"user","content":"hi"}],"max_tokens":' + b"9" * 5000 + b"}",
        b'{"model":"auto","messages":[{"role":"user","content":"hi"}],"temperature":1e999}',
        b'{"model":"auto","messages":[{"role":"user","content":"hi"}],"seed":NaN}',
        b"null",
        b"",
        b"\xff\xfe",
    ],
)
def test_hostile_body_is_a_clients_error(body: bytes) -> None:
    async def work() -> int:
        async with site({"qwen-14b": scripted()}) as door:
            headers = {"Content-Type": "application/json"}
            return (await door.http.post("/v1/chat/completions", content=body, headers=headers)).status_code

    assert run(work()) == 400
