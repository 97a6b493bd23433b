"""What firmware 2.4 does with each message and packet, as a state machine without I/O, clock or tasks.

The shell feeds ``on_text``, ``on_packet``, ``tick`` and the user's actions, sends what appears in ``outbox``, and keeps the
microphone as ``is_mic_on`` says. Every method takes the device's time in milliseconds. What a device does silently (a refused
transition, a packet out of place) is written into ``log``.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from edge.gateway.vision_tokens import VisionOffer
from edge.seam import ListenMode
from edge.simulator.playback import Decoder, Playback
from edge.simulator.turn import TurnLog
from models.errors import DeviceProtocolError

MAX_TEXT_BYTES = 8192
"""A device buffers the whole message in RAM; larger JSON is at its risk (protocol §4.1)."""
HURRIED_MS = 20.0
"""Audio this soon after ``tts/start`` may reach the device's audio task before its main task entered Speaking (protocol §6.2)."""
FRAME_LENGTHS_MS = (5, 10, 20, 40, 60, 80, 100, 120)
RATES_HZ = (8_000, 12_000, 16_000, 24_000, 48_000)
"""What a server hello may announce (protocol §4.3)."""
MAX_VOLUME = 100
GREETING: dict[str, Any] = {
    "protocolVersion": "2024-11-05",
    "capabilities": {"tools": {}},
    "serverInfo": {"name": "bread-compact-wifi", "version": "2.4.2"},
}
TOOLS: list[dict[str, Any]] = [
    {
        "name": "self.get_device_status",
        "description": "Tells the state of the device, such as the volume of its loudspeaker.",
        "inputSchema": {"type": "object", "properties": {}},
    },
    {
        "name": "self.audio_speaker.set_volume",
        "description": "Sets the volume of the loudspeaker.",
        "inputSchema": {
            "type": "object",
            "properties": {"volume": {"type": "integer", "minimum": 0, "maximum": MAX_VOLUME}},
            "required": ["volume"],
        },
    },
]
"""So few that they are one page (protocol §10)."""
PHOTO_TOOL: dict[str, Any] = {
    "name": "self.camera.take_photo",
    "description": "Takes a photo and explains it.",
    "inputSchema": {"type": "object", "properties": {"question": {"type": "string"}}, "required": ["question"]},
}
"""Only of devices with a camera."""


class Photo(NamedTuple):
    """A picture that a tool's caller waits for."""

    request_id: int
    question: str


class State(StrEnum):
    """Where a device is, as far as a conversation goes."""

    IDLE = "idle"
    CONNECTING = "connecting"
    LISTENING = "listening"
    SPEAKING = "speaking"


NEXT: dict[State, frozenset[State]] = {
    State.IDLE: frozenset({State.CONNECTING, State.LISTENING, State.SPEAKING}),
    State.CONNECTING: frozenset({State.IDLE, State.LISTENING}),
    State.LISTENING: frozenset({State.SPEAKING, State.IDLE}),
    State.SPEAKING: frozenset({State.LISTENING, State.IDLE}),
}
"""The firmware's IsValidTransition (protocol §8.1)."""


