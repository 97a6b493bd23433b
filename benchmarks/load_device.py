"""One device of a load run: stock firmware's order of things, real-time frames on an absolute clock, no codec.

hello ► listen/start ─120 ms► microphone: silence, speech, silence … ─tts/start► loudspeaker ─tts/stop► played out ► listen/start …
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any, Literal, Protocol

import msgspec

from benchmarks.load_playback import PlaybackClock
from benchmarks.load_socket import frame
from edge.simulator.firmware import GREETING, TOOLS
from edge.simulator.uplink import FRAME_MS, WARM_UP_MS

HELLO_S = 10.0
"""How long a device waits for 101 and the server's hello together (protocol §4.1, §4.3)."""
ANSWER_S = 20.0
"""After the end of speech, how long we wait for ``tts/start``. A guess far above what anybody would bear."""
END_S = 60.0
"""After ``tts/start``, how long we wait for ``tts/stop``. A guess: longer than any answer here."""
_FRAME_S = FRAME_MS / 1000
_EARLY_S = 0.0005
"""What is due within half a millisecond is due: timers are rounded to a millisecond."""

Fault = Literal["refused", "closed", "no-hello", "alert", "early", "silent", "no-answer", "unended", "unreachable"]
"""refused: no 101. closed: the socket went. no-hello: none within HELLO_S. alert: the device was told of an error. early: the answer
came before the end of the speech. silent: an answer without sound. no-answer, unended: see ANSWER_S, END_S. unreachable: no TCP."""


class Sound(msgspec.Struct, frozen=True, kw_only=True):
    """What the microphone hears in a turn, as Opus packets of 60 ms that all devices share."""

    lead: tuple[bytes, ...] = ()
    """Silence before the speech."""
    speech: tuple[bytes, ...]
    voiced_packets: int
    """The last audible packet's number in ``speech``, from 1."""
    silence: bytes
    """Repeated until the answer."""


class TurnSample(msgspec.Struct, frozen=True, kw_only=True):
    """One answered turn; marks are ms after the last audible packet was due, ``at_s`` is that moment after the run's begin."""

    device: int
    at_s: float
    transcript_ms: float
    first_audio_ms: float
    packets: int
    lost: int
    stutters: int
    longest_gap_ms: float
    underruns: int
    silence_ms: float


class Heard(Protocol):
    """Who is told what became of a device."""

    def greeted(self, device: int) -> None:
        """Note that a device is at work."""
        ...

    def held(self, sample: TurnSample) -> None:
        """Note an answered turn."""
        ...

    def failed(self, device: int, fault: Fault, detail: str) -> None:
        """Note a turn that failed."""
        ...

    def gone(self, device: int) -> None:
        """Note that a device is over; why was told before."""
        ...


class Wire(Protocol):
    """A socket that never waits."""

    def send(self, message: bytes) -> None:
        """Send a whole WebSocket frame."""
        ...

    def hang_up(self) -> None:
        """Close TCP."""
        ...


class _Message(msgspec.Struct):
    type: str = ""
    state: str = ""
    session_id: str = ""
    payload: dict[str, Any] | None = None


_read = msgspec.json.Decoder(_Message).decode


class Microphone:
    """The frames of one sound as WebSocket frames, made once for all devices."""

    def __init__(self, sound: Sound) -> None:
        self._frames = [frame(packet) for packet in (*sound.lead, *sound.speech)]
        self.silence = frame(sound.silence)
        """A frame in which nobody speaks."""
        self.last_voiced = len(sound.lead) + sound.voiced_packets - 1
        """Number of the last audible frame, from 0."""

    def frame(self, number: int) -> bytes:
        """Return frame ``number`` of a turn, from 0, ready to send."""
        return self._frames[number] if number < len(self._frames) else self.silence


