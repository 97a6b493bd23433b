from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from edge.brain.opus import OpusDecoder
from edge.gateway.admission import Caller
from edge.gateway.refusal import Patience, Refusal, Refusals
from edge.simulator.firmware import Firmware
from tests.virtual_time import run

HELLO = {"type": "hello", "version": 1, "transport": "websocket"}
LISTEN = {"type": "listen", "state": "start", "mode": "auto"}
DETECT = {"type": "listen", "state": "detect", "text": "你好小智"}
WHO = Caller("aa:bb", "c", "", 1)


class FakeSocket:
    """A device's socket: what it sends comes from a queue, what it gets is kept with the time."""

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self.sent: list[tuple[float, dict[str, Any]]] = []
        self.closed: tuple[float, int, str] | None = None
        self.is_aborted = False
        self.is_read = True
        self.recv_count = 0
        self.is_open = True

    def says(self, *messages: Any) -> None:
        for message in messages:
            self.incoming.put_nowait(json.dumps(message) if isinstance(message, dict) else message)

    async def recv(self) -> str | bytes | None:
        self.recv_count += 1
        return await self.incoming.get()

    async def send(self, message: str | bytes) -> None:
        if not self.is_read:
            await asyncio.get_running_loop().create_future()
        self.sent.append((asyncio.get_running_loop().time(), json.loads(message)))

    async def close(self, code: int, reason: str) -> None:
        self.closed = (asyncio.get_running_loop().time(), code, reason)

    def abort(self) -> None:
        self.is_aborted = True

    def got(self) -> list[str]:
        return [message["type"] for _, message in self.sent]


@asynccontextmanager
async def turned_away(
    code: str = "full", caller: Caller = WHO, **patience: float
) -> AsyncGenerator[tuple[FakeSocket, Refusal, asyncio.Task[None]], None]:
    socket = FakeSocket()
    refusal = Refusal(
        socket, caller, code, session_id="s", patience=Patience(**patience), now=asyncio.get_running_loop().time
    )
    running = asyncio.create_task(refusal.run())
    try:
        yield socket, refusal, running
    finally:
        running.cancel()
        await asyncio.wait([running])


def test_device_hears_why_after_it_listens_and_has_time_to_read() -> None:
    async def scene() -> None:
        async with turned_away() as (socket, _, running):
            socket.says(HELLO)
            await asyncio.sleep(0.1)
            assert socket.got() == ["hello"]
            socket.says(b"preroll", DETECT, LISTEN, b"sound")
            await asyncio.sleep(0.1)
            assert socket.got() == ["hello", "alert"]
            await running
            assert socket.closed == (pytest.approx(4.1), 1013, "full")
            assert not socket.is_aborted
            assert socket.sent[1][1] | {"session_id": ""} == {
                "type": "alert",
                "session_id": "",
                "status": "繁忙",
                "message": "现在用的人太多了，请稍后再试。",
                "emotion": "sad",
            }

    run(scene())


def test_stock_firmware_accepts_the_hello_and_shows_the_alert() -> None:
    async def scene() -> None:
        async with turned_away("draining") as (socket, _, running):
            firmware = Firmware(OpusDecoder)
            firmware.connect()
            socket.says(*firmware.outbox)
            await asyncio.sleep(0.1)
            for _, message in socket.sent:
                firmware.on_text(json.dumps(message), 100)
            assert firmware.is_open
            firmware.outbox.clear()
            firmware.listen("auto", 100)
            socket.says(*firmware.outbox)
            await running
            firmware.on_text(json.dumps(socket.sent[-1][1]), 200)
            assert firmware.log.alerts == ["维护中: 服务器正在维护，请一分钟后再试。"]
            assert firmware.log.faults == []

    run(scene())


@pytest.mark.parametrize(
    ("header", "hello", "status"),
    [("", "", "繁忙"), ("en", "", "Busy"), ("", "en-US", "Busy"), ("zh", "en", "繁忙"), ("fr", "zh", "Busy")],
)
def test_alert_is_in_the_language_of_the_header_then_of_hello(header: str, hello: str, status: str) -> None:
    async def scene() -> None:
        async with turned_away(caller=Caller("a", "", "", 1, header)) as (socket, _, running):
            socket.says({**HELLO, "language": hello}, LISTEN)
            await running
            assert socket.sent[-1][1]["status"] == status

    run(scene())


