from __future__ import annotations

import asyncio
import json
import traceback
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.chat import is_prompts_fault
from cloud.connections import Connections
from cloud.upstream import (
    MAX_ANSWER_CHARS,
    MAX_LINE_CHARS,
    METRICS_AGAIN,
    SPARE_CONNECTIONS,
    OpenAIUpstream,
)
from cloud.vllm_metrics import Figures
from models.errors import CloudUnreachableError, CompletionError, ConfigError, DeadlineError, OverloadedError
from models.prompts import CompletionDelta, Message, Prompt, Usage
from tests.bare_server import BareServer
from tests.real_time import run

KEY = "sk-correct-horse"
SYSTEM = Message(role="system", text="你是小智。")
PROMPT = Prompt(turn_id="t", messages=(SYSTEM, Message(role="user", text="水的沸点是多少度？")), max_tokens=64)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
HUNG_UP_S = 5.0
"""How long a test waits to see that the other side hung up; it takes a loop turn or two."""


def data(event: object) -> bytes:
    return b"data: " + (event if isinstance(event, bytes) else json.dumps(event, ensure_ascii=False).encode()) + b"\n\n"


def says(text: str) -> bytes:
    return data(
        {"id": "x", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}], "usage": None}
    )


def uses(prompt_tokens: int) -> bytes:
    return data({"choices": [], "usage": {"prompt_tokens": prompt_tokens, "completion_tokens": 3}})


