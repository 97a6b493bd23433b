"""Seeded runs of a pool whose servers fail in every way we know, on virtual time down to the HTTP library."""

from __future__ import annotations

import asyncio
import random
import ssl
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager

import httpx
import pytest
import structlog

from cloud.pool import ReplicaPool
from cloud.replica import Replica, Upstream
from cloud.upstream import OpenAIUpstream
from models.errors import CompletionError
from tests.cloud.servers import prompt
from tests.cloud.test_upstream import DONE, ROLE, STOP, USED, data, says
from tests.virtual_time import run

TOOL_HALF = data(
    {"choices": [{"delta": {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": '{"a'}}]}}]}
)
CUT = says("百")
PIECES: dict[str, list[bytes | float]] = {
    "good": [0.1, ROLE, 0.2, says("一"), 0.1, says("百"), 0.1, says("度"), STOP + USED + DONE],
    "drips": [ROLE, *[piece for _ in range(60) for piece in (0.4, says("滴"))], STOP + DONE],
    "hangs": [ROLE, 1e6],
    "hangs-inside": [0.1, says("一"), says("百"), 1e6],
    "garbage": [0.1, b"\x00\xff{]}\n\ndata: {]\n\n"],
    "garbage-inside": [0.1, says("一"), b"data: <html>\n\n"],
    "empty": [0.1],
    "cut-character": [0.1, says("一"), CUT[: CUT.index("百".encode()) + 2]],
    "tool-half": [0.1, ROLE, TOOL_HALF],
    "tool-half-inside": [0.1, says("好"), TOOL_HALF],
}
ERRORS: dict[str, Exception] = {
    "refuses": httpx.ConnectError("refused"),
    "tls": httpx.ConnectError("[SSL: WRONG_VERSION_NUMBER]"),
    "tls-inside": ssl.SSLError("[SSL: BAD_RECORD_MAC]"),
    "cut": httpx.ReadError("cut"),
}
STATUSES = {"500": 500, "429": 429, "503": 503, "400": 400}
MODES = (*PIECES, *ERRORS, *STATUSES, "hangs-before-the-head")
ANSWERS = {"一百度", "滴" * 60}


class Body(httpx.AsyncByteStream):
    """Yields planned pieces after planned seconds, then maybe an error; counted while open."""

    def __init__(self, server: Scripted, pieces: list[bytes | float], error: Exception | None = None) -> None:
        self._server = server
        self._pieces = pieces
        self._error = error
        self._is_open = True
        server.open += 1

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            if isinstance(piece, bytes):
                yield piece
            else:
                await asyncio.sleep(piece)
        if self._error:
            raise self._error

    async def aclose(self) -> None:
        self._server.open -= self._is_open
        self._is_open = False


class Scripted(httpx.AsyncBaseTransport):
    """A server in one mode at a time, without a socket."""

    def __init__(self, dice: random.Random) -> None:
        self.dice = dice
        self.mode = dice.choice(MODES)
        self.open = 0
        """Answers whose stream nobody closed yet."""
        self.at_head = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.dice.random() < 0.1:
            self.mode = self.dice.choice(MODES)
        if request.url.path != "/v1/chat/completions":
            return await self._probed()
        self.at_head += 1
        try:
            await asyncio.sleep(1e6 if self.mode == "hangs-before-the-head" else 0.01)
        finally:
            self.at_head -= 1
        if self.mode in STATUSES:
            return httpx.Response(STATUSES[self.mode], stream=Body(self, [b"sorry"]))
        error = ERRORS.get(self.mode)
        if error and self.mode in {"refuses", "tls"}:
            raise error
        return httpx.Response(200, stream=Body(self, PIECES.get(self.mode, [0.1, says("一")]), error))

    async def _probed(self) -> httpx.Response:
        if self.mode in {"refuses", "tls"}:
            raise ERRORS[self.mode]
        await asyncio.sleep(1e6 if self.mode == "hangs-before-the-head" else 0.005)
        return httpx.Response(200, stream=Body(self, [b"vllm:num_requests_running 1\n"]))


async def ask(pool: ReplicaPool, budget_ms: int) -> tuple[str, str]:
    """Return the text and "answered" or the error's code; fail when it outlasts its budget."""
    loop, heard, result = asyncio.get_running_loop(), "", "answered"
    began_s = loop.time()
    try:
        async with aclosing(pool.complete(prompt(f"d{budget_ms}", budget_ms=budget_ms))) as deltas:
            async for delta in deltas:
                heard += delta.text
    except CompletionError as error:
        result = error.code
    assert loop.time() - began_s <= budget_ms / 1000 + 0.1
    return heard, result


async def one_run(seed: int) -> Counter[str]:
    dice = random.Random(seed)
    scripted = [Scripted(dice) for _ in range(dice.randint(1, 5))]
    counted: Counter[str] = Counter()

    @asynccontextmanager
    async def connect(replica: Replica) -> AsyncGenerator[Upstream, None]:
        transport = scripted[int(replica.name)]
        async with httpx.AsyncClient(transport=transport, base_url=replica.url) as client:
            yield OpenAIUpstream(client, "qwen", first_token_s=2.0, stall_s=1.0)

    pool = ReplicaPool("p", connect, per_replica=4, now=asyncio.get_running_loop().time, dice=dice)
    async with pool.opened([Replica(name=str(number), url="http://h") for number in range(len(scripted))]):
        for _ in range(3):
            asking = [asyncio.create_task(ask(pool, dice.randint(200, 8000))) for _ in range(dice.randint(1, 6))]
            await asyncio.sleep(dice.uniform(0, 1))
            for task in asking:
                if dice.random() < 0.3:
                    task.cancel()
            for task in asking:
                await asyncio.wait([task])
                if task.cancelled():
                    counted["cancelled"] += 1
                    continue
                heard, result = task.result()
                counted[result] += 1
                assert result != "answered" or heard in ANSWERS, "half an answer is never told as a whole one"
            assert pool.outstanding == 0
            assert not any(load.outstanding for load in pool.loads())
        pool.change([])
    assert not any(server.open or server.at_head for server in scripted), "a stream is left open"
    return counted


def runs(seeds: range) -> Counter[str]:
    """Return how the answers of these runs ended."""
    counted: Counter[str] = Counter()
    with structlog.testing.capture_logs():
        for seed in seeds:
            counted += run(one_run(seed))
    return counted


def test_every_answer_ends_in_time_and_leaves_no_place_taken() -> None:
    """The first hundred; the thousand are among the integration tests, for they take a minute."""
    counted = runs(range(100))
    assert {"answered", "cancelled", "llm-failed", "llm-overloaded", "llm-deadline", "cloud-unreachable"} <= set(
        counted
    )


@pytest.mark.parametrize("mode", MODES)
def test_one_bad_server_beside_a_good_one_costs_no_answer_that_was_not_begun(mode: str) -> None:
    async def scenario() -> None:
        bad, good = Scripted(random.Random(1)), Scripted(random.Random(2))
        bad.mode, good.mode = mode, "good"
        for server in (bad, good):
            server.dice = random.Random()
            server.dice.random = lambda: 1.0  # type: ignore[method-assign]  # it stays in its mode

        @asynccontextmanager
        async def connect(replica: Replica) -> AsyncGenerator[Upstream, None]:
            transport = bad if replica.name == "bad" else good
            async with httpx.AsyncClient(transport=transport, base_url=replica.url) as client:
                yield OpenAIUpstream(client, "qwen", first_token_s=2.0, stall_s=1.0)

        pool = ReplicaPool("p", connect, per_replica=8, now=asyncio.get_running_loop().time, dice=random.Random(3))
        async with pool.opened([Replica(name="bad", url="http://b"), Replica(name="good", url="http://g")]):
            await asyncio.sleep(2)
            for _ in range(20):
                heard, result = await ask(pool, 8000)
                if not heard:
                    assert mode in {"400", "hangs"}, "a prompt's own fault, and a silence that used the patience up"
                    assert result in {"llm-failed", "llm-deadline"}
                await asyncio.sleep(0.2)
            assert good.open == bad.open == 0

    run(scenario())
