from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import struct
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from coordinator.memory_bus import MemoryBus
from edge import seam
from edge.gateway.lifetime import Limits
from edge.gateway.observer import DeafObserver
from edge.gateway.pacing import Pace
from edge.gateway.refusal import Patience
from edge.gateway.server import Gateway
from edge.gateway.session import SessionOptions
from models.errors import ConfigError, DeviceAuthError
from tests import virtual_time
from tests.real_time import run

MAC = "aa:bb:cc:00:11:22"
HELLO = json.dumps({"type": "hello", "version": 1, "transport": "websocket"})
LISTEN = json.dumps({"type": "listen", "state": "start", "mode": "auto"})
ABORT = json.dumps({"type": "abort"})
HURRY = Patience(read_s=0.05)


class Doorman:
    def check(self, device_id: str, client_id: str, token: str) -> None:
        if token != "good":
            raise DeviceAuthError(f"{device_id}: wrong token")


class Counting(DeafObserver):
    def __init__(self) -> None:
        self.seen: list[str] = []
        self.count = 0
        self.changed = asyncio.Event()

    def _note(self, what: str) -> None:
        self.seen.append(what)
        self.changed.set()

    def devices(self, count: int) -> None:
        self.count = count
        self._note(f"{count} devices")

    def refused(self, code: str) -> None:
        self._note(code)

    def ended(self, reason: str) -> None:
        self._note(reason)

    def dropped(self, kind: str) -> None:
        self._note(kind)

    def violation(self, code: str) -> None:
        self._note(code)

    async def until(self, what: str) -> None:
        while what not in self.seen:
            self.changed.clear()
            await self.changed.wait()


class Site:
    """A gateway on loopback with the brain's end of the bus in our hands."""

    def __init__(self, gateway: Gateway, bus: MemoryBus, seen: Counting) -> None:
        self.gateway, self.bus, self.seen = gateway, bus, seen
        self.up: asyncio.Queue[seam.UpMessage] = asyncio.Queue()

    @property
    def url(self) -> str:
        return "ws://{}:{}/xiaozhi/v1/".format(*self.gateway.address)

    async def told(self, kind: type[Any]) -> Any:
        while not isinstance(message := await self.up.get(), kind):
            pass
        return message

    async def answers(self, message: seam.DownMessage | seam.BrainBeat | bytes, subject: str = "") -> None:
        payload = message if isinstance(message, bytes) else seam.encode(message)
        await self.bus.publish(subject or seam.down_subject("n1"), payload)

    @asynccontextmanager
    async def device(self, **headers: str) -> AsyncGenerator[ClientConnection, None]:
        headers = {"Device-Id": MAC, "Client-Id": "c", "Authorization": "Bearer good", **headers}
        async with connect(
            self.url,
            additional_headers={k.replace("_", "-"): v for k, v in headers.items()},
            ping_interval=None,
            proxy=None,
        ) as connection:
            yield connection

    @asynccontextmanager
    async def raw(self, **headers: str) -> AsyncGenerator[RawDevice, None]:
        device = RawDevice(await asyncio.open_connection(*self.gateway.address, limit=2**16), self.gateway.address[0])
        await device.open(**headers)
        try:
            yield device
        finally:
            device.writer.close()


