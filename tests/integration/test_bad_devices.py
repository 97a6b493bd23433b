"""Whatever a stranger sends to the port, it gets a clear end or is ignored as the protocol says, and harms nobody else."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from edge.brain.opus import OpusEncoder
from edge.gateway.framing import SHORT, TIMED
from edge.gateway.lifetime import Limits
from edge.gateway.pacing import Pace
from edge.gateway.session import SessionOptions as DeviceOptions
from models.scripted import ScriptedCompleter, ScriptedSynthesizer
from tests.integration.node import ANSWER, SPEECH, Plan, RealNode, mac, node
from tests.real_time import run

HELLO = {"type": "hello", "version": 1, "transport": "websocket", "audio_params": {"frame_duration": 60}}
LISTEN = {"type": "listen", "state": "start", "mode": "auto"}
ABORT = {"type": "abort"}
OPTIONS = DeviceOptions(limits=Limits(hello_s=0.5), send_s=0.5)
CLOSED_S = 8.0
"""How long a clear end may take: an opening has 5 s, the rest is this machine's."""


def spoken() -> list[bytes]:
    """Return a question and the silence after it as Opus packets."""
    encoder = OpusEncoder(16_000, 60, complexity=0)
    pcm = SPEECH + bytes(32 * 480)
    return [encoder.encode(pcm[at : at + 1920].ljust(1920, b"\0")) for at in range(0, len(pcm), 1920)]