def test_client_that_greets_and_does_not_listen_is_told_all_the_same() -> None:
    async def scene() -> None:
        async with turned_away() as (socket, _, running):
            socket.says(HELLO)
            await running
            assert socket.got() == ["hello", "alert"]
            assert socket.closed == (pytest.approx(5.0), 1013, "full")

    run(scene())


@pytest.mark.parametrize("said", [(), (LISTEN,), ({**HELLO, "transport": "udp"},), (b"noise",) * 60, ("[",) * 60])
def test_peer_that_says_no_sound_hello_is_closed_soon_and_told_nothing(said: tuple[Any, ...]) -> None:
    async def scene() -> None:
        async with turned_away() as (socket, _, running):
            socket.says(*said)
            await running
            assert socket.got() == []
            assert socket.closed
            assert socket.closed[0] <= 2.0
            assert socket.closed[1:] == (1013, "full")

    run(scene())


@pytest.mark.parametrize("after", [(), (HELLO,), (HELLO, LISTEN)])
def test_device_that_goes_gives_its_place_back_at_once(after: tuple[Any, ...]) -> None:
    async def scene() -> None:
        async with turned_away() as (socket, _, running):
            socket.says(*after, None)
            await running
            assert asyncio.get_running_loop().time() < 0.1
            assert socket.is_aborted
            assert socket.closed is None

    run(scene())


def test_device_that_does_not_read_is_dropped() -> None:
    async def scene() -> None:
        async with turned_away() as (socket, _, running):
            socket.is_read = False
            socket.says(HELLO, LISTEN)
            await running
            assert asyncio.get_running_loop().time() == pytest.approx(1.0)
            assert socket.is_aborted

    run(scene())


def test_flood_is_read_at_the_pace_of_a_device() -> None:
    async def scene() -> None:
        async with turned_away() as (socket, _, running):
            socket.says(HELLO, LISTEN, *[b"x"] * 5000)
            await running
            assert socket.got() == ["hello", "alert"]
            assert socket.recv_count < 450

    run(scene())


@pytest.mark.parametrize("said", [(), (HELLO,), (HELLO, LISTEN)])
@pytest.mark.parametrize("at_s", [0.0, 0.5])
def test_ended_refusal_closes_at_once(said: tuple[Any, ...], at_s: float) -> None:
    async def scene() -> None:
        async with turned_away() as (socket, refusal, running):
            socket.says(*said)
            await asyncio.sleep(at_s)
            refusal.end()
            refusal.end()
            await running
            assert socket.closed == (pytest.approx(at_s), 1013, "full")

    run(scene())


def test_cancelled_refusal_drops_the_socket() -> None:
    async def scene() -> None:
        async with turned_away() as (socket, _, running):
            socket.says(HELLO)
            await asyncio.sleep(0.1)
            running.cancel()
            await asyncio.wait([running])
            assert running.cancelled()
            assert socket.is_aborted

    run(scene())


# Refusals


def test_only_so_many_are_told_at_once_and_places_come_back() -> None:
    async def scene() -> None:
        refusals = Refusals(2, now=asyncio.get_running_loop().time)
        sockets = [FakeSocket(), FakeSocket()]
        tasks = []
        for number, socket in enumerate(sockets):
            assert refusals.has_room
            socket.says(HELLO, LISTEN)
            caller = Caller(f"d{number}", "", "", 1)
            tasks.append(asyncio.create_task(refusals.refuse(socket, caller, "full", f"s{number}")))
            await asyncio.sleep(0.001)
        assert not refusals.has_room
        sockets[0].says(None)
        await tasks[0]
        assert len(refusals) == 1
        await tasks[1]
        assert len(refusals) == 0

    run(scene())


def test_device_that_comes_again_has_one_place() -> None:
    async def scene() -> None:
        refusals = Refusals(5, now=asyncio.get_running_loop().time)
        sockets = [FakeSocket(), FakeSocket(), FakeSocket()]
        tasks = []
        for socket in sockets:
            socket.says(HELLO, LISTEN)
            tasks.append(asyncio.create_task(refusals.refuse(socket, WHO, "full", "s")))
            await asyncio.sleep(0.5)
        assert len(refusals) == 1
        assert [socket.closed is None for socket in sockets] == [False, False, True]
        refusals.end()
        await asyncio.wait(tasks)
        assert len(refusals) == 0
        assert sockets[-1].closed
        assert sockets[-1].closed[0] == pytest.approx(1.5)

    run(scene())
