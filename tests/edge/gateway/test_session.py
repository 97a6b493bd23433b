from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.memory_bus import MemoryBus
from edge import seam
from edge.gateway.framing import VERSIONS, pack
from edge.gateway.lifetime import READ_S, Limits, SessionEnd
from edge.gateway.notices import notice
from edge.gateway.observer import DeafObserver
from edge.gateway.session import DeviceSession, SessionOptions
from edge.gateway.vision_tokens import VisionOffer
from models.errors import CloudUnreachableError
from tests.virtual_time import run

SID = "5e5510"
HELLO = {"type": "hello", "version": 1, "transport": "websocket", "audio_params": {"frame_duration": 60}}
PACKET = b"\x58opus"
FRAME_S = 0.06


class FakeSocket:
    """A device's socket; ``sent`` holds what the device got and when."""

    def __init__(self) -> None:
        self.incoming: asyncio.Queue[str | bytes | None] = asyncio.Queue()
        self.sent: list[tuple[float, Any]] = []
        self.ends: list[Any] = []
        self.reads = asyncio.Event()
        self.reads.set()
        self.is_open = True

    async def recv(self) -> str | bytes | None:
        return await self.incoming.get()

    async def send(self, message: str | bytes) -> None:
        await self.reads.wait()
        now_s = round(asyncio.get_running_loop().time(), 3)
        self.sent.append((now_s, json.loads(message) if isinstance(message, str) else message))

    async def close(self, code: int, reason: str) -> None:
        self.ends.append((code, reason))

    def abort(self) -> None:
        self.ends.append("aborted")


class Counting(DeafObserver):
    def __init__(self) -> None:
        self.seen: list[Any] = []

    def dropped(self, kind: str) -> None:
        self.seen.append(kind)

    def violation(self, code: str) -> None:
        self.seen.append(code)

    def gap_seconds(self, seconds: float) -> None:
        self.seen.append(round(seconds, 3))


class Scene:
    """A session with a device before it and a brain behind it."""

    def __init__(self, session: DeviceSession, socket: FakeSocket, observer: Counting) -> None:
        self.session, self.socket, self.observer = session, socket, observer
        self.up: list[seam.UpMessage] = []
        self.run: asyncio.Task[SessionEnd]

    async def says(self, *messages: Any) -> None:
        for message in messages:
            raw = message if isinstance(message, bytes | str) else json.dumps(message)
            self.socket.incoming.put_nowait(raw)
        await asyncio.sleep(0.001)

    async def listens(self, mode: str = "auto") -> None:
        await self.says(HELLO, {"type": "listen", "state": "start", "mode": mode})

    async def answers(self, *messages: seam.DownMessage) -> None:
        for message in messages:
            self.session.receive(message)
        await asyncio.sleep(0.001)

    async def speaks(self, packets: int = 100, *, fence: int = 0, turn: str = "t1") -> None:
        await self.answers(heard(turn, fence), speech(packets, turn, fence))

    async def gone(self) -> SessionEnd:
        self.socket.incoming.put_nowait(None)
        return await self.run

    def texts(self, start: int = 0) -> list[str]:
        return [named(message) for _, message in self.socket.sent[start:] if isinstance(message, dict)]

    def got(self) -> list[str]:
        return [named(message) for _, message in self.socket.sent]

    def sound_s(self) -> list[float]:
        return [at for at, message in self.socket.sent if isinstance(message, bytes)]

    def when_s(self, name: str) -> float:
        return next(at for at, message in self.socket.sent if named(message) == name)

    def told(self) -> list[str]:
        return [type(message).__name__ for message in self.up]


def named(message: Any) -> str:
    if isinstance(message, bytes):
        return "audio"
    return "/".join(message[key] for key in ("type", "state", "emotion") if key in message)


def heard(turn: str = "t1", fence: int = 0) -> seam.Heard:
    return seam.Heard(session_id=SID, fence=fence, turn_id=turn, text="你好")


def speech(packets: int, turn: str = "t1", fence: int = 0) -> seam.SpeechDown:
    return seam.SpeechDown(session_id=SID, fence=fence, turn_id=turn, packets=(PACKET,) * packets)


