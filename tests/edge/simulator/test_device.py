from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest

from edge.gateway.vision_tokens import VisionOffer
from edge.simulator.device import Camera, Device, Framing, running
from edge.simulator.firmware import Firmware, State
from models.errors import DeviceError, DeviceProtocolError
from tests.virtual_time import run

FRAME_MS = 60
SPEECH_MS = 600
SPEECH = (8000 * np.sin(np.arange(SPEECH_MS * 16) / 8)).astype("<i2").tobytes()
TAIL = bytes(32 * 300)


class Decoder:
    def __init__(self, rate_hz: int) -> None:
        self.concealed = 0
        self.rate_hz = rate_hz

    def decode(self, packet: bytes) -> bytes:
        return packet[:1] * (self.rate_hz * FRAME_MS // 1000 * 2)


class Encoder:
    def encode(self, pcm: bytes) -> bytes:
        return b"voice" if any(pcm) else b"-"


class Server:
    """The other end of the wire: keeps what the device sends and lets ``on_text`` and ``on_audio`` answer."""

    def __init__(self) -> None:
        self.inbox: asyncio.Queue[str | bytes | None] = asyncio.Queue(200)
        self.texts: list[tuple[float, dict[str, Any]]] = []
        self.audio: list[tuple[float, bytes]] = []
        self.on_text: Callable[[dict[str, Any]], None] = lambda _message: None
        self.on_quiet: Callable[[], object] = lambda: None
        self.quiet_frames = 9
        self._quiet = 0

    @property
    def now_ms(self) -> float:
        return asyncio.get_running_loop().time() * 1000

    async def send(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            self.audio.append((self.now_ms, message))
            self._quiet = self._quiet + 1 if message == b"-" else 0
            spoke = any(packet == b"voice" for _, packet in self.audio)
            if spoke and self._quiet == self.quiet_frames:
                self.on_quiet()
            return
        said = json.loads(message)
        self.texts.append((self.now_ms, said))
        if said["type"] == "hello":
            self.tell(type="hello", transport="websocket", session_id="s1")
        self.on_text(said)

    async def receive(self) -> str | bytes | None:
        return await self.inbox.get()

    def tell(self, **message: Any) -> None:
        self.inbox.put_nowait(json.dumps(message))

    def later(self, after_s: float, *messages: str | bytes | None) -> None:
        loop = asyncio.get_running_loop()
        loop.call_later(after_s, lambda: [self.inbox.put_nowait(message) for message in messages])

    def answers(self, *, packets: int = 10, lead: int = 2, after_s: float = 0.5, stops: bool = True) -> None:
        """Say stt and tts/start now, and after a while ``packets`` paced packets."""
        self.tell(type="stt", text="你好")
        self.tell(type="tts", state="start")
        self.tell(type="tts", state="sentence_start", text="你也好。")
        for number in range(packets):
            self.later(after_s + max(0, number - lead) * FRAME_MS / 1000, b"a")
        if stops:
            self.later(after_s + packets * FRAME_MS / 1000, '{"type":"tts","state":"stop"}')

    def spoken(self, kind: str) -> list[dict[str, Any]]:
        return [said for _, said in self.texts if said["type"] == kind]


@asynccontextmanager
async def greeted(server: Server, camera: Camera | None = None) -> AsyncGenerator[Device, None]:
    def plain(packet: bytes) -> bytes:
        if packet == b"lie":
            raise DeviceProtocolError("a frame that lies")
        return packet

    now = asyncio.get_running_loop().time
    firmware = Firmware(Decoder, has_camera=camera is not None)
    device = Device(server, firmware, Encoder(), Framing(pack=bytes, unpack=plain), camera=camera, now=now)
    async with running(device):
        await device.greet()
        yield device


def test_an_answered_turn_is_measured_from_the_last_audible_sample() -> None:
    async def work() -> None:
        server = Server()
        server.on_quiet = server.answers
        async with greeted(server) as device:
            turn = await device.ask(SPEECH + TAIL)
        # Nine quiet frames after the end make 540 ms; the first packet comes 500 ms later.
        assert turn.outcome == "answered"
        assert turn.transcript_ms == pytest.approx(540)
        assert turn.first_audio_ms == pytest.approx(1040)
        assert turn.stopped_ms == pytest.approx(1640)
        assert (turn.heard, turn.answer, turn.gaps_ms, turn.problems) == ("你好", "你也好。", (), ())
        assert turn.played_ms == 600
        assert turn.pcm == b"a" * (600 * 24 * 2)

    run(work())


def test_the_microphone_streams_in_real_time_until_the_answer_begins() -> None:
    async def work() -> None:
        server = Server()
        server.on_quiet = server.answers
        async with greeted(server) as device:
            await device.ask(SPEECH)
            assert device.microphone.is_on
        times = [at for at, _ in server.audio]
        assert np.diff(times[:19]) == pytest.approx([FRAME_MS] * 18)
        # It opened again after the tail of the answer: the warm-up, and one frame until the turn was closed.
        assert times[19] - times[18] == pytest.approx(500 + 600 + 120)
        assert len(times) == 20

    run(work())


def test_several_turns_share_a_connection_and_listen_is_said_once_each() -> None:
    async def work() -> None:
        server = Server()
        server.on_quiet = server.answers
        async with greeted(server) as device:
            turns = [await device.ask(SPEECH) for _ in range(3)]
        assert [turn.outcome for turn in turns] == ["answered"] * 3
        assert [turn.first_audio_ms for turn in turns] == pytest.approx([1040] * 3)
        assert [said["state"] for said in server.spoken("listen")] == ["start"] * 4

    run(work())


def test_manual_mode_releases_after_the_last_word_and_is_answered_while_idle() -> None:
    async def work() -> None:
        server = Server()
        server.on_text = lambda said: server.answers() if said.get("state") == "stop" else None
        async with greeted(server) as device:
            turn = await device.ask(SPEECH, mode="manual")
            assert device.firmware.state is State.IDLE
            again = await device.ask(SPEECH, mode="manual")
        assert (turn.outcome, again.outcome) == ("answered", "answered")
        assert turn.first_audio_ms == pytest.approx(500)
        assert [said["state"] for said in server.spoken("listen")] == ["start", "stop", "start", "stop"]
        assert len(server.audio) == 20

    run(work())


def test_realtime_mode_keeps_the_microphone_open() -> None:
    async def work() -> None:
        server = Server()
        server.on_quiet = server.answers
        async with greeted(server) as device:
            turn = await device.ask(SPEECH, mode="realtime")
            assert turn.outcome == "answered"
        assert len(server.spoken("listen")) == 1
        assert len(server.audio) > 10 + 9 + 10

    run(work())


def test_an_interruption_is_timed_and_late_packets_are_counted() -> None:
    async def work() -> None:
        server = Server()

        def obey(said: dict[str, Any]) -> None:
            if said["type"] == "abort":
                server.later(0.07, b"a", '{"type":"tts","state":"stop"}', b"a", b"a")

        server.on_quiet = lambda: server.answers(packets=8, stops=False)
        server.on_text = obey
        async with greeted(server) as device:
            turn = await device.ask(SPEECH, interrupt_after_ms=400)
        assert turn.outcome == "interrupted"
        assert turn.interruption is not None
        assert turn.interruption.stop_ms == pytest.approx(70)
        assert turn.interruption.packets_before_stop == 1
        assert turn.interruption.packets_after_stop == 2
        assert turn.problems == ("2 packets dropped: they came after tts/stop",)

    run(work())


def test_an_abort_nobody_obeys_is_a_problem() -> None:
    async def work() -> None:
        server = Server()
        server.on_quiet = lambda: server.answers(packets=10, stops=False)
        async with greeted(server) as device:
            turn = await device.ask(SPEECH, interrupt_after_ms=100, timeout_s=3)
        assert turn.outcome == "unanswered"
        assert turn.interruption is not None
        assert turn.interruption.stop_ms is None
        assert "1 abort that no tts/stop answered" in turn.problems

    run(work())


def test_another_task_may_interrupt_while_a_turn_is_asked() -> None:
    async def work() -> None:
        server = Server()
        server.on_text = lambda said: server.tell(type="tts", state="stop") if said["type"] == "abort" else None
        async with greeted(server) as device, asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(device.ask(SPEECH))
            await asyncio.sleep(1.0)
            interruption = await device.interrupt()
            turn = await asking
        assert interruption.stop_ms == pytest.approx(0)
        assert turn.outcome == "interrupted"
        assert turn.transcript_ms is None

    run(work())


def test_an_answer_before_the_end_of_speech_is_told() -> None:
    async def work() -> None:
        server = Server()
        async with greeted(server) as device, asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(device.ask(SPEECH))
            await asyncio.sleep(0.4)
            server.answers()
            turn = await asking
        assert turn.unheard_ms == pytest.approx(300)
        assert turn.problems[0].startswith("300 ms of speech")
        assert turn.first_audio_ms == pytest.approx(400 + 500 - 660)

    run(work())


def test_bad_pacing_is_heard_as_a_gap() -> None:
    async def work() -> None:
        server = Server()

        def stumble() -> None:
            server.answers(packets=2, stops=False)
            server.later(0.5 + 0.12 + 0.3, b"b", '{"type":"tts","state":"stop"}')

        server.on_quiet = stumble
        async with greeted(server) as device:
            turn = await device.ask(SPEECH)
        assert turn.gaps_ms == pytest.approx((300,))
        assert turn.stutters == 1
        assert turn.problems == ("1 gaps in the speech, the longest 300 ms",)

    run(work())


def test_silence_from_the_server_ends_as_unanswered() -> None:
    async def work() -> None:
        async with greeted(Server()) as device:
            turn = await device.ask(SPEECH, timeout_s=5)
        assert (turn.outcome, turn.first_audio_ms) == ("unanswered", None)

    run(work())


def test_a_closed_connection_ends_the_turn_and_refuses_the_next() -> None:
    async def work() -> None:
        server = Server()
        server.on_quiet = lambda: server.later(0.1, None)
        async with greeted(server) as device:
            turn = await device.ask(SPEECH)
            assert turn.outcome == "closed"
            assert device.is_closed
            with pytest.raises(DeviceError, match="closed"):
                await device.ask(SPEECH)

    run(work())


def test_a_connection_lost_between_turns_ends_the_devices_tasks() -> None:
    async def work() -> None:
        server = Server()
        async with greeted(server) as device:
            server.inbox.put_nowait(None)
            assert not await device.until(lambda: False, 1)
            assert device.is_closed

    run(work())


def test_an_alert_instead_of_speech_is_a_failure() -> None:
    async def work() -> None:
        server = Server()

        def fail() -> None:
            server.tell(type="stt", text="你好")
            server.tell(type="tts", state="start")
            server.tell(type="tts", state="stop")
            server.later(0.05, '{"type":"alert","status":"Error","message":"llm-failed","emotion":"sad"}')

        server.on_quiet = fail
        async with greeted(server) as device:
            turn = await device.ask(SPEECH)
        assert (turn.outcome, turn.alerts) == ("failed", ("Error: llm-failed",))

    run(work())


def test_an_alert_before_any_answer_ends_the_turn() -> None:
    async def work() -> None:
        server = Server()
        server.on_quiet = lambda: server.tell(type="alert", status="Error", message="asr-failed", emotion="sad")
        async with greeted(server) as device:
            turn = await device.ask(SPEECH)
            assert (turn.outcome, turn.alerts) == ("failed", ("Error: asr-failed",))
            assert device.now_ms < 3000

    run(work())


def test_preroll_goes_in_a_burst_before_detect_and_start() -> None:
    async def work() -> None:
        server = Server()
        server.on_quiet = server.answers
        async with greeted(server) as device:
            await device.ask(SPEECH, wake_word="小智", preroll=SPEECH * 5)
        assert [at for at, _ in server.audio[:33]] == [server.audio[0][0]] * 33
        assert [said["state"] for said in server.spoken("listen")][:2] == ["detect", "start"]

    run(work())


def test_another_mode_needs_another_connection() -> None:
    async def work() -> None:
        server = Server()
        server.on_quiet = server.answers
        async with greeted(server) as device:
            await device.ask(SPEECH)
            with pytest.raises(DeviceError, match="another connection"):
                await device.ask(SPEECH, mode="manual")

    run(work())


def test_a_frame_that_lies_is_a_problem_and_no_crash() -> None:
    async def work() -> None:
        server = Server()
        server.on_quiet = lambda: (server.inbox.put_nowait(b"lie"), server.answers())
        async with greeted(server) as device:
            turn = await device.ask(SPEECH)
        assert (turn.outcome, turn.problems) == ("answered", ("a frame that lies",))

    run(work())


def test_no_hello_in_time_is_an_error() -> None:
    async def work() -> None:
        server = Server()
        server.tell = lambda **_message: None  # type: ignore[method-assign]  # a server that never speaks
        with pytest.raises(DeviceProtocolError, match="none came within 10 s"):
            async with greeted(server):
                pass

    run(work())


def test_a_connection_closed_instead_of_a_hello_is_an_error() -> None:
    async def work() -> None:
        server = Server()
        server.tell = lambda **_message: server.inbox.put_nowait(None)  # type: ignore[method-assign]  # hangs up
        with pytest.raises(DeviceProtocolError, match="closed"):
            async with greeted(server):
                pass

    run(work())


class Eyes:
    """A camera whose pictures take a second to be explained; the second one fails."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    async def explain(self, offer: VisionOffer, question: str) -> str:
        self.asked.append((offer.token, question))
        await asyncio.sleep(1)
        if len(self.asked) == 2:
            raise DeviceError("not taken")
        return f"{question}猫"


def photo(number: int) -> dict[str, Any]:
    params = {"name": "self.camera.take_photo", "arguments": {"question": f"{number}"}}
    return {"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params}


def test_photos_are_shown_one_after_another_and_their_answers_handed_on() -> None:
    async def scenario() -> tuple[list[Any], list[Any], float]:
        server, eyes = Server(), Eyes()
        async with greeted(server, eyes):
            params = {"capabilities": {"vision": {"url": "http://edge/vision", "token": "t"}}}
            server.tell(type="mcp", payload={"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})
            for number in (1, 2, 3):
                server.tell(type="mcp", payload=photo(number))
            await asyncio.sleep(10)
        return eyes.asked, [said["payload"] for said in server.spoken("mcp")][1:], server.texts[-1][0]

    asked, (first, second, third), last_ms = run(scenario())
    assert asked == [("t", "1"), ("t", "2"), ("t", "3")]
    assert [answer["result"]["content"][0]["text"] for answer in (first, third)] == ["1猫", "3猫"]
    assert (second["id"], second["error"]) == (2, {"message": "Failed to upload photo"})
    assert last_ms == pytest.approx(3000)


def test_connection_lost_while_a_photo_is_shown_ends_the_camera_too() -> None:
    async def scenario() -> list[Any]:
        server, eyes = Server(), Eyes()
        async with greeted(server, eyes) as device:
            params = {"capabilities": {"vision": {"url": "http://edge/vision", "token": "t"}}}
            server.tell(type="mcp", payload={"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params})
            server.tell(type="mcp", payload=photo(1))
            server.later(0.5, None)
            await device.until(lambda: device.is_closed, 5)
        return [said["payload"]["id"] for said in server.spoken("mcp")]

    assert run(scenario()) == [0]