class LoadDevice:
    """``load_socket.Ears`` of one device; give it its ``wire`` before anything comes."""

    wire: Wire

    def __init__(
        self,
        number: int,
        microphone: Microphone,
        tell: Heard,
        *,
        speaks: bool = True,
        pause_s: float = 0.0,
        began_s: float = 0.0,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """``began_s`` is when the run began; a device that does not speak only streams silence, one that does ``pause_s`` on average."""
        self._number = number
        self._microphone = microphone
        self._tell = tell
        self._speaks = speaks
        self._pause_s = pause_s
        self._chance = random.Random(number)
        self._began_s = began_s
        self._now = now
        self._session_id = ""
        self._timer: asyncio.TimerHandle | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._is_over = False
        self._is_listening = False
        self._is_failed_turn = False
        self._due_s = 0.0
        self._sent = 0
        """Frames of this turn sent so far; below 0 in the pause before it."""
        self._spoke_s: float | None = None
        self._transcript_s: float | None = None
        self._playback: PlaybackClock | None = None

    def connect(self) -> None:
        """Begin to wait for the server's hello."""
        self._within(HELLO_S, "no-hello")

    def unreachable(self, detail: str) -> None:
        """End: there is no TCP connection."""
        self._give_up("unreachable", detail)

    # What the socket tells.

    def opened(self, _now_s: float) -> None:
        """Say hello."""
        audio = {"format": "opus", "sample_rate": 16_000, "channels": 1, "frame_duration": FRAME_MS}
        hello = {"type": "hello", "version": 1, "features": {"mcp": True}, "transport": "websocket"}
        self._say({**hello, "audio_params": audio})

    def heard_text(self, text: bytes, now_s: float) -> None:
        """Do what the firmware does with a JSON message."""
        message = _read(text)
        if message.type == "tts":
            self._on_tts(message.state, now_s)
        elif message.type == "stt":
            self._transcript_s = now_s
        elif message.type == "alert":
            self._on_alert()
        elif message.type == "mcp" and message.payload:
            self._on_mcp(message.payload)
        elif message.type == "hello":
            self._session_id = message.session_id
            self._tell.greeted(self._number)
            self._listen()

    def heard_packet(self, _packet_bytes: int, now_s: float) -> None:
        """Play a packet; outside an answer a device drops it."""
        if self._playback is not None:
            self._playback.put(now_s)

    def closed(self, reason: str) -> None:
        """End: a device does not come back by itself."""
        if not self._is_over:
            fault: Fault = "refused" if reason.startswith("answered") else "closed"
            self._give_up(fault, reason)

    def leave(self) -> None:
        """End the run for this device."""
        self._is_over = True
        self._after(None)
        self._within(None)
        self.wire.hang_up()

    # The turn.

    def _listen(self) -> None:
        """Open the microphone; its first frame is complete after the warm-up."""
        self._playback = self._spoke_s = self._transcript_s = None
        self._is_failed_turn = False
        self._sent = -round(self._chance.uniform(0.0, 2 * self._pause_s) / _FRAME_S)
        self._is_listening = True
        self._say({"session_id": self._session_id, "type": "listen", "state": "start", "mode": "auto"})
        self._within(None)
        self._due_s = self._now() + WARM_UP_MS / 1000
        self._after(self._due_s - self._now(), self._stream)

    def _stream(self) -> None:
        """Send every frame that is due."""
        now_s = self._now()
        while self._due_s <= now_s + _EARLY_S:
            is_quiet = self._sent < 0 or not self._speaks
            self.wire.send(self._microphone.silence if is_quiet else self._microphone.frame(self._sent))
            if self._speaks and self._sent == self._microphone.last_voiced:
                self._spoke_s = self._due_s
                self._within(ANSWER_S, "no-answer")
            self._sent += 1
            self._due_s += _FRAME_S
        self._after(self._due_s - now_s, self._stream)

    def _on_tts(self, state: str, now_s: float) -> None:
        if state == "start" and self._is_listening:
            self._is_listening = False
            self._after(None)
            self._playback = PlaybackClock()
            self._within(END_S, "unended")
        elif state == "stop" and self._playback is not None:
            self._within(None)
            playback = self._playback
            self._judge(playback)
            self._after(playback.left_s(now_s), self._listen)

    def _judge(self, playback: PlaybackClock) -> None:
        if self._is_failed_turn:
            return
        spoke_s, first_s = self._spoke_s, playback.first_s
        if spoke_s is None:
            self._fail("early")
        elif first_s is None or self._transcript_s is None:
            self._fail("silent")
        else:
            self._tell.held(_sample(self._number, self._began_s, spoke_s, self._transcript_s, first_s, playback))

    def _on_alert(self) -> None:
        """Count the turn as failed; while listening, say it all again."""
        if not self._is_failed_turn:
            self._fail("alert")
        if self._is_listening:
            self._sent, self._spoke_s = 0, None
            self._within(None)

    def _on_mcp(self, payload: dict[str, Any]) -> None:
        method, number = payload.get("method"), payload.get("id")
        if number is None:
            return
        answer: dict[str, Any] = {"error": {"message": "unknown method"}}
        if method == "initialize":
            answer = {"result": GREETING}
        elif method == "tools/list":
            answer = {"result": {"tools": TOOLS}}
        reply = {"jsonrpc": "2.0", "id": number, **answer}
        self._say({"session_id": self._session_id, "type": "mcp", "payload": reply})

    def _fail(self, fault: Fault, detail: str = "") -> None:
        self._is_failed_turn = True
        self._tell.failed(self._number, fault, detail)

    def _give_up(self, fault: Fault, detail: str = "") -> None:
        """End; a turn that failed before, as by the alert of a refusal, is no second fault."""
        self.leave()
        if not self._is_failed_turn:
            self._fail(fault, detail)
        self._tell.gone(self._number)

    # Timers.

    def _say(self, message: dict[str, Any]) -> None:
        self.wire.send(frame(msgspec.json.encode(message).decode()))

    def _after(self, seconds: float | None, work: Callable[[], None] | None = None) -> None:
        """Do ``work`` next instead of what was planned; nothing when ``seconds`` is None."""
        if self._timer is not None:
            self._timer.cancel()
        is_planned = seconds is not None and work is not None and not self._is_over
        self._timer = asyncio.get_running_loop().call_later(seconds or 0.0, work) if is_planned and work else None

    def _within(self, seconds: float | None, fault: Fault = "no-answer") -> None:
        """Give up with ``fault`` after ``seconds`` unless told otherwise before; None lifts the limit."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None
        if seconds is not None and not self._is_over:
            self._deadline = asyncio.get_running_loop().call_later(seconds, self._give_up, fault)


def _sample(
    device: int, began_s: float, spoke_s: float, transcript_s: float, first_s: float, playback: PlaybackClock
) -> TurnSample:
    return TurnSample(
        device=device,
        at_s=spoke_s - began_s,
        transcript_ms=(transcript_s - spoke_s) * 1000,
        first_audio_ms=(first_s - spoke_s) * 1000,
        packets=playback.packets,
        lost=playback.lost,
        stutters=playback.stutters,
        longest_gap_ms=playback.longest_gap_s * 1000,
        underruns=playback.underruns,
        silence_ms=playback.silence_s * 1000,
    )