def sentence(text: str, turn: str = "t1") -> seam.SentenceStarted:
    return seam.SentenceStarted(session_id=SID, turn_id=turn, text=text)


def ended(outcome: seam.Outcome, turn: str = "t1", fence: int = 0, code: str = "") -> seam.TurnEnded:
    return seam.TurnEnded(session_id=SID, fence=fence, turn_id=turn, outcome=outcome, code=code)


class CutBus(MemoryBus):
    """A bus that lost its server."""

    is_connected = False

    async def publish(self, subject: str, payload: bytes, *, reply: str = "") -> None:
        raise CloudUnreachableError("cut")


@asynccontextmanager
async def scene(
    *,
    bus: MemoryBus | None = None,
    version: int | None = None,
    limits: Limits | None = None,
    offer: Callable[[str, str, str], VisionOffer | None] = lambda *_names: None,
    is_brain_away: Callable[[], bool] = lambda: False,
) -> AsyncGenerator[Scene, None]:
    bus, socket, observer = bus or MemoryBus(), FakeSocket(), Counting()
    session = DeviceSession(
        socket,
        bus,
        node_id="n1",
        session_id=SID,
        device_id="aa:bb",
        client_id="c",
        version=version,
        options=SessionOptions(limits=limits or Limits(), offer=offer),
        observer=observer,
        is_brain_away=is_brain_away,
        now=asyncio.get_running_loop().time,
    )
    stage = Scene(session, socket, observer)

    async def listen(line) -> None:
        async for message in line:
            stage.up.append(seam.decode_up(message.payload))

    async with bus.subscribe(seam.up_subject("n1"), max_pending=100_000) as line:
        listener = asyncio.create_task(listen(line))
        stage.run = asyncio.create_task(session.run())
        try:
            yield stage
            if not stage.run.done():
                await stage.gone()
            await asyncio.sleep(0.001)
        finally:
            stage.run.cancel()
            listener.cancel()
            await asyncio.wait([stage.run, listener])
    assert stage.told().count("SessionClosed") == stage.told().count("SessionOpened")


def test_hello_is_answered_at_once_and_the_brain_told() -> None:
    async def play() -> None:
        async with scene() as on:
            await on.says({**HELLO, "audio_params": {"frame_duration": 20}, "language": "zh-CN"})
            at_s, answer = on.socket.sent[0]
            assert at_s < 0.1
            assert answer["transport"] == "websocket"
            assert answer["session_id"] == SID
            assert (answer["audio_params"]["sample_rate"], answer["audio_params"]["frame_duration"]) == (24000, 60)
            assert on.up == [
                seam.SessionOpened(session_id=SID, device_id="aa:bb", client_id="c", language="zh", frame_ms=20)
            ]
            assert on.session.has_greeted

    run(play())


def test_what_the_device_says_reaches_the_brain_in_order() -> None:
    async def play() -> None:
        async with scene() as on:
            await on.says(HELLO, *[PACKET] * 33, {"type": "listen", "state": "detect", "text": "小智"})
            start = {"type": "listen", "state": "start", "mode": "manual"}
            await on.says(start, start, b"\0", {"type": "listen", "state": "stop"})
            assert on.told() == [
                "SessionOpened",
                *["AudioUp"] * 33,
                "WakeWordHeard",
                "ListenStarted",
                "AudioUp",
                "ListenStopped",
            ]
            assert [message.seq for message in on.up if isinstance(message, seam.AudioUp)] == list(range(34))
            assert on.up[-2] == seam.AudioUp(session_id=SID, seq=33, packet=b"\0")
            assert on.observer.seen == ["listen-repeated"]

    run(play())


@pytest.mark.parametrize("version", VERSIONS)
def test_packets_pass_in_both_directions_in_every_version(version: int) -> None:
    async def play() -> None:
        async with scene(version=version) as on:
            await on.says(
                HELLO, pack(PACKET, version), pack(PACKET, version) + b"!", {"type": "listen", "state": "start"}
            )
            assert [message.packet for message in on.up if isinstance(message, seam.AudioUp)][:1] == [PACKET]
            await on.speaks(3)
            await asyncio.sleep(1)
            frames = [message for _, message in on.socket.sent if isinstance(message, bytes)]
            assert len(frames) == 3
            assert all(frame.endswith(PACKET) for frame in frames)
            if version == 2:
                assert [frame[8:12] for frame in frames] == [(60 * n).to_bytes(4, "big") for n in (1, 2, 3)]

    run(play())