class RawDevice:
    """A WebSocket client as stock firmware writes it: no port in Host, no extensions, never closes properly."""

    def __init__(self, streams: tuple[asyncio.StreamReader, asyncio.StreamWriter], host: str) -> None:
        self.reader, self.writer = streams
        self.host = host
        self.answer = ""

    async def open(self, **headers: str) -> None:
        fields = {
            "Host": self.host,
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
            "Authorization": "Bearer good",
            "Protocol-Version": "1",
            "Device-Id": MAC,
            "Client-Id": "c",
            **headers,
        }
        lines = ["GET /xiaozhi/v1/ HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        self.writer.write("\r\n".join(lines).encode())
        self.answer = (await self.reader.readuntil(b"\r\n\r\n")).decode()

    def send(self, message: str | bytes, *, claim: int | None = None) -> None:
        """Send one masked frame; ``claim`` lies about its length."""
        payload = message.encode() if isinstance(message, str) else message
        head = bytes([0x81 if isinstance(message, str) else 0x82])
        size = len(payload) if claim is None else claim
        head += bytes([0x80 | size]) if size < 126 else bytes([0xFE]) + struct.pack(">H", size)
        self.writer.write(head + b"\0\0\0\0" + payload)

    async def frame(self) -> tuple[int, bytes]:
        """Return opcode and payload of the next frame."""
        first, size = await self.reader.readexactly(2)
        if size == 126:
            (size,) = struct.unpack(">H", await self.reader.readexactly(2))
        return first & 15, await self.reader.readexactly(size)


@asynccontextmanager
async def site(**options: Any) -> AsyncGenerator[Site, None]:
    bus, seen = MemoryBus(), Counting()
    options = {"port": 0, "observer": seen, "authenticator": Doorman(), **options}
    async with bus.subscribe(seam.up_subject("n1"), max_pending=100_000) as line:
        async with Gateway(bus, node_id="n1", host="127.0.0.1", **options) as gateway:
            here = Site(gateway, bus, seen)

            async def listen() -> None:
                async for message in line:
                    here.up.put_nowait(seam.decode_up(message.payload))

            listener = asyncio.create_task(listen())
            try:
                yield here
            finally:
                listener.cancel()
                await asyncio.wait([listener])
        assert gateway.active_devices == 0


def test_stock_device_is_served_from_upgrade_to_hanging_up() -> None:
    async def play() -> None:
        async with site() as here:
            async with here.raw() as device:
                assert device.answer.startswith("HTTP/1.1 101")
                assert "extensions" not in device.answer.lower()
                device.send(HELLO)
                opcode, hello = await device.frame()
                assert opcode == 1
                assert json.loads(hello)["transport"] == "websocket"
                opened = await here.told(seam.SessionOpened)
                assert (opened.device_id, opened.client_id) == (MAC, "c")
                assert json.loads(hello)["session_id"] == opened.session_id
                device.send(LISTEN)
                device.send(b"\x00")
                assert (await here.told(seam.AudioUp)).packet == b"\x00"
                await here.answers(seam.Heard(session_id=opened.session_id, turn_id="t", text="你好"))
                assert json.loads((await device.frame())[1])["type"] == "stt"
                assert json.loads((await device.frame())[1])["state"] == "start"
                assert here.gateway.active_devices == 1
            await here.told(seam.SessionClosed)
            await here.seen.until("device-gone")
            assert here.gateway.active_devices == 0

    run(play())


def test_compression_is_never_negotiated() -> None:
    async def play() -> None:
        async with site() as here, here.device() as device:
            assert device.response
            assert "Sec-WebSocket-Extensions" not in device.response.headers

    run(play())


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({"Authorization": "Bearer bad"}, 401, "device-auth"),
        ({"Authorization": "Basic good"}, 401, "device-auth"),
        ({"Device_Id": "a b"}, 400, "bad-header"),
        ({"Protocol_Version": "9"}, 400, "bad-header"),
    ],
)
def test_stranger_is_refused_before_the_upgrade_with_short_json(
    headers: dict[str, str], status: int, code: str
) -> None:
    async def play() -> None:
        async with site() as here:
            with pytest.raises(InvalidStatus) as refusal:
                async with here.device(**headers):
                    pass
            response = refusal.value.response
            assert response.status_code == status
            assert response.headers["Content-Type"] == "application/json"
            assert json.loads(response.body)["error"] == code
            assert len(response.body) < 300
            assert here.seen.seen == [code]

    run(play())


async def is_told(device: ClientConnection) -> dict[str, str]:
    """Behave as firmware does and return the alert; the socket is closed for a later try."""
    await device.send(HELLO)
    assert json.loads(await device.recv())["type"] == "hello"
    await device.send(LISTEN)
    alert = json.loads(await device.recv())
    with pytest.raises(ConnectionClosed) as closed:
        await device.recv()
    assert closed.value.rcvd
    assert closed.value.rcvd.code == 1013
    return {**alert, "reason": closed.value.rcvd.reason}