ROLE = data({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
NULL = data({"choices": [{"index": 0, "delta": {"role": "assistant", "content": None}}]})
PING = b": still busy\n\n"
STOP = data({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
USED = data({"choices": [], "usage": {"prompt_tokens": 19, "completion_tokens": 3, "total_tokens": 22}})
DONE = data(b"[DONE]")
ANSWER = HEAD + ROLE + says("一百") + says("度") + STOP + USED + DONE


class Stub(BareServer):
    """A server that says planned bytes to every question and then waits for the peer to hang up, or hangs up itself."""

    def __init__(self, *said: bytes, hangs: bool = False) -> None:
        super().__init__()
        self.said = said
        self.hangs = hangs
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.asked = asyncio.Event()
        self.is_said = False
        self.hung_up = asyncio.Event()

    @asynccontextmanager
    async def served(self) -> AsyncGenerator[str, None]:
        async with self.listening() as port:
            yield f"http://127.0.0.1:{port}"

    def lost(self) -> None:
        self.hung_up.set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        self.requests.append((first, headers, body))
        self.asked.set()
        for piece in self.said:
            writer.write(piece)
            await writer.drain()
        self.is_said = True
        if self.hangs:
            await self._endless(reader, writer)

    async def _endless(self, reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        assert await reader.read() == b""
        self.hung_up.set()


class Plain(Stub):
    """Speaks at once and without TLS."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 not TLS\r\n\r\n")
        await reader.read()


class Keeping(Stub):
    """Answers one request after the other on a connection, in chunks so that it need not hang up."""

    accepted = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        body = self.said[0].removeprefix(HEAD)
        said, self.said = self.said, (CHUNKED + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body),)
        while not reader.at_eof():
            await super().serve(reader, writer)
        self.said = said


class Endless(Stub):
    """Says the last piece again and again until the peer hangs up."""

    async def _endless(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while not reader.at_eof():
            writer.write(self.said[-1])
            await writer.drain()
            await asyncio.sleep(0)
        self.hung_up.set()


@asynccontextmanager
async def asked(
    stub: Stub, *, first_token_s: float = 20.0, stall_s: float = 20.0, api_key: str = ""
) -> AsyncGenerator[OpenAIUpstream, None]:
    async with (
        stub.served() as url,
        OpenAIUpstream.connect(url, "qwen", api_key=api_key, first_token_s=first_token_s, stall_s=stall_s) as upstream,
    ):
        yield upstream


async def answer_of(upstream: OpenAIUpstream, prompt: Prompt = PROMPT) -> list[CompletionDelta]:
    async with aclosing(upstream.complete(prompt)) as deltas:
        return [delta async for delta in deltas]


def outcome(
    make: Callable[[], Stub], *, first_token_s: float = 20.0, stall_s: float = 20.0
) -> tuple[list[CompletionDelta], CompletionError | None]:
    """Return what came of the answer and the error after it."""

    async def scenario() -> tuple[list[CompletionDelta], CompletionError | None]:
        heard: list[CompletionDelta] = []
        async with asked(make(), first_token_s=first_token_s, stall_s=stall_s) as upstream:
            try:
                async with aclosing(upstream.complete(PROMPT)) as deltas:
                    async for delta in deltas:
                        heard.append(delta)  # noqa: PERF401  # what came before an error counts
            except CompletionError as error:
                return heard, error
        return heard, None

    return run(scenario())


def text_of(deltas: list[CompletionDelta]) -> str:
    return "".join(delta.text for delta in deltas)


def connections(upstream: OpenAIUpstream) -> int:
    transport = upstream._client._transport
    assert isinstance(transport, Connections)
    return transport.open


async def hung_up(stub: Stub) -> None:
    async with asyncio.timeout(HUNG_UP_S):
        await stub.hung_up.wait()


# The question


def test_the_question_is_an_openai_chat_completion() -> None:
    async def scenario() -> None:
        stub = Stub(ANSWER)
        async with asked(stub, api_key=KEY) as upstream:
            await answer_of(upstream)
        ((first, headers, body),) = stub.requests
        assert first == "POST /v1/chat/completions HTTP/1.1"
        assert headers["authorization"] == f"Bearer {KEY}"
        assert headers["content-type"] == "application/json"
        assert json.loads(body) == {
            "model": "qwen",
            "messages": [
                {"role": "system", "content": "你是小智。"},
                {"role": "user", "content": "水的沸点是多少度？"},
            ],
            "max_tokens": 64,
            "stream": True,
            "stream_options": {"include_usage": True},
        }

    run(scenario())


def test_an_answer_that_was_begun_is_to_be_continued() -> None:
    async def scenario() -> None:
        stub = Stub(ANSWER)
        begun = Message(role="assistant", text="水的沸点，")
        async with asked(stub) as upstream:
            await answer_of(upstream, Prompt(turn_id="t", messages=(*PROMPT.messages, begun)))
        body = json.loads(stub.requests[0][2])
        assert body["messages"][-1] == {"role": "assistant", "content": "水的沸点，"}
        assert (body["add_generation_prompt"], body["continue_final_message"]) == (False, True)

    run(scenario())


def test_no_key_is_no_authorization() -> None:
    async def scenario() -> None:
        stub = Stub(ANSWER)
        async with asked(stub) as upstream:
            await answer_of(upstream)
        assert "authorization" not in stub.requests[0][1]

    run(scenario())


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_the_address_may_be_given_with_or_without_v1(suffix: str) -> None:
    async def scenario() -> None:
        stub = Stub(ANSWER)
        async with stub.served() as url, OpenAIUpstream.connect(url + suffix, "qwen") as upstream:
            await answer_of(upstream)
        assert stub.requests[0][0].startswith("POST /v1/chat/completions ")

    run(scenario())


@pytest.mark.parametrize("url", ["", "h:8000", "ftp://h", "http://", "http://h:port", "//h", "http://u:pa55@h:x"])
def test_an_address_that_is_none_is_a_config_error(url: str) -> None:
    async def scenario() -> None:
        with pytest.raises(ConfigError, match="write http://host:port") as caught:
            async with OpenAIUpstream.connect(url, "qwen"):
                pass
        assert "pa55" not in str(caught.value)

    run(scenario())


def test_a_key_that_cannot_be_sent_is_a_config_error_that_does_not_repeat_it() -> None:
    async def scenario() -> None:
        with pytest.raises(ConfigError, match="ASCII") as caught:
            async with OpenAIUpstream.connect("http://h", "qwen", api_key="密钥"):
                pass
        assert "密钥" not in repr(caught.value)
        assert caught.value.__cause__ is None

    run(scenario())


# The answer

USAGE = Usage(prompt_tokens=19, completion_tokens=3)


@pytest.mark.parametrize(
    "said",
    [
        (ANSWER,),
        (HEAD, ROLE, says("一百"), says("度"), STOP, USED, DONE),
        (ANSWER.replace(b"\n\n", b"\r\n\r\n").replace(b"\r\r", b"\r"),),
        (HEAD, b": ping\n\n", says("一百"), b"event: x\nid: 7\nretry: 1\n", says("度"), STOP, b": ping\n\n", USED, DONE),
        tuple(bytes([byte]) for byte in ANSWER),
        (CHUNKED, b"%x\r\n%b\r\n0\r\n\r\n" % (len(ANSWER) - len(HEAD), ANSWER[len(HEAD) :])),
        (HEAD, says("一百").replace(b"data: ", b"data:"), says("度"), STOP, USED, DONE),
        (HEAD, NULL, says("一百"), NULL, says("度"), STOP, USED, DONE),
        (HEAD, says("一百"), says("度"), STOP, USED),
        (HEAD, says("一百"), says("度"), USED, STOP.rstrip(b"\n")),
        (HEAD, says("一百"), says("度"), USED, DONE),
        (HEAD, says("一百"), data({"choices": [{"delta": {"content": "度"}, "finish_reason": "length"}]}), USED, DONE),
    ],
    ids=["at-once", "in-pieces", "crlf", "comments", "byte-by-byte", "chunked", "no-space", "null", "no-done", "no-last-newline", "no-reason", "with-the-reason"],
)  # fmt: skip
def test_an_answer_is_the_same_however_it_comes(said: tuple[bytes, ...]) -> None:
    heard, error = outcome(lambda: Stub(*said))
    assert error is None
    assert heard == [
        CompletionDelta(text="一百", model="qwen"),
        CompletionDelta(text="度", model="qwen"),
        CompletionDelta(text="", usage=USAGE),
    ]


def test_an_answer_without_usage_ends_without() -> None:
    heard, error = outcome(lambda: Stub(HEAD + says("好") + STOP + DONE))
    assert error is None
    assert heard == [CompletionDelta(text="好", model="qwen"), CompletionDelta(text="")]


def test_an_empty_answer_is_an_answer() -> None:
    heard, error = outcome(lambda: Stub(HEAD + ROLE + STOP + DONE))
    assert error is None
    assert heard == [CompletionDelta(text="")]


def test_only_the_first_choice_counts() -> None:
    both = data({"choices": [{"delta": {"content": "一"}}, {"delta": {"content": "二"}}]})
    assert text_of(outcome(lambda: Stub(HEAD + both + STOP + DONE))[0]) == "一"


def test_bytes_that_are_no_text_do_not_break_the_answer() -> None:
    heard, error = outcome(lambda: Stub(HEAD + says("好").replace("好".encode(), b"a\xffb") + STOP + DONE))
    assert error is None
    assert text_of(heard) == "a\ufffdb"


@settings(max_examples=12, deadline=None)
@given(st.lists(st.integers(1, len(ANSWER) - 1), max_size=6).map(sorted))
def test_no_cut_of_the_bytes_changes_the_answer(cuts: list[int]) -> None:
    pieces = [ANSWER[start:end] for start, end in zip([0, *cuts], [*cuts, len(ANSWER)], strict=True)]
    assert text_of(outcome(lambda: Stub(*pieces))[0]) == "一百度"


# What goes wrong


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (429, OverloadedError),
        (503, OverloadedError),
        (500, CompletionError),
        (404, CompletionError),
        (400, CompletionError),
        (401, CompletionError),
        (204, CompletionError),
        (302, CompletionError),
    ],
)
def test_a_refusal_has_its_status_and_none_of_its_text(status: int, expected: type[CompletionError]) -> None:
    said = b'HTTP/1.1 %d X\r\nLocation: /\r\nContent-Length: 21\r\n\r\n{"error": "a secret"}' % status
    heard, error = outcome(lambda: Stub(said if status != 204 else said[:-21].replace(b"21", b"0")))
    assert heard == []
    assert type(error) is expected
    assert str(status) in str(error)
    assert "secret" not in str(error)


@pytest.mark.parametrize(
    ("said", "expected", "words", "before"),
    [
        ((), CloudUnreachableError, "RemoteProtocolError", ""),
        ((HEAD,), CloudUnreachableError, "ended before", ""),
        ((HEAD, ROLE), CloudUnreachableError, "ended before", ""),
        ((HEAD, says("一百")), CloudUnreachableError, "ended before", "一百"),
        ((HEAD, says("一百"), STOP[:20]), CompletionError, "is not one", "一百"),
        ((CHUNKED, b"5\r\ndata:"), CloudUnreachableError, "RemoteProtocolError", ""),
        ((b"220 smtp ready\r\n",), CloudUnreachableError, "RemoteProtocolError", ""),
        ((HEAD, says("一百"), data(b"garbage")), CompletionError, "is not one", "一百"),
        ((HEAD, data(b'{"choices": 3}')), CompletionError, "is not one", ""),
        ((HEAD, data(b'{"choices": [{"delta": {"content": 3}}]}')), CompletionError, "is not one", ""),
        ((HEAD, data(b'{"x": ' + b"[" * 20_000)), CompletionError, "is not one", ""),
        ((HEAD, data(b'{"choices": [{"delta": {"content": "\\ud800"}}]}')), CompletionError, "is not one", ""),
        ((HEAD, says("一百"), data({"error": {"message": "a secret", "code": 500}}), DONE), CompletionError, "error inside", "一百"),
        ((HEAD, data({"object": "error", "message": "a secret"}), DONE), CompletionError, "error inside", ""),
        ((HEAD, says("一百"), STOP, uses(2**64), DONE), CompletionError, "is not one", "一百"),
        ((HEAD, says("一百"), STOP, uses(-1), DONE), CompletionError, "is not one", "一百"),
        ((HEAD, b"data: " + b"x" * (MAX_LINE_CHARS + 1)), CompletionError, "longer than", ""),
        ((b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\n\r\n", b"not gzip"), CompletionError, "packed", ""),
        ((b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 40_000,), CloudUnreachableError, "RemoteProtocolError", ""),
        ((b'HTTP/1.1 200 OK\r\nContent-Length: 18\r\n\r\n{"choices": "all"}',), CloudUnreachableError, "ended before", ""),
    ],
    ids=["hangs-up", "no-events", "role-only", "cut", "cut-in-an-event", "cut-chunk", "not-http", "garbage", "wrong-shape", "wrong-type", "nested", "surrogate", "error-inside", "error-object", "huge-count", "negative-count", "huge-line", "not-gzip", "huge-head", "not-a-stream"],
)  # fmt: skip
def test_a_broken_answer_is_one_of_our_errors(
    said: tuple[bytes, ...], expected: type[CompletionError], words: str, before: str
) -> None:
    heard, error = outcome(lambda: Stub(*said))
    assert text_of(heard) == before
    assert type(error) is expected
    assert words in str(error)
    assert "secret" not in str(error)


@pytest.mark.parametrize("status", [b"200 OK", b"400 Bad Request"])
def test_a_server_that_repeats_the_question_does_not_bring_it_into_an_error(status: bytes) -> None:
    class Parrot(Stub):
        async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await super().serve(reader, writer)
            writer.write(b"HTTP/1.1 %b\r\n\r\ndata: %b x\n\n" % (status, self.requests[0][2]))
            await writer.drain()

    _, error = outcome(Parrot)
    assert error is not None
    assert "沸点" not in "".join(traceback.format_exception(error))


def test_nobody_there_is_an_unreachable_cloud(unused_tcp_port: int) -> None:
    async def scenario() -> None:
        async with OpenAIUpstream.connect(f"http://127.0.0.1:{unused_tcp_port}", "qwen") as upstream:
            with pytest.raises(CloudUnreachableError, match="ConnectError"):
                await answer_of(upstream)

    run(scenario())


@settings(max_examples=20, deadline=None)
@given(st.binary(max_size=60))
def test_no_bytes_break_more_than_the_answer(garbage: bytes) -> None:
    _, error = outcome(lambda: Stub(HEAD + says("一") + garbage + b"\n" + STOP + DONE))
    assert error is None or isinstance(error, CompletionError)


def test_a_tool_call_nobody_offered_is_no_answer() -> None:
    half = data(
        {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"name": "self.", "arguments": "{"}}]}}]}
    )
    for said in (half, says("<tool_call>\n"), says("好。<tool_call>")):
        heard, error = outcome(partial(Stub, HEAD + ROLE + said))
        assert heard == []
        assert type(error) is CompletionError
        assert "tool" in str(error)


def test_a_character_cut_in_two_is_no_answer() -> None:
    cut = says("一百")
    heard, error = outcome(lambda: Stub(HEAD + says("水") + cut[: cut.index("百".encode()) + 2]))
    assert text_of(heard) == "水"
    assert isinstance(error, CompletionError)


def test_a_server_without_tls_is_an_unreachable_cloud() -> None:
    async def scenario() -> None:
        async with (
            Plain().served() as url,
            OpenAIUpstream.connect(url.replace("http:", "https:"), "qwen") as upstream,
        ):
            with pytest.raises(CloudUnreachableError):
                await answer_of(upstream)
            with pytest.raises(CloudUnreachableError):
                await upstream.probe()

    run(scenario())


@pytest.mark.parametrize(
    ("status", "expected"), [(400, True), (413, True), (422, True), (404, False), (500, False), (429, False)]
)
def test_what_the_prompt_is_at_fault_for_is_known(status: int, expected: bool) -> None:
    _, error = outcome(lambda: Stub(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % status))
    assert error is not None
    assert is_prompts_fault(error) is expected


# Silence


@pytest.mark.parametrize(("said", "before"), [((), ""), ((HEAD, ROLE), ""), ((HEAD, says("一")), "一")])
def test_the_prompt_s_budget_ends_an_answer_before_our_patience(said: tuple[bytes, ...], before: str) -> None:
    async def scenario() -> None:
        stub, heard = Stub(*said, hangs=True), ""
        async with (
            asked(stub) as upstream,
            aclosing(upstream.complete(Prompt(turn_id="t", messages=PROMPT.messages, budget_ms=150))) as deltas,
        ):
            with pytest.raises(DeadlineError):  # noqa: PT012  # what came before it counts
                async for delta in deltas:
                    heard += delta.text
            await hung_up(stub)
        assert heard == before

    run(scenario())


def test_drops_do_not_outlast_the_budget() -> None:
    async def scenario() -> None:
        stub = Endless(HEAD, says("x"), hangs=True)
        prompt = Prompt(turn_id="t", messages=PROMPT.messages, budget_ms=100)
        async with asked(stub) as upstream, aclosing(upstream.complete(prompt)) as deltas:
            with pytest.raises(DeadlineError, match="budget"):  # noqa: PT012  # a reader that is slower than the drops
                async for _ in deltas:
                    await asyncio.sleep(0.01)

    run(scenario())


@pytest.mark.parametrize("said", [(), (HEAD,)], ids=["before-the-head", "after-the-head"])
def test_no_first_token_in_time_is_a_deadline_and_hangs_up(said: tuple[bytes, ...]) -> None:
    async def scenario() -> None:
        stub = Stub(*said, hangs=True)
        async with asked(stub, first_token_s=0.1) as upstream:
            with pytest.raises(DeadlineError, match=r"no first token within 0\.1 s"):
                await answer_of(upstream)
            await hung_up(stub)

    run(scenario())


@pytest.mark.parametrize("busy", [PING, ROLE, NULL])
def test_what_is_no_token_does_not_put_the_first_one_off(busy: bytes) -> None:
    heard, error = outcome(lambda: Endless(HEAD, busy, hangs=True), first_token_s=0.2)
    assert heard == []
    assert type(error) is DeadlineError


@pytest.mark.parametrize("busy", [PING, ROLE, NULL])
def test_what_is_no_token_does_not_put_the_next_one_off(busy: bytes) -> None:
    heard, error = outcome(lambda: Endless(HEAD, says("一"), busy, hangs=True), stall_s=0.2)
    assert text_of(heard) == "一"
    assert type(error) is CloudUnreachableError
    assert "stalled for 0.2 s" in str(error)


def test_a_role_before_the_first_token_does_not_shorten_the_wait_for_it() -> None:
    heard, error = outcome(lambda: Stub(HEAD, ROLE, hangs=True), first_token_s=0.3, stall_s=0.01)
    assert heard == []
    assert type(error) is DeadlineError


def test_a_slow_reader_is_no_stall() -> None:
    async def scenario() -> None:
        async with (
            asked(Stub(HEAD, says("一"), *[says("二")] * 500, STOP, DONE), stall_s=0.2) as upstream,
            aclosing(upstream.complete(PROMPT)) as deltas,
        ):
            heard = (await anext(deltas)).text
            await asyncio.sleep(0.4)
            assert heard + text_of([delta async for delta in deltas]) == "一" + "二" * 500

    run(scenario())


def test_a_stall_between_two_tokens_is_an_unreachable_cloud_and_hangs_up() -> None:
    async def scenario() -> None:
        stub, heard = Stub(HEAD + says("一"), hangs=True), []
        async with asked(stub, stall_s=0.1) as upstream:
            async with aclosing(upstream.complete(PROMPT)) as deltas:
                heard.append((await anext(deltas)).text)
                with pytest.raises(CloudUnreachableError, match=r"stalled for 0\.1 s"):
                    await anext(deltas)
            await hung_up(stub)
        assert heard == ["一"]

    run(scenario())


# Connections


def test_an_answer_that_vllm_drops_is_not_taken_for_whole() -> None:
    dropped = b'data: {"choices": [{"delta": {"content": ""}, "finish_reason": "abort"}]}\n\ndata: [DONE]\n\n'
    heard, error = outcome(lambda: Stub(HEAD, says("一"), dropped))
    assert text_of(heard) == "一"
    assert isinstance(error, CloudUnreachableError)


def test_an_answer_leaves_its_connection_for_the_next() -> None:
    async def scenario() -> None:
        stub = Keeping(ANSWER)
        async with asked(stub) as upstream:
            for _ in range(3):
                assert text_of(await answer_of(upstream)) == "一百度"
            assert connections(upstream) == 1
        assert (len(stub.requests), stub.accepted) == (3, 1)

    run(scenario())


def test_no_more_connections_are_opened_than_requests_may_be_under_way() -> None:
    async def scenario() -> None:
        async with OpenAIUpstream.connect("http://127.0.0.1:1", "qwen", max_running=5) as upstream:
            transport = upstream._client._transport
            assert isinstance(transport, Connections)
            assert transport._max_busy == 5 + SPARE_CONNECTIONS

    run(scenario())


# Closing

Stopped = Callable[[OpenAIUpstream, Stub], Awaitable[None]]


async def close_after_a_piece(upstream: OpenAIUpstream, _stub: Stub) -> None:
    async with aclosing(upstream.complete(PROMPT)) as deltas:
        assert (await anext(deltas)).text == "一"


async def cancel_before_the_head(upstream: OpenAIUpstream, stub: Stub) -> None:
    asking = asyncio.create_task(answer_of(upstream))
    await stub.asked.wait()
    asking.cancel()
    await asyncio.wait([asking])
    assert asking.cancelled()


async def cancel_after_the_head(upstream: OpenAIUpstream, stub: Stub) -> None:
    asking = asyncio.create_task(answer_of(upstream))
    await stub.asked.wait()
    while not stub.is_said:  # noqa: ASYNC110  # it takes a loop turn or two
        await asyncio.sleep(0)
    await asyncio.sleep(0.05)
    asking.cancel()
    await asyncio.wait([asking])
    assert asking.cancelled()


async def cancel_between_two_pieces(upstream: OpenAIUpstream, _stub: Stub) -> None:
    came = asyncio.Event()

    async def read() -> None:
        async with aclosing(upstream.complete(PROMPT)) as deltas:
            async for _ in deltas:
                came.set()

    reading = asyncio.create_task(read())
    await came.wait()
    reading.cancel()
    await asyncio.wait([reading])
    assert reading.cancelled()


@asynccontextmanager
async def no_new_tasks(stub: Stub) -> AsyncGenerator[None, None]:
    """Fail when a task is running afterwards or is made a little later, as the loop does to end a forgotten generator."""
    before = asyncio.all_tasks()
    yield
    for _ in range(10):
        assert asyncio.all_tasks() - before <= stub.connections
        await asyncio.sleep(0)


async def stopped(stop: Stopped, stub: Stub) -> None:
    async with asked(stub) as upstream:
        async with no_new_tasks(stub):
            await stop(upstream, stub)
        await hung_up(stub)
        assert connections(upstream) == 0


@pytest.mark.parametrize("stop", [close_after_a_piece, cancel_between_two_pieces])
@pytest.mark.parametrize("kind", [Stub, Endless])
def test_stopping_hangs_up_at_once_and_leaves_no_task(stop: Stopped, kind: type[Stub]) -> None:
    async def scenario() -> None:
        await stopped(stop, kind(HEAD, says("一") * 50, hangs=True))

    run(scenario())


@pytest.mark.parametrize(
    ("stop", "said"),
    [(cancel_before_the_head, ()), (cancel_after_the_head, (HEAD,)), (cancel_after_the_head, (HEAD, ROLE))],
)
def test_a_cancel_before_the_first_token_hangs_up_too(stop: Stopped, said: tuple[bytes, ...]) -> None:
    run(stopped(stop, Stub(*said, hangs=True)))


def test_an_answer_that_never_ends_is_cut_and_hung_up_on() -> None:
    async def scenario() -> None:
        stub = Endless(HEAD, says("x" * 100), hangs=True)
        async with asked(stub) as upstream:
            assert MAX_ANSWER_CHARS <= len(text_of(await answer_of(upstream))) <= MAX_ANSWER_CHARS + 100
            await hung_up(stub)

    run(scenario())


@pytest.mark.parametrize("said", [(says("十" * 80_000),), (says("x"), says("十" * 80_000))])
def test_a_piece_longer_than_an_answer_may_be_is_cut(said: tuple[bytes, ...]) -> None:
    heard, error = outcome(lambda: Stub(HEAD, *said, STOP, DONE))
    assert error is None
    assert len(text_of(heard)) == MAX_ANSWER_CHARS


def test_a_finished_answer_leaves_no_task() -> None:
    async def scenario() -> None:
        stub = Stub(HEAD, says("一") * 20, STOP, DONE, hangs=True)
        async with asked(stub) as upstream:
            async with no_new_tasks(stub):
                assert text_of(await answer_of(upstream)) == "一" * 20
            await hung_up(stub)

    run(scenario())


def test_one_stopped_answer_does_not_disturb_another() -> None:
    async def scenario() -> None:
        stub = Stub(HEAD, says("一"), hangs=True)
        async with asked(stub) as upstream, aclosing(upstream.complete(PROMPT)) as stays:
            assert (await anext(stays)).text == "一"
            await close_after_a_piece(upstream, stub)
            await hung_up(stub)
            assert connections(upstream) == 1

    run(scenario())


# Probes

METRICS = b"""# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{model_name="qwen"} 3.0
vllm:num_requests_waiting{model_name="qwen"} 1.0
vllm:kv_cache_usage_perc{model_name="qwen"} 0.5
"""
NOT_FOUND = b"HTTP/1.1 404 X\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def ok(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%b" % (len(body), body)


class Pages(Stub):
    """Says what is planned for each path."""

    def __init__(self, **pages: bytes) -> None:
        super().__init__()
        self.pages = {"/metrics": pages.get("metrics", NOT_FOUND), "/v1/models": pages.get("models", NOT_FOUND)}
        self.paths: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await super().serve(reader, writer)
        self.paths.append(self.requests[-1][0].split()[1])
        writer.write(self.pages[self.paths[-1]])
        await writer.drain()


def probed(stub: Stub) -> Figures | None:
    async def scenario() -> Figures | None:
        async with asked(stub) as upstream:
            return await upstream.probe()

    return run(scenario())


def test_a_server_with_figures_is_asked_for_nothing_else() -> None:
    stub = Pages(metrics=ok(METRICS))
    assert probed(stub) == Figures(running=3, waiting=1, kv_usage=0.5)
    assert stub.paths == ["/metrics"]


@pytest.mark.parametrize(
    "metrics", [NOT_FOUND, ok(b"<html>"), ok(b""), ok(b"\xff\xfe"), b"HTTP/1.1 401 X\r\nContent-Length: 0\r\n\r\n"]
)
def test_a_server_that_only_lists_its_models_lives_without_figures(metrics: bytes) -> None:
    stub = Pages(metrics=metrics, models=ok(b"{}"))
    assert probed(stub) is None
    assert stub.paths == ["/metrics", "/v1/models"]


def test_a_server_without_figures_is_seldom_asked_for_them() -> None:
    async def scenario() -> None:
        stub = Pages(models=ok(b"{}"))
        async with asked(stub) as upstream:
            for _ in range(METRICS_AGAIN + 1):
                assert await upstream.probe() is None
        assert stub.paths.count("/metrics") == 2
        assert stub.paths.count("/v1/models") == METRICS_AGAIN + 1

    run(scenario())


def test_a_page_of_metrics_without_end_is_not_read_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloud.upstream.MAX_METRICS_BYTES", 100)
    assert probed(Pages(metrics=ok(METRICS), models=ok(b"{}"))) is None


@pytest.mark.parametrize(
    "said", [b"HTTP/1.1 503 Loading\r\nContent-Length: 0\r\n\r\n", NOT_FOUND, b"nonsense\r\n\r\n", b""]
)
def test_a_server_that_answers_with_an_error_is_away(said: bytes) -> None:
    with pytest.raises(CloudUnreachableError):
        probed(Pages(metrics=said, models=said))


def test_a_server_that_says_nothing_is_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloud.upstream.PROBE_S", 0.1)

    async def scenario() -> None:
        stub = Stub(hangs=True)
        async with asked(stub) as upstream:
            with pytest.raises(DeadlineError, match=r"within 0\.1 s"):
                await upstream.probe()
            await hung_up(stub)

    run(scenario())


def test_a_server_that_is_not_there_is_away(unused_tcp_port: int) -> None:
    async def scenario() -> None:
        async with OpenAIUpstream.connect(f"http://127.0.0.1:{unused_tcp_port}", "qwen") as upstream:
            with pytest.raises(CloudUnreachableError, match="ConnectError"):
                await upstream.probe()

    run(scenario())