def test_turn_is_shown_spoken_at_pace_and_stopped_when_played() -> None:
    async def play() -> None:
        async with scene() as on:
            await on.listens()
            await on.answers(heard())
            assert on.texts(1) == ["stt", "tts/start"]
            felt = seam.Felt(session_id=SID, turn_id="t1", emotion="happy")
            await on.answers(felt, sentence("一。"), speech(5), sentence("二。"), speech(2), ended("answered"))
            await asyncio.sleep(2)
            assert on.got()[3:] == [
                "llm/happy",
                "tts/sentence_start",
                *["audio"] * 5,
                "tts/sentence_start",
                *["audio"] * 2,
                "tts/stop",
            ]
            first_s = on.sound_s()[0]
            assert first_s - on.when_s("tts/start") >= 0.04
            expected = [first_s] * 4 + [first_s + FRAME_S * n for n in (1, 2, 3)]
            assert on.sound_s() == pytest.approx(expected, abs=0.002)
            assert on.when_s("tts/stop") == pytest.approx(first_s + 7 * FRAME_S, abs=0.002)
            assert on.observer.seen == []

    run(play())


def test_played_sound_is_reported_twice_a_second_and_at_the_end() -> None:
    async def play() -> None:
        async with scene() as on:
            await on.listens()
            await on.speaks(20)
            await on.answers(ended("answered"))
            await asyncio.sleep(3)
            played = [message.played_ms for message in on.up if isinstance(message, seam.Played)]
            assert played == [480, 960, 1200]

    run(play())


def test_end_that_comes_after_the_last_packet_still_reports_and_stops() -> None:
    async def play() -> None:
        async with scene() as on:
            await on.listens()
            await on.speaks(2)
            await asyncio.sleep(1)
            assert on.texts()[-1] == "tts/start"
            await on.answers(ended("answered"))
            assert on.texts()[-1] == "tts/stop"
            assert on.up[-1] == seam.Played(session_id=SID, turn_id="t1", played_ms=120)

    run(play())


def test_speech_that_comes_too_late_is_counted_as_a_gap() -> None:
    async def play() -> None:
        async with scene() as on:
            await on.listens()
            await on.speaks(1)
            await asyncio.sleep(1)
            await on.answers(speech(6))
            await asyncio.sleep(1)
            assert len(on.observer.seen) == 1
            assert on.observer.seen[0] == pytest.approx(1 - 2 * FRAME_S, abs=0.01)
            at_once = [at for at in on.sound_s() if at == on.sound_s()[1]]
            assert len(at_once) == 4

    run(play())


def test_abort_silences_within_a_tick_and_before_the_brain_answers() -> None:
    async def play() -> None:
        async with scene() as on:
            await on.listens()
            await on.speaks(100)
            await asyncio.sleep(1)
            sounded = len(on.sound_s())
            before_s = asyncio.get_running_loop().time()
            await on.says({"type": "abort", "reason": "wake_word_detected"})
            assert on.texts()[-1] == "tts/stop"
            assert on.socket.sent[-1][0] - before_s < 0.01
            played, aborted = on.up[-2:]
            assert played == seam.Played(session_id=SID, fence=0, turn_id="t1", played_ms=sounded * 60)
            assert aborted == seam.Aborted(session_id=SID, fence=1, reason="wake_word_detected")
            # Whatever the brain sent before it knew of it, or says of the old turn later, never reaches the device.
            count = len(on.socket.sent)
            await on.answers(
                speech(5), sentence("x"), heard("t2"), ended("answered"), ended("failed", code="llm-failed")
            )
            await on.answers(ended("interrupted", fence=1))
            await asyncio.sleep(5)
            assert len(on.socket.sent) == count
            assert on.observer.seen == ["stale"] * 5

    run(play())