def test_full_node_tells_a_device_so_but_a_known_one_may_return() -> None:
    async def play() -> None:
        async with site(max_devices=1, patience=HURRY) as here, here.device() as device:
            await device.send(HELLO)
            await here.told(seam.SessionOpened)
            async with here.device(Device_Id="another", Accept_Language="en") as another:
                alert = await is_told(another)
            assert (alert["type"], alert["status"], alert["reason"]) == ("alert", "Busy", "full")
            assert here.seen.seen.count("full") == 1
            assert here.up.empty()
            assert here.gateway.active_devices == 1
            async with here.device() as again:
                await here.seen.until("replaced")
                await again.send(HELLO)
                await here.told(seam.SessionOpened)

    run(play())


def test_draining_node_tells_newcomers_so_until_it_is_left() -> None:
    async def play() -> None:
        async with site(patience=HURRY) as here, here.device() as device:
            await device.send(HELLO)
            await here.told(seam.SessionOpened)
            await here.gateway.drain(0.1)
            assert not here.gateway.is_ready
            async with here.device() as late:
                alert = await is_told(late)
            assert (alert["status"], alert["reason"]) == ("维护中", "draining")

    run(play())


def test_leaving_ends_those_who_are_being_told() -> None:
    async def play() -> None:
        async with site(max_devices=0) as here:
            device = RawDevice(await asyncio.open_connection(*here.gateway.address), "127.0.0.1")
            await device.open()
            device.send(HELLO)
            await device.frame()
            device.send(LISTEN)
            assert json.loads((await device.frame())[1])["type"] == "alert"
        assert await device.frame() == (8, struct.pack(">H", 1013) + b"full")
        device.writer.close()

    run(play(), timeout_s=3)


def test_beyond_those_who_are_told_a_full_node_refuses_before_the_upgrade() -> None:
    async def play() -> None:
        async with site(max_devices=0, max_refusing=1) as here, here.device() as told:
            await told.send(HELLO)
            await told.recv()
            with pytest.raises(InvalidStatus) as refusal:
                async with here.device(Device_Id="another"):
                    pass
            assert refusal.value.response.status_code == 503
            assert json.loads(refusal.value.response.body)["error"] == "full"

    run(play())


def test_stranger_is_not_told_that_a_node_is_full() -> None:
    async def play() -> None:
        async with site(max_devices=0) as here:
            with pytest.raises(InvalidStatus) as refusal:
                async with here.device(Authorization="Bearer bad"):
                    pass
            assert refusal.value.response.status_code == 401

    run(play())


def test_connections_that_do_not_greet_leave_room_for_few_more() -> None:
    async def play() -> None:
        async with site(max_greeting=1) as here, here.device():
            await here.seen.until("1 devices")
            with pytest.raises(InvalidStatus) as refusal:
                async with here.device(Device_Id="another"):
                    pass
            assert json.loads(refusal.value.response.body)["error"] == "busy"

    run(play())


def test_device_that_connects_twice_keeps_the_newer_connection() -> None:
    async def play() -> None:
        async with site() as here, here.device() as old:
            await old.send(HELLO)
            first = await here.told(seam.SessionOpened)
            async with here.device() as new:
                await new.send(HELLO)
                second = await here.told(seam.SessionOpened)
                assert second.session_id != first.session_id
                await old.wait_closed()
                await here.seen.until("replaced")
                assert old.close_code == 1000
                assert here.gateway.active_devices == 1
                await new.send(LISTEN)
                assert (await here.told(seam.ListenStarted)).session_id == second.session_id

    run(play())


@pytest.mark.parametrize(
    ("send", "code", "reason"),
    [
        (lambda device: device.send(b"x" * 65_537), 1009, "device-gone"),
        (lambda device: device.send([b"x" * 40_000, b"x" * 40_000]), 1009, "device-gone"),
        (lambda device: device.send(b"\xff\xfe", text=True), 1007, "device-gone"),
        (lambda device: device.send('{"type":"hello","transport":"udp"}'), 1002, "device-protocol"),
    ],
)
def test_broken_peer_gets_its_close_code_and_harms_nobody(send: Any, code: int, reason: str) -> None:
    async def play() -> None:
        async with site() as here, here.device(Device_Id="neighbour") as neighbour, here.device() as device:
            await neighbour.send(HELLO)
            await neighbour.recv()
            await send(device)
            with pytest.raises(ConnectionClosed) as closed:
                await device.recv()
            assert closed.value.rcvd
            assert closed.value.rcvd.code == code
            assert "Traceback" not in closed.value.rcvd.reason
            await neighbour.send(LISTEN)
            await here.told(seam.ListenStarted)
            await here.seen.until(reason)
            assert here.gateway.active_devices == 1

    run(play())


