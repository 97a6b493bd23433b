from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest

from benchmarks.load_device import ANSWER_S, END_S, HELLO_S, LoadDevice, Microphone, Sound, TurnSample
from tests.virtual_time import run

SOUND = Sound(lead=(b"l",), speech=(b"s1", b"s2", b"rest"), voiced_packets=2, silence=b"-")
HEADER_BYTES = 6
"""Of a masked frame of at most 125 bytes."""


class Wire:
    def __init__(self) -> None:
        self.sent: list[tuple[float, bytes]] = []
        self.is_closed = False

    def send(self, message: bytes) -> None:
        self.sent.append((asyncio.get_running_loop().time(), message))

    def hang_up(self) -> None:
        self.is_closed = True

    def packets(self) -> list[bytes]:
        return [message[HEADER_BYTES:] for _, message in self.sent if message[0] == 0x82]

    def texts(self) -> list[Any]:
        return [msgspec.json.decode(message[message.index(b"{") :]) for _, message in self.sent if message[0] == 0x81]


class Told:
    def __init__(self) -> None:
        self.greetings: list[int] = []
        self.samples: list[TurnSample] = []
        self.faults: list[str] = []
        self.is_gone = False

    def greeted(self, device: int) -> None:
        self.greetings.append(device)

    def held(self, sample: TurnSample) -> None:
        self.samples.append(sample)

    def failed(self, device: int, fault: str, detail: str) -> None:
        self.faults.append(fault)

    def gone(self, device: int) -> None:
        self.is_gone = True


Scene = Callable[["Bench"], Coroutine[Any, Any, None]]


class Bench:
    """A device on virtual time whose server is the test."""

    def __init__(self, *, speaks: bool = True, pause_s: float = 0.0) -> None:
        self.loop = asyncio.get_running_loop()
        self.told, self.wire = Told(), Wire()
        self.device = LoadDevice(
            7,
            Microphone(SOUND),
            self.told,
            speaks=speaks,
            pause_s=pause_s,
            began_s=self.loop.time(),
            now=self.loop.time,
        )
        self.device.wire = self.wire

    def say(self, **message: Any) -> None:
        self.device.heard_text(msgspec.json.encode(message), self.loop.time())

    def greet(self) -> None:
        self.device.connect()
        self.device.opened(self.loop.time())
        self.say(type="hello", session_id="s", transport="websocket")

    def play(self, packets: int = 1) -> None:
        for _ in range(packets):
            self.device.heard_packet(100, self.loop.time())

    async def speak(self) -> None:
        """Let the device say its sentence: 120 ms of warm-up, then a frame every 60 ms, the third is the last audible."""
        await asyncio.sleep(0.12 + 2 * 0.06 + 0.03)


def on_virtual_time(scene: Scene, *, speaks: bool = True, pause_s: float = 0.0) -> Bench:
    async def play() -> Bench:
        bench = Bench(speaks=speaks, pause_s=pause_s)
        try:
            await scene(bench)
        finally:
            bench.device.leave()
        return bench

    return run(play())


def test_an_answered_turn_is_measured_from_the_last_audible_frame_and_followed_by_the_next() -> None:
    async def scene(bench: Bench) -> None:
        bench.greet()
        await bench.speak()
        await asyncio.sleep(0.47)
        bench.say(type="stt", text="hello")
        bench.say(type="tts", state="start")
        await asyncio.sleep(0.2)
        bench.play(5)
        await asyncio.sleep(0.1)
        bench.say(type="tts", state="stop")
        assert [text["type"] for text in bench.wire.texts()] == ["hello", "listen"]
        await asyncio.sleep(0.21)
        assert [text["type"] for text in bench.wire.texts()] == ["hello", "listen", "listen"]

    bench = on_virtual_time(scene)
    (sample,) = bench.told.samples
    assert sample.device == 7
    assert sample.at_s == pytest.approx(0.24)
    assert sample.transcript_ms == pytest.approx(500)
    assert sample.first_audio_ms == pytest.approx(700)
    assert (sample.packets, sample.lost, sample.underruns) == (5, 0, 0)
    assert bench.told.faults == []
    assert bench.wire.is_closed


def test_the_microphone_streams_every_60_ms_until_the_answer_and_not_while_it_sounds() -> None:
    async def scene(bench: Bench) -> None:
        bench.greet()
        await asyncio.sleep(0.12 + 5 * 0.06 + 0.03)
        assert bench.wire.packets() == [b"l", b"s1", b"s2", b"rest", b"-", b"-"]
        bench.say(type="tts", state="start")
        await asyncio.sleep(1.0)
        assert len(bench.wire.packets()) == 6

    on_virtual_time(scene)


def test_a_device_that_does_not_speak_streams_silence_and_waits_for_nothing() -> None:
    async def scene(bench: Bench) -> None:
        bench.greet()
        await asyncio.sleep(ANSWER_S + END_S + HELLO_S)

    bench = on_virtual_time(scene, speaks=False)
    assert set(bench.wire.packets()) == {b"-"}
    assert bench.told.faults == []