def test_next_turn_after_an_abort_is_spoken() -> None:
    async def play() -> None:
        async with scene() as on:
            await on.listens()
            await on.speaks(100)
            await on.says({"type": "abort"}, {"type": "listen", "state": "start", "mode": "auto"})
            assert on.up[-1] == seam.ListenStarted(session_id=SID, fence=1, mode="auto")
            count = len(on.socket.sent)
            await on.speaks(1, fence=1, turn="t2")
            await on.answers(ended("answered", "t2", 1))
            await asyncio.sleep(1)
            assert on.got()[count:] == ["stt", "tts/start", "audio", "tts/stop"]

    run(play())


@pytest.mark.parametrize("aborts", [1, 2, 5])
def test_every_abort_is_answered_even_without_a_turn(aborts: int) -> None:
    async def play() -> None:
        async with scene() as on:
            await on.listens()
            await on.says(*[{"type": "abort"}] * aborts)
            assert on.texts()[1:] == ["tts/stop"] * aborts
            assert on.up[-1] == seam.Aborted(session_id=SID, fence=aborts)

    run(play())


def test_abort_before_any_listen_says_nothing_to_the_device() -> None:
    async def play() -> None:
        async with scene() as on:
            await on.says(HELLO, {"type": "abort"})
            assert on.texts() == ["hello"]

    run(play())


def test_nothing_is_spoken_before_the_first_listen_message() -> None:
    async def play() -> None:
        async with scene() as on:
            await on.says(HELLO, PACKET)
            await on.speaks(3)
            await on.answers(ended("answered"))
            await asyncio.sleep(1)
            assert on.texts() == ["hello"]
            assert on.observer.seen == ["not-listening", "no-turn"]
            await on.says({"type": "listen", "state": "detect", "text": "几点了"})
            await on.speaks(1, turn="t2")
            assert on.texts() == ["hello", "stt", "tts/start"]

    run(play())


@pytest.mark.parametrize(
    ("has_heard", "outcome", "expected"),
    [
        (True, "interrupted", ["tts/stop"]),
        (True, "failed", ["tts/stop", "alert/sad"]),
        (True, "silent", ["tts/stop"]),
        (False, "interrupted", []),
        (False, "failed", ["alert/sad"]),
        (False, "silent", []),
        (False, "answered", []),
    ],
)
def test_end_of_a_turn_that_was_not_answered_is_told_at_once(
    has_heard: bool, outcome: seam.Outcome, expected: list[str]
) -> None:
    async def play() -> None:
        async with scene() as on:
            await on.listens()
            if has_heard:
                await on.speaks(50)
                await asyncio.sleep(0.5)
            count = len(on.socket.sent)
            await on.answers(ended(outcome, code="llm-failed"))
            assert on.got()[count:] == expected
            await asyncio.sleep(3)
            assert on.got()[count:] == expected
            alerts = [message for _, message in on.socket.sent if named(message) == "alert/sad"]
            assert [(alert["status"], alert["message"]) for alert in alerts] == [notice("llm-failed")[:2]] * len(alerts)

    run(play())


def test_turn_interrupted_before_it_was_opened_leaves_no_trace() -> None:
    async def play() -> None:
        async with scene() as on:
            await on.listens()
            on.session.receive(heard())
            on.session.receive(ended("interrupted"))
            await asyncio.sleep(1)
            assert on.texts() == ["hello"]

    run(play())


def test_next_turn_ends_one_that_is_still_spoken() -> None:
    async def play() -> None:
        async with scene() as on:
            await on.listens("realtime")
            await on.speaks(50)
            await asyncio.sleep(0.5)
            count = len(on.socket.sent)
            await on.speaks(1, turn="t2")
            assert on.got()[count:] == ["tts/stop", "stt", "tts/start"]

    run(play())


def test_realtime_needs_no_second_listen_start() -> None:
    async def play() -> None:
        async with scene() as on:
            await on.listens("realtime")
            for turn in ("t1", "t2", "t3"):
                await on.says(PACKET)
                await on.speaks(2, turn=turn)
                await on.answers(ended("answered", turn))
                await asyncio.sleep(1)
            assert on.got()[1:] == ["stt", "tts/start", "audio", "audio", "tts/stop"] * 3
            assert on.told().count("ListenStarted") == 1

    run(play())