class Firmware:
    """One device's mind from power-on; ``new_decoder`` makes an Opus decoder for a rate in Hz."""

    def __init__(self, new_decoder: Callable[[int], Decoder], *, version: int = 1, has_camera: bool = False) -> None:
        self.version = version
        self.vision: VisionOffer | None = None
        """Where the camera shows its pictures, as the server said last."""
        self.photos: list[Photo] = []
        """To be taken and shown; each is answered with ``explained``."""
        self.tools = [*TOOLS, PHOTO_TOOL] if has_camera else TOOLS
        self.state = State.IDLE
        self.mode: ListenMode = "auto"
        self.session_id = ""
        self.playback = Playback(new_decoder)
        self.log = TurnLog()
        self.outbox: list[str] = []
        self.is_open = False
        """Whether the server's hello was accepted."""
        self.must_reboot = False
        self.volume = 70
        """Of the loudspeaker, in [0, MAX_VOLUME]; a tool sets it."""
        self.is_mic_on = False
        self._new_decoder = new_decoder
        self._waits_for_silence = False
        """Listening has begun but the loudspeaker still sounds: the microphone and ``listen/start`` wait."""

    def connect(self) -> None:
        """Open the channel: say hello."""
        self._enter(State.CONNECTING)
        audio = {"format": "opus", "sample_rate": 16_000, "channels": 1, "frame_duration": 60}
        self._say(
            type="hello",
            version=self.version,
            features={"mcp": True, "glyph_push": False},
            transport="websocket",
            audio_params=audio,
        )

    def listen(self, mode: ListenMode, now_ms: float, *, wake_word: str = "") -> None:
        """Start a conversation by button or wake word; nothing happens unless the device is connected and neither listens nor speaks."""
        if not self.is_open or self.state not in {State.IDLE, State.CONNECTING}:
            return
        if wake_word:
            self._send(type="listen", state="detect", text=wake_word)
        self.mode = mode
        self._begin_listening(now_ms)

    def release(self) -> None:
        """Let go of push-to-talk: Idle, socket kept."""
        if self.state is State.LISTENING:
            self._send(type="listen", state="stop")
            self._enter(State.IDLE)
            self.is_mic_on = False

    def interrupt(self, now_ms: float, *, by_wake_word: bool = False) -> None:
        """Press the button, or say the wake word, to stop the answer; only after the wake word it listens anew by itself (protocol §8.5)."""
        self.log.aborted_ms = now_ms
        if not by_wake_word:
            self._send(type="abort")
            return
        self._send(type="abort", reason="wake_word_detected")
        if self.state is State.SPEAKING:
            self._enter(State.LISTENING)
        if self.state is State.LISTENING:
            self._open_microphone()

    def closed(self) -> None:
        """The socket is gone: Idle."""
        self.state = State.IDLE
        self.is_open = self.is_mic_on = self._waits_for_silence = False

    def tick(self, now_ms: float) -> None:
        """Let time pass: when the loudspeaker has fallen silent, listening really begins."""
        if self.playback.is_drained(now_ms) and self._waits_for_silence:
            self._open_microphone()

    def on_packet(self, packet: bytes, now_ms: float) -> None:
        """Take one Opus packet."""
        log = self.log
        if log.aborted_ms is not None and log.obeyed_ms is None:
            log.packets_after_abort += 1
        if self.state is not State.SPEAKING:
            log.packets_outside += 1
            log.packets_after_stop += log.stopped_ms is not None
            return
        if log.started_ms is not None and now_ms - log.started_ms < HURRIED_MS:
            log.packets_hurried += 1
        self.playback.put(packet, now_ms)

    def on_text(self, text: str, now_ms: float) -> None:
        """Take one JSON message; raise DeviceProtocolError where a real device would crash."""
        if len(text.encode()) > MAX_TEXT_BYTES:
            self.fault(f"a message of {len(text.encode())} bytes: a device has no room for it")
        message = _as_object(text)
        kind = message.get("type")
        if not isinstance(kind, str):
            self.fault("a message that is not an object with a type")
            return
        known: dict[str, Callable[[dict[str, Any], float], None]] = {
            "hello": self._on_hello,
            "tts": self._on_tts,
            "stt": self._on_stt,
            "llm": self._on_llm,
            "alert": self._on_alert,
            "system": self._on_system,
            "mcp": self._on_mcp,
        }
        if kind in known:
            known[kind](message, now_ms)

    def explained(self, photo: Photo, text: str | None) -> None:
        """Hand on what the server said of a picture, None when it could not be shown."""
        answer = {"error": {"message": "Failed to upload photo"}} if text is None else _told(text)
        self._send(type="mcp", payload={"jsonrpc": "2.0", "id": photo.request_id} | answer)

    def fault(self, what: str) -> None:
        """Note something the firmware refused or would have suffered from."""
        self.log.faults.append(what)

    def _on_hello(self, message: dict[str, Any], _now_ms: float) -> None:
        if "transport" not in message:
            raise DeviceProtocolError("server hello without transport: stock firmware crashes on it")
        if message["transport"] != "websocket":
            self.fault("a hello whose transport is not websocket")
            return
        audio = message.get("audio_params")
        audio = audio if isinstance(audio, dict) else {}
        rate_hz, frame_ms = audio.get("sample_rate", 24_000), audio.get("frame_duration", 60)
        if rate_hz not in RATES_HZ or frame_ms not in FRAME_LENGTHS_MS:
            raise DeviceProtocolError("server hello announces a rate or frame length that no device decodes")
        session_id = message.get("session_id", "")
        self.session_id = session_id if isinstance(session_id, str) else ""
        self.playback = Playback(self._new_decoder, rate_hz=int(rate_hz), frame_ms=int(frame_ms))
        self.is_open = True

    def _on_tts(self, message: dict[str, Any], now_ms: float) -> None:
        state = message.get("state")
        if not isinstance(state, str):
            self.fault("a tts message without state: firmware before 1.9 crashes on it")
        elif state == "start":
            self._start_speaking(now_ms)
        elif state == "sentence_start" and isinstance(message.get("text"), str):
            self.log.sentences.append(message["text"])
        elif state == "stop":
            self._stop_speaking(now_ms)

    def _start_speaking(self, now_ms: float) -> None:
        if not self._enter(State.SPEAKING):
            self.fault(f"tts/start while {self.state}: refused")
            return
        self.log.started_ms = now_ms
        self._waits_for_silence = False
        self.is_mic_on = self.is_mic_on and self.mode == "realtime"
        self.playback.reset(now_ms)

    def _stop_speaking(self, now_ms: float) -> None:
        log = self.log
        if log.aborted_ms is not None and log.obeyed_ms is None:
            log.obeyed_ms = log.stopped_ms = now_ms
        if self.state is not State.SPEAKING:
            return
        log.stopped_ms = now_ms
        if self.mode == "manual":
            self._enter(State.IDLE)
        else:
            self._begin_listening(now_ms)

    def _on_stt(self, message: dict[str, Any], now_ms: float) -> None:
        if isinstance(message.get("text"), str):
            self.log.heard = message["text"]
            self.log.transcript_ms = now_ms

    def _on_llm(self, message: dict[str, Any], _now_ms: float) -> None:
        if isinstance(message.get("emotion"), str):
            self.log.emotion = message["emotion"]

    def _on_alert(self, message: dict[str, Any], _now_ms: float) -> None:
        parts = [message.get(name) for name in ("status", "message", "emotion")]
        if all(isinstance(part, str) for part in parts):
            self.log.alerts.append(f"{parts[0]}: {parts[1]}")
        else:
            self.fault("an alert without status, message and emotion: ignored")

    def _on_system(self, message: dict[str, Any], _now_ms: float) -> None:
        self.must_reboot = self.must_reboot or message.get("command") == "reboot"

    def _on_mcp(self, message: dict[str, Any], _now_ms: float) -> None:
        payload = message.get("payload")
        if not isinstance(payload, dict) or payload.get("jsonrpc") != "2.0" or type(payload.get("id")) is not int:
            return
        if answer := self._answer(payload):
            self._send(type="mcp", payload={"jsonrpc": "2.0", "id": payload["id"]} | answer)

    def _answer(self, request: dict[str, Any]) -> dict[str, Any] | None:
        """Answer as firmware does: an error has a message and no code (protocol §10); None for what takes its time."""
        method, params = request.get("method"), request.get("params")
        params = params if isinstance(params, dict) else {}
        if method == "initialize":
            self.vision = _vision(params) or self.vision
            return {"result": GREETING}
        if method == "tools/list":
            return {"result": {"tools": self.tools}}
        if method != "tools/call":
            return {"error": {"message": "unknown method"}}
        arguments = params.get("arguments")
        arguments = arguments if isinstance(arguments, dict) else {}
        if params.get("name") == PHOTO_TOOL["name"] and PHOTO_TOOL in self.tools:
            return self._take_photo(request["id"], arguments)
        return self._run(params.get("name"), arguments)

    def _take_photo(self, request_id: int, arguments: dict[str, Any]) -> dict[str, Any] | None:
        question = arguments.get("question")
        if not isinstance(question, str):
            return {"error": {"message": "Missing valid argument: question"}}
        if self.vision is None:
            return {"error": {"message": "Image explain URL or token is not set"}}
        self.photos.append(Photo(request_id, question))
        return None

    def _run(self, tool: object, arguments: dict[str, Any]) -> dict[str, Any]:
        text = "true"
        if tool == "self.get_device_status":
            text = msgspec.json.encode({"audio_speaker": {"volume": self.volume}}).decode()
        elif tool != "self.audio_speaker.set_volume":
            return {"error": {"message": "Unknown tool"}}
        elif type(volume := arguments.get("volume")) is int and 0 <= volume <= MAX_VOLUME:
            self.volume = volume
        else:
            return {"error": {"message": f"volume must be an integer from 0 to {MAX_VOLUME}"}}
        return _told(text)

    def _begin_listening(self, now_ms: float) -> None:
        if not self._enter(State.LISTENING):
            return
        if self.is_mic_on:
            return
        if self.playback.is_drained(now_ms):
            self._open_microphone()
        else:
            self._waits_for_silence = True

    def _open_microphone(self) -> None:
        self._waits_for_silence = False
        self.is_mic_on = True
        self._send(type="listen", state="start", mode=self.mode)

    def _enter(self, state: State) -> bool:
        allowed = state in NEXT[self.state]
        if allowed:
            self.state = state
        return allowed

    def _send(self, **message: Any) -> None:
        self._say(session_id=self.session_id, **message)

    def _say(self, **message: Any) -> None:
        self.outbox.append(msgspec.json.encode(message).decode())


def _as_object(text: str) -> dict[str, Any]:
    try:
        message = msgspec.json.decode(text)
    except msgspec.MsgspecError:
        return {}
    return message if isinstance(message, dict) else {}


def _told(text: str) -> dict[str, Any]:
    return {"result": {"content": [{"type": "text", "text": text}], "isError": False}}


def _vision(params: dict[str, Any]) -> VisionOffer | None:
    """Return what a greeting says of the camera, the only part of it that is read."""
    capabilities = params.get("capabilities")
    vision = capabilities.get("vision") if isinstance(capabilities, dict) else None
    if not isinstance(vision, dict) or not isinstance(vision.get("url"), str):
        return None
    token = vision.get("token")
    return VisionOffer(vision["url"], token if isinstance(token, str) else "")