def test_a_pause_is_silence_before_the_question_and_the_marks_begin_at_the_question() -> None:
    async def scene(bench: Bench) -> None:
        bench.greet()
        await asyncio.sleep(0.12 + 6.0 + 5 * 0.06)
        bench.say(type="stt", text="hello")
        bench.say(type="tts", state="start")
        bench.play()
        bench.say(type="tts", state="stop")

    bench = on_virtual_time(scene, pause_s=3.0)
    packets = bench.wire.packets()
    pause = packets.index(b"l")
    assert 0 < pause <= 100
    assert packets[:pause] == [b"-"] * pause
    (sample,) = bench.told.samples
    assert sample.at_s == pytest.approx(0.24 + pause * 0.06)


def test_its_tools_are_listed_once_asked_for() -> None:
    async def scene(bench: Bench) -> None:
        bench.greet()
        bench.say(type="mcp", payload={"jsonrpc": "2.0", "id": 3, "method": "tools/list"})
        bench.say(type="mcp", payload={"jsonrpc": "2.0", "id": 4, "method": "else"})
        bench.say(type="mcp", payload={"jsonrpc": "2.0", "method": "notifications/x"})
        listed, unknown = bench.wire.texts()[2:]
        assert listed["payload"]["result"]["tools"]
        assert unknown["payload"]["error"]

    on_virtual_time(scene)


async def _no_hello(bench: Bench) -> None:
    bench.device.connect()
    await asyncio.sleep(HELLO_S + 0.1)


async def _no_answer(bench: Bench) -> None:
    bench.greet()
    await bench.speak()
    await asyncio.sleep(ANSWER_S + 0.1)


async def _no_end(bench: Bench) -> None:
    bench.greet()
    await bench.speak()
    bench.say(type="tts", state="start")
    await asyncio.sleep(END_S + 0.1)


async def _refused(bench: Bench) -> None:
    bench.device.connect()
    bench.device.closed("answered 503")


async def _unreachable(bench: Bench) -> None:
    bench.device.connect()
    bench.device.unreachable("ConnectionRefusedError")


async def _closed(bench: Bench) -> None:
    bench.greet()
    bench.device.closed("")


@pytest.mark.parametrize(
    ("scene", "fault"),
    [
        (_no_hello, "no-hello"),
        (_no_answer, "no-answer"),
        (_no_end, "unended"),
        (_refused, "refused"),
        (_closed, "closed"),
        (_unreachable, "unreachable"),
    ],
)
def test_a_device_that_is_left_alone_gives_up_and_says_why(scene: Scene, fault: str) -> None:
    bench = on_virtual_time(scene)
    assert (bench.told.faults, bench.told.is_gone) == ([fault], True)
    assert bench.wire.is_closed


async def _early(bench: Bench) -> None:
    bench.greet()
    bench.say(type="stt", text="x")
    bench.say(type="tts", state="start")
    bench.play()
    bench.say(type="tts", state="stop")


async def _silent(bench: Bench) -> None:
    bench.greet()
    await bench.speak()
    bench.say(type="stt", text="x")
    bench.say(type="tts", state="start")
    bench.say(type="tts", state="stop")


async def _alert(bench: Bench) -> None:
    bench.greet()
    await bench.speak()
    bench.say(type="stt", text="x")
    bench.say(type="tts", state="start")
    bench.say(type="alert", status="Error", message="x", emotion="sad")
    bench.say(type="tts", state="stop")


@pytest.mark.parametrize(("scene", "fault"), [(_early, "early"), (_silent, "silent"), (_alert, "alert")])
def test_a_turn_that_fails_is_counted_and_the_device_goes_on(scene: Scene, fault: str) -> None:
    async def and_on(bench: Bench) -> None:
        await scene(bench)
        await asyncio.sleep(0.5)
        assert [text["type"] for text in bench.wire.texts()].count("listen") == 2

    bench = on_virtual_time(and_on)
    assert (bench.told.faults, bench.told.is_gone) == ([fault], False)
    assert bench.told.samples == []


def test_an_alert_while_listening_lets_the_device_say_it_again() -> None:
    async def scene(bench: Bench) -> None:
        bench.greet()
        await bench.speak()
        bench.say(type="alert", status="Error", message="x", emotion="sad")
        await bench.speak()
        assert bench.wire.packets().count(b"s2") == 2

    bench = on_virtual_time(scene)
    assert (bench.told.faults, bench.told.is_gone) == (["alert"], False)


def test_a_refusal_told_by_an_alert_is_one_fault_of_a_device_that_is_gone() -> None:
    async def scene(bench: Bench) -> None:
        bench.greet()
        bench.say(type="alert", status="Error", message="full", emotion="sad")
        bench.device.closed("closed with 1013")

    bench = on_virtual_time(scene)
    assert (bench.told.faults, bench.told.is_gone) == (["alert"], True)