def test_manual_keeps_the_socket_for_the_next_press() -> None:
    async def play() -> None:
        async with scene() as on:
            await on.says(HELLO)
            for turn in ("t1", "t2"):
                start = {"type": "listen", "state": "start", "mode": "manual"}
                await on.says(start, PACKET, {"type": "listen", "state": "stop"})
                await on.speaks(1, turn=turn)
                await on.answers(ended("answered", turn))
                await asyncio.sleep(60)
            assert on.socket.ends == []
            assert on.told().count("ListenStarted") == on.told().count("ListenStopped") == 2

    run(play())


def test_device_that_just_goes_is_normal() -> None:
    async def play() -> None:
        async with scene() as on:
            await on.listens()
            await on.speaks(50)
            assert (await on.gone()).reason == "device-gone"
            await asyncio.sleep(0.01)
            assert on.told()[-1] == "SessionClosed"

    run(play())


def test_peer_that_begins_to_close_and_stays_is_let_go() -> None:
    async def play() -> None:
        async with scene() as on:
            await on.listens()
            on.socket.is_open = False
            at_s, end = await seconds_until_end(on)
            assert end.reason == "device-gone"
            assert at_s <= 1.0

    run(play())


def test_device_that_goes_before_hello_opened_nothing() -> None:
    async def play() -> None:
        async with scene() as on:
            await on.gone()
            assert on.up == []

    run(play())


def test_cancelled_session_tells_the_brain_and_drops_the_socket() -> None:
    async def play() -> None:
        async with scene() as on:
            await on.listens()
            on.run.cancel()
            await asyncio.wait([on.run])
            await asyncio.sleep(0.01)
            assert on.told()[-1] == "SessionClosed"
            assert on.socket.ends == ["aborted"]

    run(play())


async def seconds_until_end(on: Scene) -> tuple[float, SessionEnd]:
    end = await on.run
    return asyncio.get_running_loop().time(), end


def test_device_that_never_says_hello_is_sent_away() -> None:
    async def play() -> None:
        async with scene() as on:
            at_s, end = await seconds_until_end(on)
            assert (at_s, end) == (10.0, SessionEnd("hello-timeout", 1002))
            assert on.socket.ends == [(1002, "hello-timeout")]

    run(play())


def test_idle_session_is_closed_before_firmware_distrusts_it() -> None:
    async def play() -> None:
        async with scene() as on:
            await on.listens("manual")
            await asyncio.sleep(50)
            await on.says({"type": "ping"})
            at_s, end = await seconds_until_end(on)
            assert end == SessionEnd("idle", 1000)
            assert 160 <= at_s < 162

    run(play())


def test_device_that_streams_only_silence_is_let_go() -> None:
    async def play() -> None:
        async with scene() as on:
            await on.listens()
            while not on.run.done():
                await on.says(b"\0")
                await asyncio.sleep(FRAME_S - 0.001)
            assert on.run.result() == SessionEnd("quiet", 1000)
            assert asyncio.get_running_loop().time() == pytest.approx(61, abs=1)

    run(play())


def test_speech_and_turns_keep_a_session_alive() -> None:
    async def play() -> None:
        async with scene(limits=Limits(quiet_s=3, idle_s=4)) as on:
            await on.listens("realtime")
            for turn in range(5):
                for _ in range(40):
                    await on.says(b"\0")
                    await asyncio.sleep(FRAME_S - 0.001)
                await on.speaks(200, turn=str(turn))
                await on.answers(ended("answered", str(turn)))
                await asyncio.sleep(14)
            assert not on.run.done()

    run(play())


def test_device_that_does_not_read_is_dropped_and_only_it() -> None:
    async def play() -> None:
        async with scene() as on, scene() as neighbour:
            await on.listens()
            await neighbour.listens()
            on.socket.reads.clear()
            await on.speaks(100)
            await neighbour.speaks(10)
            await neighbour.answers(ended("answered"))
            at_s, end = await seconds_until_end(on)
            assert end.reason == "device-too-slow"
            assert at_s < 6
            assert on.socket.ends == ["aborted"]
            assert neighbour.texts()[-1] == "tts/stop"
            assert not neighbour.run.done()

    run(play())