def test_peer_that_breaks_the_protocol_and_stays_is_thrown_out() -> None:
    async def play() -> None:
        async with site() as here, here.raw() as device:
            device.send(HELLO)
            await device.frame()
            device.writer.write(b"\x82\xff" + struct.pack(">Q", 2**40) + b"\0\0\0\0")
            opcode, payload = await device.frame()
            assert (opcode, payload[:2]) == (8, struct.pack(">H", 1009))
            await here.seen.until("device-gone")

    run(play())


@pytest.mark.parametrize("version", ["2", "3"])
def test_lying_length_in_an_audio_header_is_dropped_and_the_session_lives(version: str) -> None:
    async def play() -> None:
        async with site() as here, here.device(Protocol_Version=version) as device:
            await device.send(HELLO)
            await device.recv()
            for lie in (b"", b"\0", b"\0\2\0\0" * 8, b"\0\0\xff\xffopus"):
                await device.send(lie)
            await device.send(LISTEN)
            await here.told(seam.ListenStarted)
            assert here.seen.seen.count("bad-frame") == 4

    run(play())


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc" + bytes(200) + b"\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"POST /xiaozhi/ota/ HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n",
        b"\r\n\r\n",
    ],
)
def test_what_is_no_websocket_is_hung_up_on(request_bytes: bytes) -> None:
    async def play() -> None:
        async with site() as here:
            reader, writer = await asyncio.open_connection(*here.gateway.address)
            writer.write(request_bytes)
            answer = await reader.read()
            assert b"Traceback" not in answer
            assert not answer.startswith(b"HTTP/1.1 101")
            writer.close()
            async with here.device() as device:
                await device.send(HELLO)
                await device.recv()

    run(play())


def test_frame_that_ends_too_early_is_a_device_that_went() -> None:
    async def play() -> None:
        async with site() as here:
            async with here.raw() as device:
                device.send(HELLO)
                await device.frame()
                device.send(b"short", claim=60_000)
            await here.told(seam.SessionClosed)
            await here.seen.until("device-gone")

    run(play())


def test_device_that_says_nothing_is_sent_away_and_need_not_answer_close() -> None:
    async def play() -> None:
        options = SessionOptions(limits=Limits(hello_s=0.5))
        async with site(options=options) as here, here.raw() as device:
            assert await device.frame() == (8, struct.pack(">H", 1002) + b"hello-timeout")
            await here.seen.until("hello-timeout")
            assert await device.reader.read() == b""

    run(play())


def test_device_that_never_reads_is_dropped_while_its_neighbour_is_served() -> None:
    async def play() -> None:
        options = SessionOptions(pace=Pace(frame_s=0.001), send_s=0.3)
        async with site(options=options) as here, here.device(Device_Id="neighbour") as neighbour:
            await neighbour.send(HELLO)
            await neighbour.recv()
            deaf = socket.socket()
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.setblocking(False)
            await asyncio.get_running_loop().sock_connect(deaf, here.gateway.address)
            device = RawDevice(await asyncio.open_connection(sock=deaf, limit=1024), "127.0.0.1")
            await device.open(**{"Device-Id": "deaf"})
            device.send(HELLO)
            device.send(LISTEN)
            session_id = (await here.told(seam.ListenStarted)).session_id
            await here.answers(seam.Heard(session_id=session_id, turn_id="t", text="x"))
            for _ in range(50):
                await here.answers(seam.SpeechDown(session_id=session_id, turn_id="t", packets=(bytes(4000),) * 20))
            await here.seen.until("device-too-slow")
            await neighbour.send(LISTEN)
            await here.told(seam.ListenStarted)
            device.writer.transport.abort()

    run(play())


