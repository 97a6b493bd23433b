from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from http import HTTPStatus

import numpy as np
import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosedError
from websockets.http11 import Request, Response

from edge.brain.opus import OpusEncoder
from edge.gateway import framing
from edge.simulator.bootstrap import Identity
from edge.simulator.client import connect
from models.errors import DeviceAuthError, DeviceError, DeviceProtocolError
from tests.real_time import run

SPEECH = (8000 * np.sin(np.arange(300 * 16) / 8)).astype("<i2").tobytes()
TONE = (8000 * np.sin(np.arange(60 * 24) / 8)).astype("<i2").tobytes()


class Gateway:
    """Greets, answers after eight frames, and keeps the request and how the device left."""

    def __init__(self) -> None:
        self.request: Request | None = None
        self.left: ConnectionClosedError | None = None
        self.frames: list[bytes] = []
        self.gone = asyncio.Event()

    async def __call__(self, connection: ServerConnection) -> None:
        self.request = connection.request
        version = int(connection.request.headers["Protocol-Version"]) if connection.request else 1
        try:
            async for message in connection:
                if isinstance(message, bytes):
                    self.frames.append(framing.unpack(message, version))
                    if len(self.frames) == 8:
                        await self.answer(connection, version)
                elif json.loads(message)["type"] == "hello":
                    await connection.send(json.dumps({"type": "hello", "transport": "websocket", "session_id": "s"}))
        except ConnectionClosedError as error:
            self.left = error
        self.gone.set()

    async def answer(self, connection: ServerConnection, version: int) -> None:
        encoder = OpusEncoder(24_000, 60)
        await connection.send('{"type":"stt","text":"hello"}')
        await connection.send('{"type":"tts","state":"start"}')
        await asyncio.sleep(0.05)
        for _ in range(5):
            await connection.send(framing.pack(encoder.encode(TONE), version))
        await connection.send('{"type":"tts","state":"stop"}')


@asynccontextmanager
async def serving(gateway: Gateway) -> AsyncGenerator[str, None]:
    async with serve(gateway, "127.0.0.1", 0, compression=None, ping_interval=None) as server:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/xiaozhi/v1/"


@pytest.mark.parametrize("version", [1, 2, 3])
def test_a_turn_over_a_real_socket_is_heard_in_every_framing(version: int) -> None:
    async def work() -> None:
        gateway = Gateway()
        async with serving(gateway) as url:
            async with connect(url=url, token="t", version=version) as device:
                turn = await device.ask(SPEECH)
            await gateway.gone.wait()
        assert (turn.outcome, turn.heard, turn.played_ms) == ("answered", "hello", 300)
        assert np.abs(np.frombuffer(turn.pcm, dtype="<i2")).max() > 2000
        assert not [problem for problem in turn.problems if "so soon" not in problem]
        assert all(gateway.frames)

    run(work())


def test_the_upgrade_request_is_the_firmwares() -> None:
    async def work() -> None:
        gateway = Gateway()
        async with serving(gateway) as url:
            async with connect(url=url, token="t", version=2, identity=Identity(device_id="aa:bb", client_id="c")):
                pass
            await gateway.gone.wait()
        assert gateway.request is not None
        headers = gateway.request.headers
        assert headers["Host"] == "127.0.0.1"
        assert (headers["Authorization"], headers["Protocol-Version"]) == ("Bearer t", "2")
        assert (headers["Device-Id"], headers["Client-Id"]) == ("aa:bb", "c")
        assert "Sec-WebSocket-Extensions" not in headers
        assert "User-Agent" not in headers

    run(work())


def test_a_device_leaves_without_a_close_frame() -> None:
    async def work() -> None:
        gateway = Gateway()
        async with serving(gateway) as url:
            async with connect(url=url):
                pass
            await gateway.gone.wait()
        assert gateway.left is not None
        assert gateway.left.rcvd is None

    run(work())


def test_a_refused_token_is_an_auth_error() -> None:
    async def work() -> None:
        def refuse(connection: ServerConnection, _request: Request) -> Response:
            return connection.respond(HTTPStatus.UNAUTHORIZED, "no")

        async with serve(Gateway(), "127.0.0.1", 0, process_request=refuse) as server:
            port = server.sockets[0].getsockname()[1]
            async with connect(url=f"ws://127.0.0.1:{port}/"):
                pass

    with pytest.raises(DeviceAuthError, match="refuses the token"):
        run(work())


def test_a_server_that_hangs_up_is_an_error() -> None:
    async def work() -> None:
        async def hang_up(connection: ServerConnection) -> None:
            await connection.close()

        async with serve(hang_up, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with connect(url=f"ws://127.0.0.1:{port}/"):
                pass

    with pytest.raises(DeviceProtocolError, match="closed"):
        run(work())


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("ws://127.0.0.1:1/x", "cannot reach ws://127.0.0.1:1/x: is an edge running there"),
        ("http://127.0.0.1:1/x", "no WebSocket address"),
    ],
)
def test_an_address_where_nobody_answers_is_named(url: str, says: str) -> None:
    async def work() -> None:
        async with connect(url=url):
            pass

    with pytest.raises(DeviceError, match=says):
        run(work())