def test_speech_beyond_the_window_fails_the_session() -> None:
    async def play() -> None:
        async with scene() as on:
            await on.listens()
            await on.speaks(1_001)
            assert (await on.run).reason == "device-too-slow"

    run(play())


def test_device_that_aborts_and_does_not_read_is_bounded() -> None:
    async def play() -> None:
        async with scene() as on:
            await on.listens()
            on.socket.reads.clear()
            await on.says(*[{"type": "abort"}] * 200)
            assert (await on.run).reason == "device-too-slow"

    run(play())


def test_missing_brain_is_told_to_a_device_that_expects_an_answer() -> None:
    async def play() -> None:
        is_away = False
        async with scene(is_brain_away=lambda: is_away) as on:
            await on.listens()
            is_away = True
            assert await on.run == SessionEnd("brain-away", 1013)
            assert on.socket.sent[-1][1]["message"] == notice("brain-away").message
            assert on.socket.ends == [(1013, "brain-away")]

    run(play())


def test_missing_brain_does_not_disturb_a_device_that_expects_nothing() -> None:
    async def play() -> None:
        async with scene(is_brain_away=lambda: True) as on:
            await on.says(HELLO)
            await asyncio.sleep(60)
            assert not on.run.done()

    run(play())


def test_refused_session_hears_why_and_is_closed() -> None:
    async def play() -> None:
        async with scene() as on:
            await on.listens()
            await on.answers(seam.SessionRefused(session_id=SID, fence=2**31 - 1, code="llm-overloaded"))
            assert (await on.run).reason == "llm-overloaded"
            assert on.socket.sent[-1][1]["message"] == notice("llm-overloaded").message
            assert asyncio.get_running_loop().time() - on.socket.sent[-1][0] >= READ_S
            assert on.socket.ends == [(1013, "llm-overloaded")]

    run(play())


def test_bus_without_server_costs_messages_not_the_session() -> None:
    async def play() -> None:
        async with scene(bus=CutBus()) as on:
            await on.listens()
            await on.says(PACKET)
            assert on.texts() == ["hello"]
            assert on.observer.seen == ["unsendable"] * 3
            assert not on.run.done()

    run(play())


def test_fatal_violation_closes_with_protocol_error() -> None:
    async def play() -> None:
        async with scene() as on:
            await on.says({"type": "hello", "transport": "udp"})
            assert await on.run == SessionEnd("device-protocol", 1002)
            assert on.up == []

    run(play())


def test_goodbye_ends_the_session() -> None:
    async def play() -> None:
        async with scene() as on:
            await on.says(HELLO, {"type": "goodbye"})
            assert await on.run == SessionEnd("goodbye", 1000)

    run(play())


def test_what_means_nothing_here_is_counted_and_ignored() -> None:
    async def play() -> None:
        async with scene() as on:
            await on.says(HELLO, {"type": "iot"}, {"type": "ping"}, {"type": "mcp", "payload": {}}, HELLO, "{", b"")
            assert on.observer.seen == ["iot", "ping", "mcp", "hello-twice", "malformed", "bad-packet"]
            assert on.texts() == ["hello"]

    run(play())


def mcp(**payload: Any) -> dict[str, Any]:
    return {"type": "mcp", "session_id": SID, "payload": {"jsonrpc": "2.0", **payload}}


def test_device_with_tools_is_asked_for_them_after_hello() -> None:
    async def play() -> None:
        async with scene() as on:
            await on.says({**HELLO, "features": {"mcp": True}})
            assert on.texts() == ["hello", "mcp"]
            assert on.socket.sent[1][1]["payload"]["method"] == "initialize"
            await on.says(mcp(id="1", result={}), mcp(id=9, result={}), mcp(id=1, result=[]), mcp(method="x"))
            assert on.texts() == ["hello", "mcp"]
            assert on.observer.seen == ["mcp"] * 4
            await on.says(mcp(id=1, result={"serverInfo": {"name": "b", "version": "2"}}))
            await on.says(mcp(id=2, result={"tools": [{"name": "a"}], "nextCursor": "c"}))
            asked = [message["payload"] for _, message in on.socket.sent[1:]]
            assert [request["id"] for request in asked] == [1, 2, 3]
            assert asked[2] == {"jsonrpc": "2.0", "id": 3, "method": "tools/list", "params": {"cursor": "c"}}
            assert on.told() == ["SessionOpened"]

    run(play())


