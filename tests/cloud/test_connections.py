from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.connections import KEEPALIVE_S, MAX_BUFFERED_BYTES, MAX_HEAD_BYTES, Connections
from tests.bare_server import BareServer
from tests.real_time import run

OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
LAST = b"0\r\n\r\n"


class Server(BareServer):
    """Answers each request of each connection with planned bytes, in pieces of a planned size."""

    def __init__(self, answer: bytes, *, piece: int = 0, closes: bool = False) -> None:
        super().__init__()
        self.answer = answer
        self.piece = piece or max(1, len(answer))
        self.closes = closes
        self.accepted = 0
        self.requests: list[bytes] = []
        self.port = 0

    @asynccontextmanager
    async def served(self) -> AsyncGenerator[None, None]:
        async with self.listening() as self.port:
            yield

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next((line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")), b":0")
            self.requests.append(head + await reader.readexactly(int(length.partition(b":")[2])))
            for start in range(0, len(self.answer), self.piece):
                writer.write(self.answer[start : start + self.piece])
                await writer.drain()
                await asyncio.sleep(0)
            if self.closes:
                return


def client_of(connections: Connections, server: Server) -> httpx.AsyncClient:
    timeout = httpx.Timeout(None, connect=2.0)
    url = f"http://127.0.0.1:{server.port}"
    return httpx.AsyncClient(transport=connections, base_url=url, timeout=timeout, trust_env=False)


def asked(server: Server, count: int = 1) -> tuple[list[bytes], int]:
    """Return the bodies of so many answers, one after another, and how many connections that took."""

    async def scenario() -> tuple[list[bytes], int]:
        connections = Connections()
        async with server.served():
            async with client_of(connections, server) as client:
                bodies = [(await client.post("/x", content=b"body")).content for _ in range(count)]
                taken = server.accepted
            assert connections.open == 0
        return bodies, taken

    return run(scenario())


# Bodies


@pytest.mark.parametrize("piece", [0, 1, 3])
@pytest.mark.parametrize(
    ("answer", "body"),
    [
        (CHUNKED + b"3\r\nabc\r\nA\r\n0123456789\r\n" + LAST, b"abc0123456789"),
        (CHUNKED + b"3;name=value\r\nabc\r\n0\r\nTrailer: x\r\n\r\n", b"abc"),
        (CHUNKED + LAST, b""),
        (OK + b"Content-Length: 5\r\n\r\nhello", b"hello"),
        (OK + b"content-length:   0  \r\n\r\n", b""),
        (b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 2\r\n\r\nok", b"ok"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b""),
        (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", b"ok"),
    ],
)
def test_a_body_is_read_whole_and_its_connection_used_again(answer: bytes, body: bytes, piece: int) -> None:
    assert asked(Server(answer, piece=piece), 3) == ([body] * 3, 1)


@pytest.mark.parametrize(
    ("answer", "closes"),
    [
        (OK + b"\r\nall there is", True),
        (OK + b"Connection: close\r\nContent-Length: 12\r\n\r\nall there is", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 12\r\n\r\nall there is", False),
        (OK + b"Content-Length: 12\r\n\r\nall there is and more", False),
    ],
    ids=["until-closed", "connection-close", "http-1.0", "more-than-said"],
)
def test_a_connection_that_cannot_be_trusted_again_is_not(answer: bytes, closes: bool) -> None:  # a table
    assert asked(Server(answer, closes=closes), 2) == ([b"all there is"] * 2, 2)


@settings(max_examples=25)
@given(chunks=st.lists(st.binary(min_size=1, max_size=40), max_size=6), piece=st.integers(1, 60))
def test_chunks_of_any_size_in_pieces_of_any_size_are_put_together(chunks: list[bytes], piece: int) -> None:
    answer = CHUNKED + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + LAST
    assert asked(Server(answer, piece=piece), 2) == ([b"".join(chunks)] * 2, 1)


def test_a_request_arrives_as_it_was_meant() -> None:
    server = Server(OK + b"Content-Length: 0\r\n\r\n")
    asked(server)
    head, _, body = server.requests[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /x HTTP/1.1\r\n")
    assert b"host: 127.0.0.1:%d" % server.port in head.lower()
    assert body == b"body"


# What a server should not do


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"garbage\r\n\r\n", "not HTTP"),
        (b"HTTP/2 200 OK\r\n\r\n", "not HTTP"),
        (OK + b"no colon\r\n\r\n", "not HTTP"),
        (OK + b"Content-Length: -1\r\n\r\n", "no number"),
        (OK + b"Content-Length: " + b"9" * 400 + b"\r\n\r\n", "no number"),
        (OK + b"X: " + b"x" * (MAX_HEAD_BYTES + 10), "too long"),
        (b"", "without an answer"),
        (OK + b"Content-Length: 9\r\n\r\nhalf", "before its answer was complete"),
        (CHUNKED + b"3\r\nab", "before its answer was complete"),
        (CHUNKED + b"3\r\nabc\r\n", "before its answer was complete"),
        (CHUNKED + b"0\r\n", "before its answer was complete"),
        (CHUNKED + b"zz\r\n", "no size"),
        (CHUNKED + b"-3\r\nabc\r\n", "no size"),
        (CHUNKED + b"fffffffff\r\n", "no size"),
        (CHUNKED + b"3\r\nabcdef\r\n", "longer than it said"),
        (CHUNKED + b"3" * (MAX_HEAD_BYTES + 10), "too long"),
    ],
)
def test_an_answer_that_is_none_is_an_error_and_its_connection_closed(answer: bytes, words: str) -> None:
    with pytest.raises(httpx.RemoteProtocolError, match=words):
        asked(Server(answer, closes=True))


@settings(max_examples=40)
@given(answer=st.binary(max_size=80), is_body=st.booleans())
def test_no_bytes_end_in_anything_but_an_answer_or_an_error_of_httpx(
    answer: bytes, is_body: bool
) -> None:  # hypothesis
    with suppress(httpx.HTTPError):
        asked(Server((CHUNKED if is_body else b"") + answer, closes=True))


# Closing


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # the other side of a socket: nothing to wait on
            await asyncio.sleep(0.005)


def test_a_stream_left_early_closes_its_connection_and_says_so_to_late_readers() -> None:
    async def scenario() -> None:
        server, connections = Server(CHUNKED + b"3\r\nabc\r\n"), Connections()
        async with server.served(), client_of(connections, server) as client:
            response = await client.send(client.build_request("POST", "/x"), stream=True)
            chunks = response.aiter_raw()
            assert await anext(chunks) == b"abc"
            await response.aclose()
            with pytest.raises(httpx.StreamError):
                await anext(chunks)
            assert connections.open == 0
            await until(lambda: not server.connections)

    run(scenario())


@pytest.mark.parametrize("answer", [b"", CHUNKED, CHUNKED + b"3\r\nabc\r\n"], ids=["head", "first", "next"])
def test_being_cancelled_while_waiting_closes_the_connection(answer: bytes) -> None:
    async def scenario() -> None:
        server, connections = Server(answer), Connections()
        async with server.served(), client_of(connections, server) as client:
            asking = asyncio.create_task(client.post("/x"))
            await until(lambda: len(server.requests) == 1)
            await asyncio.sleep(0.02)
            asking.cancel()
            await asyncio.wait([asking])
            assert asking.cancelled()
            assert connections.open == 0
            await until(lambda: not server.connections)

    run(scenario())


def test_an_idle_connection_is_left_when_old_or_when_its_server_left_it() -> None:
    async def scenario() -> None:
        clock = [0.0]
        server, connections = Server(OK + b"Content-Length: 0\r\n\r\n"), Connections(now=lambda: clock[0])
        async with server.served(), client_of(connections, server) as client:
            for passed_s, expected in ((0.0, 1), (KEEPALIVE_S, 1), (KEEPALIVE_S + 0.1, 2)):
                clock[0] += passed_s
                await client.post("/x")
                assert server.accepted == expected
            for task in server.connections:
                task.cancel()
            await until(lambda: all(each.is_closed for idle in connections._idle.values() for each in idle))
            await client.post("/x")
            assert server.accepted == 3
            assert connections.open == 1

    run(scenario())


def test_a_connection_its_server_closes_after_each_answer_costs_no_request() -> None:
    bodies, connections = asked(Server(OK + b"Content-Length: 2\r\n\r\nok", closes=True), 20)
    assert bodies == [b"ok"] * 20
    assert connections == 20


def test_no_more_idle_connections_are_kept_than_may_be() -> None:
    async def scenario() -> None:
        server, connections = Server(OK + b"Content-Length: 0\r\n\r\n"), Connections(max_idle=2)
        async with server.served(), client_of(connections, server) as client:
            await asyncio.gather(*(client.post("/x") for _ in range(5)))
            assert connections.open == 2
        assert connections.open == 0

    run(scenario())


def test_requests_beyond_what_may_be_under_way_are_refused_and_none_is_counted_for_ever() -> None:
    async def scenario() -> None:
        server, connections = Server(CHUNKED), Connections(max_busy=2)
        async with server.served(), client_of(connections, server) as client:
            for _ in range(3):
                asking = [asyncio.create_task(client.post("/x")) for _ in range(2)]
                await asyncio.sleep(0.02)
                with pytest.raises(httpx.PoolTimeout):
                    await client.post("/x")
                for task in asking:
                    task.cancel()
                await asyncio.wait(asking)
            assert connections._busy == 0
        with pytest.raises(httpx.ConnectError):
            await client_of(connections, server).post("/x")
        assert connections._busy == 0

    run(scenario())


def test_a_server_faster_than_the_reader_is_made_to_wait() -> None:
    async def scenario() -> None:
        size = 40 * MAX_BUFFERED_BYTES
        server = Server(OK + b"Content-Length: %d\r\n\r\n" % size + b"x" * size, piece=64 * 1024)
        connections = Connections()
        async with server.served(), client_of(connections, server) as client:
            response = await client.send(client.build_request("POST", "/x"), stream=True)
            await asyncio.sleep(0.2)
            (connection,) = connections._open
            assert len(connection.received) < 4 * MAX_BUFFERED_BYTES
            assert len(await response.aread()) == size
            await response.aclose()

    run(scenario())


# Connecting


def test_nobody_there_is_a_connect_error() -> None:
    async def scenario() -> None:
        server = Server(b"")
        async with server.served():
            pass
        async with client_of(Connections(), server) as client:
            with pytest.raises(httpx.ConnectError):
                await client.get("/")

    run(scenario())


@asynccontextmanager
async def listening(answer: bytes) -> AsyncGenerator[int, None]:
    """Serve a port on which every connection is answered with these bytes at once, and nothing after them."""

    class Says(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.WriteTransport)
            transport.write(answer)

    server = await asyncio.get_running_loop().create_server(Says, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


@pytest.mark.parametrize(
    ("answer", "error"), [(b"no\r\n\r\n", httpx.ConnectError), (b"", httpx.ConnectTimeout)], ids=["speaks", "is-mute"]
)
def test_a_server_without_tls_is_not_connected_to(answer: bytes, error: type[httpx.HTTPError]) -> None:
    async def scenario() -> None:
        connections = Connections(ssl_context=ssl.create_default_context())
        timeout = httpx.Timeout(None, connect=0.2)
        async with listening(answer) as port, httpx.AsyncClient(transport=connections, timeout=timeout) as client:
            with pytest.raises(error):
                await client.get(f"https://127.0.0.1:{port}/")
            assert connections.open == 0

    run(scenario())