class Stranger:
    """A WebSocket client that says whatever it is told to."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def say(self, *messages: Any) -> None:
        for message in messages:
            await self.connection.send(json.dumps(message) if isinstance(message, dict) else message)

    async def hears(self, kind: str, state: str = "") -> dict[str, Any]:
        """Return the next message of a kind."""
        async with asyncio.timeout(CLOSED_S):
            while True:
                raw = await self.connection.recv()
                message = json.loads(raw) if isinstance(raw, str) else {}
                if (message.get("type"), message.get("state", "")) == (kind, state):
                    return message

    async def is_closed_with(self) -> int:
        """Return the close code, once the server closed."""
        async with asyncio.timeout(CLOSED_S):
            try:
                while True:
                    await self.connection.recv()
            except ConnectionClosed:
                return self.connection.close_code or 0

    async def is_answered(self) -> None:
        """Hold one turn: the connection is as good as new."""
        await self.say(LISTEN, *spoken())
        await self.hears("stt")
        await self.hears("tts", "start")
        await self.hears("tts", "stop")


@asynccontextmanager
async def stranger(here: RealNode, name: str, *, version: str = "1") -> AsyncGenerator[Stranger, None]:
    headers = {"Device-Id": name, "Client-Id": "c", "Protocol-Version": version}
    async with connect(
        here.url, additional_headers=headers, ping_interval=None, proxy=None, compression=None
    ) as connection:
        yield Stranger(connection)


@asynccontextmanager
async def greeted(here: RealNode, name: str, *, version: str = "1") -> AsyncGenerator[Stranger, None]:
    async with stranger(here, name, version=version) as it:
        await it.say(HELLO)
        await it.hears("hello")
        yield it


@asynccontextmanager
async def raw(here: RealNode) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter], None]:
    reader, writer = await asyncio.open_connection(*here.address)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


def opening(name: str, **headers: str) -> bytes:
    """Return a WebSocket request."""
    fields = {
        "Host": "127.0.0.1",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA==",
        "Protocol-Version": "1",
        "Device-Id": name,
        **headers,
    }
    lines = ["GET /xiaozhi/v1/ HTTP/1.1", *(f"{key}: {value}" for key, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode()


async def the_end(reader: asyncio.StreamReader) -> bytes:
    """Return everything the server still says before it hangs up."""
    async with asyncio.timeout(CLOSED_S):
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


# What strangers do


async def lies_about_lengths(here: RealNode, name: str) -> None:
    for version, head in ((TIMED, ">HHIII"), (SHORT, ">BBH")):
        biggest = 2**32 - 1 if version == TIMED else 2**16 - 1
        async with greeted(here, f"{name}-{version}", version=str(version)) as it:
            for claim in (0, 1, 4, 6, 200, biggest):
                fields = (2, 0, 0, 0, claim) if version == TIMED else (0, 0, claim)
                await it.say(struct.pack(head, *fields) + b"12345")
            await it.say(b"", b"\0", b"\0" * 3, b"\xff" * 40)
            right = (2, 0, 0, 0) if version == TIMED else (0, 0)
            await it.say(LISTEN, *(struct.pack(head, *right, len(packet)) + packet for packet in spoken()))
            await it.hears("tts", "start")
            assert await it.hears("tts", "stop")
    assert here.seen.violations.count("bad-frame") >= 2 * 9


async def lies_for_ever(here: RealNode, name: str) -> None:
    async with greeted(here, name, version="3") as it:
        await it.say(*[b"\0\0\xff\xff" for _ in range(60)])
        assert await it.is_closed_with() == 1002


async def sends_noise_as_opus(here: RealNode, name: str) -> None:
    dice = random.Random(5)
    async with greeted(here, name) as it:
        await it.say(LISTEN)
        await it.say(*[dice.randbytes(dice.choice([1, 2, 3, 60, 1275, 3999, 4000, 4001])) for _ in range(40)])
        await it.say(ABORT)
        await it.hears("tts", "stop")
        await it.is_answered()


SHAPES = [
    "",
    " ",
    "null",
    "1",
    "[]",
    '"hello"',
    "{}",
    "{",
    '{"type":null}',
    '{"type":7}',
    '{"type":["listen"]}',
    '{"type":"unknown"}',
    '{"type":"listen"}',
    '{"type":"listen","state":"jump"}',
    '{"type":"listen","state":"start","mode":"loud"}',
    '{"type":"listen","state":"detect","text":5}',
    '{"type":"abort","reason":{}}',
    '{"type":"mcp"}',
    '{"type":"mcp","payload":[]}',
    '{"type":"iot","descriptors":[]}',
    '{"type":"listen","type":"abort","state":9}',
    '{"type":"listen","state":"start","mode":' + "9" * 400 + "}",
    "[" * 30_000,
    '{"a":' * 6_000,
    '{"type":"\\ud800"}',
    "\x00",
    '{"type":"tts","state":"start"}',
]


async def sends_json_of_wrong_shapes(here: RealNode, name: str) -> None:
    async with greeted(here, name) as it:
        await it.say(*SHAPES)
        await it.is_answered()


async def speaks_before_hello(here: RealNode, name: str) -> None:
    async with stranger(here, name) as it:
        await it.say(LISTEN, ABORT, *spoken())
        await it.say(HELLO)
        await it.hears("hello")
        await it.is_answered()


async def never_says_hello(here: RealNode, name: str) -> None:
    async with stranger(here, name) as it:
        assert await it.is_closed_with() == 1002


async def says_hello_twice(here: RealNode, name: str) -> None:
    async with greeted(here, name) as it:
        await it.say(HELLO, {**HELLO, "version": 3})
        await it.is_answered()
    assert "hello-twice" in here.seen.violations


async def says_a_hello_nobody_can_serve(here: RealNode, name: str) -> None:
    hellos: list[dict[str, Any]] = [
        {**HELLO, "transport": "udp"},
        {**HELLO, "audio_params": {"format": "pcm"}},
        {**HELLO, "audio_params": {"frame_duration": 61}},
        {**HELLO, "audio_params": []},
        {**HELLO, "version": "one"},
    ]
    for number, hello in enumerate(hellos):
        async with stranger(here, f"{name}-{number}") as it:
            await it.say(hello)
            assert await it.is_closed_with() == 1002


async def sends_too_much_text(here: RealNode, name: str) -> None:
    async with greeted(here, name) as it:
        await it.say({"type": "listen", "state": "detect", "text": "x" * 33_000}, "x" * 40_000)
        await it.is_answered()
    assert "text-too-large" in here.seen.violations


async def sends_too_large_a_message(here: RealNode, name: str) -> None:
    for message in ("x" * 70_000, bytes(70_000)):
        async with greeted(here, f"{name}-{type(message).__name__}") as it:
            await it.say(message)
            assert await it.is_closed_with() == 1009


async def sends_no_text_as_text(here: RealNode, name: str) -> None:
    async with raw(here) as (reader, writer):
        writer.write(opening(name))
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"\x81\x82\0\0\0\0\xff\xfe")
        assert struct.pack(">H", 1007) in await the_end(reader)


async def breaks_the_rules_of_websockets(here: RealNode, name: str) -> None:
    frames = {
        "unmasked": b"\x81\x02{}",
        "reserved opcode": b"\x83\x80\0\0\0\0",
        "reserved bit": b"\xc1\x80\0\0\0\0",
        "continues nothing": b"\x80\x80\0\0\0\0",
        "long ping": b"\x89\xfe\x01\x00\0\0\0\0" + bytes(256),
    }
    for number, frame in enumerate(frames.values()):
        async with raw(here) as (reader, writer):
            writer.write(opening(f"{name}-{number}"))
            await reader.readuntil(b"\r\n\r\n")
            writer.write(frame)
            assert struct.pack(">H", 1002) in await the_end(reader)


async def speaks_no_http(here: RealNode, name: str) -> None:
    dice = random.Random(7)
    for bytes_sent in (dice.randbytes(300), b"\r\n" * 50, b"SSH-2.0-OpenSSH\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b""):
        async with raw(here) as (reader, writer):
            writer.write(bytes_sent)
            writer.write_eof()
            answer = await the_end(reader)
            assert not answer or answer.startswith(b"HTTP/1.1 4"), answer


async def sends_headers_nobody_allows(here: RealNode, name: str) -> None:
    requests = [
        opening(name).replace(b"Device-Id", b"X-Nothing"),
        opening("a" * 65),
        opening("a b"),
        opening(name, **{"Protocol-Version": "4"}),
        opening(name, Authorization="Bearer " + "x" * 2000),
        opening(name).replace(b"Host:", b"Device-Id: another\r\nHost:"),
    ]
    for request in requests:
        async with raw(here) as (reader, writer):
            writer.write(request)
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 400"), head
            assert b"Traceback" not in head + await the_end(reader)
    async with raw(here) as (reader, writer):
        writer.write(opening(name, **{"X-Long": "x" * 100_000}))
        answer = await the_end(reader)
        assert not answer or answer.startswith(b"HTTP/1.1 4"), answer[:100]


async def types_as_fast_as_it_can(here: RealNode, name: str) -> None:
    async with greeted(here, name) as it:
        await it.say(*['{"type":"ping"}'] * 400)
        await it.is_answered()


async def starts_and_stops_and_interrupts_without_end(here: RealNode, name: str) -> None:
    dice = random.Random(11)
    stop = {"type": "listen", "state": "stop"}
    wakes = [{"type": "listen", "state": "detect", "text": text} for text in ("你好小智", "讲一个很长的解释", "")]
    modes = [{**LISTEN, "mode": mode} for mode in ("auto", "manual", "realtime")]
    async with greeted(here, name) as it:
        for _ in range(150):
            await it.say(dice.choice([ABORT, stop, *wakes, *modes]), *dice.sample(spoken(), 2))
        await it.say(ABORT)
        await here.until(lambda: not here.work)
        await it.is_answered()


async def interrupts_without_reading(here: RealNode, name: str) -> None:
    async with deaf(here, name) as writer:
        with_abort = frame(json.dumps(ABORT).encode())
        while not writer.transport.is_closing():
            writer.write(with_abort * 100)
            await asyncio.sleep(0.02)
            if here.seen.ends.count("device-too-slow"):
                break
    assert "device-too-slow" in here.seen.ends


async def sends_its_request_a_byte_at_a_time(here: RealNode, name: str) -> None:
    async with raw(here) as (reader, writer):
        ending = asyncio.create_task(the_end(reader))
        for byte in opening(name):
            writer.write(bytes([byte]))
            await asyncio.wait([ending], timeout=0.2)
            if ending.done():
                break
        assert ending.done(), "it was let go on for ever"
        assert not (await ending).startswith(b"HTTP/1.1 101")


async def hangs_up_in_the_middle_of_anything(here: RealNode, name: str) -> None:
    whole = opening(name) + frame(json.dumps(HELLO).encode()) + frame(json.dumps(LISTEN).encode())
    for cut in (0, 1, 20, len(opening(name)) - 1, len(opening(name)), len(opening(name)) + 3, len(whole)):
        async with raw(here) as (_, writer):
            writer.write(whole[:cut])
            await writer.drain()


def frame(payload: bytes) -> bytes:
    """Return a masked text frame."""
    assert len(payload) < 126
    return bytes([0x81, 0x80 | len(payload)]) + bytes(4) + payload


@asynccontextmanager
async def deaf(here: RealNode, name: str) -> AsyncGenerator[asyncio.StreamWriter, None]:
    """Give a greeted device that reads nothing any more, through a window as small as the kernel allows."""
    plain = socket.socket()
    plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    plain.setblocking(False)
    await asyncio.get_running_loop().sock_connect(plain, here.address)
    reader, writer = await asyncio.open_connection(sock=plain, limit=512)
    try:
        writer.write(opening(name))
        await reader.readuntil(b"\r\n\r\n")
        writer.write(frame(json.dumps({"type": "hello", "transport": "websocket"}).encode()))
        writer.write(frame(json.dumps(LISTEN).encode()))
        yield writer
    finally:
        writer.transport.abort()


Attack = Callable[[RealNode, str], Awaitable[None]]
QUICK: tuple[Attack, ...] = (
    lies_about_lengths,
    lies_for_ever,
    sends_noise_as_opus,
    sends_json_of_wrong_shapes,
    speaks_before_hello,
    never_says_hello,
    says_hello_twice,
    says_a_hello_nobody_can_serve,
    sends_too_much_text,
    sends_too_large_a_message,
    sends_no_text_as_text,
    breaks_the_rules_of_websockets,
    speaks_no_http,
    sends_headers_nobody_allows,
    types_as_fast_as_it_can,
    starts_and_stops_and_interrupts_without_end,
    hangs_up_in_the_middle_of_anything,
)
SLOW: tuple[Attack, ...] = (interrupts_without_reading, sends_its_request_a_byte_at_a_time)


def plan() -> Plan:
    return Plan(edge=ScriptedCompleter(unknown="好的。", first_token_s=0.05), device_options=OPTIONS)


def name_of(attack: Attack) -> str:
    name: str = attack.__name__  # type: ignore[attr-defined]  # each is a function
    return name


@pytest.mark.parametrize("attack", QUICK, ids=name_of)
def test_a_device_that(attack: Attack) -> None:
    async def work() -> None:
        async with node(plan()) as here:
            await attack(here, "stranger")
        assert "broken" not in here.seen.ends

    run(work())


def test_all_of_them_at_once_harm_no_well_behaved_device() -> None:
    async def dared(here: RealNode, attack: Attack) -> None:
        try:
            await attack(here, name_of(attack)[:40])
        except BaseException as error:
            error.add_note(name_of(attack))
            raise

    async def behaves(here: RealNode, number: int) -> None:
        async with here.device(number) as device:
            for _ in range(3):
                turn = await device.ask(SPEECH)
                assert here.is_well(turn), turn

    async def work() -> None:
        async with node(plan()) as here, asyncio.TaskGroup() as tasks:
            for number in range(3):
                tasks.create_task(behaves(here, number))
            for attack in (*QUICK, *SLOW):
                tasks.create_task(dared(here, attack))
        assert "broken" not in here.seen.ends

    run(work(), timeout_s=60)


def test_a_device_that_never_reads_a_long_answer_is_dropped() -> None:
    async def work() -> None:
        quick = Plan(
            edge=ScriptedCompleter(unknown=ANSWER * 20),
            synthesizer=ScriptedSynthesizer(ms_per_character=2_000),
            # Sixty times as fast as anybody hears: so the buffers on the way are full in a second.
            device_options=DeviceOptions(send_s=0.5, pace=Pace(frame_s=0.001)),
        )
        async with node(quick) as here, deaf(here, "deaf") as writer:
            for packet in spoken():
                writer.write(bytes([0x82, 0xFE]) + struct.pack(">H", len(packet)) + bytes(4) + packet)
            await here.until(lambda: here.work, 5)
            await here.until(lambda: here.seen.ends, 20)
            await here.until(lambda: not here.work and not here.brain.sessions)
        assert here.seen.ends == ["device-too-slow"]

    run(work())


def test_fifty_devices_connect_at_once() -> None:
    async def work() -> None:
        async with node() as here:
            gate = asyncio.Barrier(50)

            async def one(number: int) -> None:
                async with here.device(number):
                    await gate.wait()
                    assert here.gateway.active_devices == 50

            async with asyncio.TaskGroup() as tasks:
                for number in range(50):
                    tasks.create_task(one(number))
        assert (here.seen.refusals, here.seen.ends) == ([], ["device-gone"] * 50)

    run(work())


def test_more_than_there_is_room_for_are_turned_away_and_the_others_served() -> None:
    async def work() -> None:
        full = plan()
        full.max_devices = 10
        async with node(full) as here:
            served = asyncio.Barrier(10)
            refusals: list[int] = []

            async def one(number: int) -> None:
                try:
                    async with greeted(here, mac(number)) as it:
                        await it.is_answered()
                        await served.wait()
                except InvalidStatus as error:
                    refusals.append(error.response.status_code)
                except ConnectionClosed as error:
                    refusals.append(error.rcvd.code if error.rcvd else 0)

            async with asyncio.TaskGroup() as tasks:
                for number in range(50):
                    tasks.create_task(one(number))
            assert len(refusals) == 40
            assert set(refusals) <= {503, 1013}

    run(work())