def test_device_with_tools_is_offered_an_address_for_its_sessions_pictures() -> None:
    def offer(device_id: str, client_id: str, session_id: str) -> VisionOffer:
        return VisionOffer("http://edge/vision", f"{device_id} {client_id} {session_id}")

    async def play() -> None:
        async with scene(offer=offer) as on:
            await on.says({**HELLO, "features": {"mcp": True}})
            capabilities = on.socket.sent[1][1]["payload"]["params"]["capabilities"]
            assert capabilities == {"vision": {"url": "http://edge/vision", "token": f"aa:bb c {SID}"}}

    run(play())


def test_device_that_never_answers_for_its_tools_is_served_all_the_same() -> None:
    async def play() -> None:
        async with scene() as on:
            await on.says({**HELLO, "features": {"mcp": True}}, {"type": "listen", "state": "start", "mode": "auto"})
            await asyncio.sleep(12)
            await on.speaks(5)
            await on.answers(ended("answered"))
            await asyncio.sleep(1)
            assert on.got() == ["hello", "mcp", "stt", "tts/start", *["audio"] * 5, "tts/stop"]

    run(play())


@pytest.mark.parametrize("features", [None, {}, {"mcp": False}])
def test_device_without_tools_is_asked_for_none(features: Any) -> None:
    async def play() -> None:
        async with scene() as on:
            await on.says({**HELLO, "features": features})
            await asyncio.sleep(12)
            assert on.texts() == ["hello"]

    run(play())


def test_drained_session_ends_at_once_when_idle_and_after_its_turn_when_not() -> None:
    async def play() -> None:
        async with scene() as idle, scene() as busy:
            for on in (idle, busy):
                await on.listens()
            await busy.speaks(50)
            for on in (idle, busy):
                on.session.drain()
            assert await idle.run == SessionEnd("draining", 1012)
            await asyncio.sleep(0.5)
            assert not busy.run.done()
            await busy.answers(ended("answered"))
            assert await busy.run == SessionEnd("draining", 1012)
            assert busy.texts()[-1] == "tts/stop"
            assert len(busy.sound_s()) == 50

    run(play())


def test_flood_is_read_slowly_but_burst_of_a_stalled_device_at_once() -> None:
    async def play() -> None:
        async with scene() as on:
            await on.listens()
            await on.says(*[PACKET] * 40)
            assert on.told().count("AudioUp") == 40
            await on.says(*[PACKET] * 5_000)
            assert on.told().count("AudioUp") < 700
            await asyncio.sleep(1)
            assert on.told().count("AudioUp") < 1_000

    run(play())


down_messages = st.one_of(
    st.builds(heard, st.sampled_from(["t1", "t2"]), st.integers(0, 2)),
    st.builds(speech, st.integers(0, 20), st.sampled_from(["t1", "t2"]), st.integers(0, 2)),
    st.builds(sentence, st.text(max_size=5), st.sampled_from(["t1", "t2"])),
    st.builds(
        ended,
        st.sampled_from(["answered", "silent", "interrupted", "failed"]),
        st.sampled_from(["t1", "t2"]),
        st.integers(0, 2),
    ),
    st.builds(
        lambda packets: seam.SpeechDown(session_id=SID, turn_id="t1", packets=packets), st.just((b"", b"x" * 9000))
    ),
)
device_messages = st.one_of(
    st.binary(max_size=30),
    st.text(max_size=30),
    st.sampled_from(
        [
            HELLO,
            {"type": "abort"},
            {"type": "listen", "state": "stop"},
            {"type": "listen", "state": "detect", "text": "x"},
            *({"type": "listen", "state": "start", "mode": mode} for mode in ("auto", "manual", "realtime")),
        ]
    ),
)