def test_answers_reach_only_the_session_they_name_and_garbage_reaches_none() -> None:
    async def play() -> None:
        async with site() as here, here.device() as one, here.device(Device_Id="two") as two:
            ids = []
            for device in (one, two):
                await device.send(HELLO)
                await device.recv()
                await device.send(LISTEN)
                ids.append((await here.told(seam.ListenStarted)).session_id)
            for garbage in (b"", b"\xc1", b"\x91" * 50_000, os.urandom(100), b"\x80", b"\x81\xa4kind\xa5heard"):
                await here.answers(garbage)
                await here.answers(garbage, seam.beat_subject("n1"))
            await here.answers(seam.Heard(session_id="nobody", turn_id="t", text="x"))
            await here.answers(seam.Heard(session_id=ids[1], turn_id="t", text="for two"))
            assert json.loads(await two.recv())["text"] == "for two"
            await one.send(ABORT)
            assert json.loads(await one.recv())["state"] == "stop"
            assert here.seen.seen.count("undecodable") == 12
            assert here.seen.seen.count("no-session") == 1

    run(play())


def test_leaving_ends_every_session_even_of_devices_that_never_answer() -> None:
    async def play() -> None:
        async with site() as here:
            device = RawDevice(await asyncio.open_connection(*here.gateway.address), "127.0.0.1")
            await device.open()
            device.send(HELLO)
            await device.frame()
        assert await device.frame() == (8, struct.pack(">H", 1001) + b"shutting-down")
        assert "shutting-down" in here.seen.seen
        device.writer.close()

    run(play())


def test_port_in_use_is_one_line_that_names_it() -> None:
    async def play() -> None:
        async with site() as here:
            host, port = here.gateway.address
            with pytest.raises(ConfigError, match=f"{host}:{port}"):
                async with site(port=port):
                    pass

    run(play())


def test_address_is_known_only_while_it_listens() -> None:
    gateway = Gateway(MemoryBus(), node_id="n1", authenticator=Doorman(), host="127.0.0.1", port=0)
    with pytest.raises(ConfigError):
        _ = gateway.address
    assert not gateway.is_ready


def test_brain_is_away_after_three_missed_beats_and_back_with_the_next() -> None:
    async def play() -> None:
        bus = MemoryBus()
        async with Gateway(bus, node_id="n1", authenticator=Doorman(), host="127.0.0.1", port=0) as gateway:
            await bus.publish(seam.beat_subject("n1"), seam.encode(seam.BrainBeat(brain_id="b")))
            for _ in range(5):
                await asyncio.sleep(3.2)
                assert gateway.is_ready
                await bus.publish(seam.beat_subject("n1"), seam.encode(seam.BrainBeat(brain_id="b")))
            await asyncio.sleep(4.2)
            assert gateway.is_brain_away
            assert not gateway.is_ready
            await bus.publish(seam.beat_subject("n1"), seam.encode(seam.BrainBeat(brain_id="b")))
            await asyncio.sleep(0.1)
            assert gateway.is_ready

    virtual_time.run(play())


def test_gateway_is_not_ready_before_it_heard_a_brain() -> None:
    async def play() -> None:
        bus = MemoryBus()
        async with Gateway(bus, node_id="n1", authenticator=Doorman(), host="127.0.0.1", port=0) as gateway:
            for _ in range(20):
                await asyncio.sleep(0.4)
                assert gateway.is_brain_away
                assert not gateway.is_ready
            await bus.publish(seam.beat_subject("n1"), b"garbage")
            await asyncio.sleep(0.1)
            assert not gateway.is_ready
            await bus.publish(seam.beat_subject("n1"), seam.encode(seam.BrainBeat(brain_id="b")))
            await asyncio.sleep(0.1)
            assert gateway.is_ready

    virtual_time.run(play())


class BrokenObserver(DeafObserver):
    def dropped(self, kind: str) -> None:
        raise RuntimeError(kind)


def test_gateway_that_broke_inside_is_not_ready_and_says_so_when_left() -> None:
    async def play() -> None:
        bus = MemoryBus()
        async with Gateway(
            bus, node_id="n1", authenticator=Doorman(), host="127.0.0.1", port=0, observer=BrokenObserver()
        ) as gateway:
            await bus.publish(seam.beat_subject("n1"), seam.encode(seam.BrainBeat(brain_id="b")))
            await asyncio.sleep(0.1)
            assert gateway.is_ready
            await bus.publish(seam.down_subject("n1"), b"garbage")
            await asyncio.sleep(0.1)
            assert not gateway.is_ready

    with pytest.raises(ExceptionGroup):
        virtual_time.run(play())