@settings(max_examples=150, deadline=None)
@given(
    st.booleans(),
    st.lists(st.one_of(device_messages, down_messages, st.floats(0.0, 0.5)), max_size=40),
)
def test_whatever_device_and_brain_say_the_device_is_treated_by_the_rules(greets: bool, script: list[Any]) -> None:
    async def play() -> None:
        async with scene() as on:
            if greets:
                await on.listens()
            for step in script:
                if isinstance(step, float):
                    await asyncio.sleep(step)
                elif isinstance(step, seam.Down):
                    await on.answers(step)
                else:
                    await on.says(step)
            await asyncio.sleep(3)
            assert on.run.done() is False or on.run.exception() is None
            check_rules(on.got())

    run(play())


def check_rules(got: list[str]) -> None:
    is_speaking = False
    for name in got:
        if name == "tts/start":
            assert not is_speaking
            is_speaking = True
        elif name == "tts/stop":
            is_speaking = False
        elif name in {"audio", "tts/sentence_start"}:
            assert is_speaking
    assert got.count("hello") <= 1
    assert "hello" not in got[1:]


def held(turn: str = "t1", fence: int = 0) -> seam.SpeechHeld:
    return seam.SpeechHeld(session_id=SID, fence=fence, turn_id=turn)


def resumed(turn: str = "t1", fence: int = 0) -> seam.SpeechResumed:
    return seam.SpeechResumed(session_id=SID, fence=fence, turn_id=turn)


def test_held_turn_is_kept_reported_and_goes_on_without_a_gap() -> None:
    async def play() -> None:
        async with scene() as on:
            await on.listens("realtime")
            await on.speaks(30)
            await asyncio.sleep(0.7)
            await on.answers(held())
            sounded = len(on.sound_s())
            assert on.up[-1] == seam.Played(session_id=SID, turn_id="t1", played_ms=60 * sounded)
            await on.answers(speech(5), ended("answered"))
            await asyncio.sleep(3)
            assert len(on.sound_s()) == sounded
            assert on.texts()[-1] == "tts/start"
            await on.answers(resumed())
            await asyncio.sleep(5)
            assert len(on.sound_s()) == 35
            assert on.texts()[-1] == "tts/stop"
            assert on.observer.seen == []

    run(play())


@pytest.mark.parametrize("outcome", ["interrupted", "failed"])
def test_turn_that_ends_while_held_is_silent_at_once(outcome: seam.Outcome) -> None:
    async def play() -> None:
        async with scene() as on:
            await on.listens("realtime")
            await on.speaks(30)
            await asyncio.sleep(0.5)
            await on.answers(held(), ended(outcome, code="llm-failed" if outcome == "failed" else ""))
            sounded = len(on.sound_s())
            await on.answers(resumed())
            await asyncio.sleep(2)
            assert len(on.sound_s()) == sounded
            assert "tts/stop" in on.texts()
            await on.speaks(3, turn="t2")
            await asyncio.sleep(1)
            assert len(on.sound_s()) == sounded + 3, "the next turn is not held"

    run(play())


def test_device_may_interrupt_what_is_held() -> None:
    async def play() -> None:
        async with scene() as on:
            await on.listens("realtime")
            await on.speaks(30)
            await asyncio.sleep(0.5)
            await on.answers(held())
            await on.says({"type": "abort"})
            assert on.texts()[-1] == "tts/stop"
            count = len(on.socket.sent)
            await on.answers(resumed(), speech(3))
            await asyncio.sleep(1)
            assert len(on.socket.sent) == count
            assert on.observer.seen == ["stale", "stale"]

    run(play())


def test_hold_of_no_turn_is_counted_and_harmless() -> None:
    async def play() -> None:
        async with scene() as on:
            await on.listens()
            await on.answers(held(), resumed("t9"))
            assert on.observer.seen == ["no-turn"] * 2

    run(play())


def test_held_turn_keeps_a_quiet_session_open() -> None:
    async def play() -> None:
        async with scene(limits=Limits(quiet_s=3)) as on:
            await on.listens("realtime")
            await on.speaks(30)
            await on.answers(held())
            for _ in range(200):
                await on.says(PACKET)
                await asyncio.sleep(0.05)
            assert not on.run.done()

    run(play())
