"""The server's side of one device's conversation without I/O: messages in, events out; what to say, as messages.

Feed ``receive_text`` and ``receive_binary`` with whatever came from the socket; they never raise. What the protocol does not allow
becomes a ``Violation``; after a fatal one, close. The other methods return the message to send. Only two things are remembered: which
of the device's messages have come, and whether it listens. protocol.md §4.2 and §7 are the source of every name here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import msgspec

from edge.gateway import framing
from edge.gateway.framing import BinaryFrame
from edge.seam import DOWNLINK_FRAME_MS, DOWNLINK_RATE_HZ, ListenMode
from models.errors import DeviceProtocolError

MAX_TEXT_CHARS = 32 * 1024
"""Largest JSON a device may send: four times a page of MCP tools, the largest message there is (protocol §10). A guess."""
MAX_PACKET_BYTES = 4_000
"""Largest Opus packet we pass on; the bound that libopus recommends for its encoder's output."""
MAX_TYPED_CHARS = 2_000
"""Longest text a client may type through ``listen/detect``. A guess."""
MAX_SHOWN_CHARS = 1_500
"""Longest text shown on a device: 4.5 kB of Chinese, below the 8 kB a device can hold (protocol §4.1)."""
MAX_VIOLATIONS_IN_A_ROW = 50
"""So many messages without a sound one among them and the peer is no device: 3 s of packets. A guess."""
FRAME_LENGTHS_MS = (5, 10, 20, 40, 60, 80, 100, 120)
"""What Opus packets can hold (protocol §4.3)."""


class Hello(msgspec.Struct, frozen=True, kw_only=True):
    """The device introduced itself."""

    version: int
    """Binary framing both sides use from now on."""
    has_mcp: bool = False
    has_server_aec: bool = False
    """The device wants timestamps on packets (protocol §6.4)."""
    frame_ms: int = 60
    language: str = ""
    """BCP-47 primary tag if the client says one; stock firmware does not."""


class ListenStart(msgspec.Struct, frozen=True, kw_only=True):
    """The microphone streams from now on."""

    mode: ListenMode


class ListenStop(msgspec.Struct, frozen=True, kw_only=True):
    """Push-to-talk was released."""


class WakeWord(msgspec.Struct, frozen=True, kw_only=True):
    """The wake word was heard, or a client typed ``text``."""

    text: str


class AudioPacket(msgspec.Struct, frozen=True, kw_only=True):
    """One Opus packet from the microphone; before ``listen/start`` it is what was said before the wake word fired."""

    payload: bytes
    timestamp_ms: int


class Abort(msgspec.Struct, frozen=True, kw_only=True):
    """The user interrupted; the device waits for ``tts/stop``."""

    reason: str


class Mcp(msgspec.Struct, frozen=True, kw_only=True):
    """A JSON-RPC message from the device's tools."""

    payload: dict[str, Any]


class Goodbye(msgspec.Struct, frozen=True, kw_only=True):
    """The client ends the session."""


class Ignored(msgspec.Struct, frozen=True, kw_only=True):
    """A message that means nothing here; ``kind`` is one of a few words of ours."""

    kind: str


class Violation(msgspec.Struct, frozen=True, kw_only=True):
    """A message the protocol does not allow; it was dropped. ``message`` holds sizes, never content."""

    code: str
    message: str
    fatal: bool = False


DeviceEvent = Hello | ListenStart | ListenStop | WakeWord | AudioPacket | Abort | Mcp | Goodbye | Ignored | Violation


class _Kind(msgspec.Struct):
    type: str


class _AudioParams(msgspec.Struct):
    format: str = "opus"
    frame_duration: int = 60


class _Features(msgspec.Struct):
    mcp: bool | None = False
    aec: bool | None = False


class _Hello(msgspec.Struct):
    version: int | None = None
    transport: str = "websocket"
    features: _Features | None = None
    audio_params: _AudioParams | None = None
    language: str | None = None


class _Listen(msgspec.Struct):
    state: Literal["start", "stop", "detect"]
    mode: ListenMode = "auto"
    text: str = ""


class _Abort(msgspec.Struct):
    reason: str | None = None


class _Mcp(msgspec.Struct):
    payload: dict[str, Any]


_Parsed = dict[str, tuple[type[msgspec.Struct], Callable[[Any], DeviceEvent]]]


class DeviceProtocol:
    """One connection; ``version`` is the Protocol-Version header's, None when there was none and hello decides."""

    def __init__(self, session_id: str, *, version: int | None = None) -> None:
        self.has_greeted = False
        """Whether a sound hello came."""
        self.has_listened = False
        """Whether a listen message came; before that a device is Connecting and must not be told to speak (protocol §8.1)."""
        self.is_listening = False
        """Whether the device's last word, or ours, leaves its microphone open."""
        self.version = version or framing.BARE
        self._session_id = session_id
        self._is_version_fixed = version is not None
        self._mode: ListenMode = "auto"
        self._violations_in_a_row = 0
        self._known: _Parsed = {
            "hello": (_Hello, self._on_hello),
            "listen": (_Listen, self._on_listen),
            "abort": (_Abort, self._on_abort),
            "mcp": (_Mcp, _on_mcp),
            "goodbye": (_Kind, lambda _message: Goodbye()),
            "iot": (_Kind, lambda _message: Ignored(kind="iot")),
            "ping": (_Kind, lambda _message: Ignored(kind="ping")),
        }

    def receive(self, message: str | bytes) -> list[DeviceEvent]:
        """Return what a message means; never raises."""
        return self.receive_text(message) if isinstance(message, str) else self.receive_binary(message)

    def receive_text(self, text: str) -> list[DeviceEvent]:
        """Return what a text message means; never raises."""
        return self._judged(self._read_text(text))

    def receive_binary(self, message: bytes) -> list[DeviceEvent]:
        """Return what a binary message means; never raises."""
        return self._judged(self._read_binary(message))

    def hello(self) -> str:
        """Return the answer to hello: we speak Opus of DOWNLINK_FRAME_MS at DOWNLINK_RATE_HZ."""
        audio = {"format": "opus", "sample_rate": DOWNLINK_RATE_HZ, "channels": 1, "frame_duration": DOWNLINK_FRAME_MS}
        return self._message("hello", transport="websocket", audio_params=audio)

    def stt(self, text: str) -> str:
        """Return the message that shows what the user said."""
        return self._message("stt", text=text[:MAX_SHOWN_CHARS])

    def tts_start(self) -> str:
        """Return the message that opens the loudspeaker, and but in realtime mode closes the microphone."""
        self.is_listening = self.is_listening and self._mode == "realtime"
        return self._message("tts", state="start")

    def sentence_start(self, text: str) -> str:
        """Return the message that shows what is being said."""
        return self._message("tts", state="sentence_start", text=text[:MAX_SHOWN_CHARS])

    def tts_stop(self) -> str:
        """Return the message that closes the loudspeaker."""
        return self._message("tts", state="stop")

    def emotion(self, emotion: str) -> str:
        """Return the message that sets the face."""
        return self._message("llm", emotion=emotion)

    def alert(self, status: str, message: str, emotion: str) -> str:
        """Return the message that shows a warning and sounds a tone."""
        return self._message("alert", status=status, message=message[:MAX_SHOWN_CHARS], emotion=emotion)

    def system(self, command: str) -> str:
        """Return the message that makes the device carry out ``command``; firmware knows "reboot"."""
        return self._message("system", command=command)

    def mcp(self, payload: dict[str, Any]) -> str:
        """Return the message that carries a JSON-RPC request to the device's tools; ids must be numbers (protocol §10)."""
        return self._message("mcp", payload=payload)

    def audio(self, packet: bytes, timestamp_ms: int = 0) -> bytes:
        """Return the message that carries one Opus packet; raise DeviceProtocolError when it is too large for its framing."""
        return framing.encode(BinaryFrame(payload=packet, timestamp_ms=timestamp_ms), self.version)

    def _message(self, kind: str, **fields: Any) -> str:
        return msgspec.json.encode({"type": kind, "session_id": self._session_id, **fields}).decode()

    def _judged(self, event: DeviceEvent) -> list[DeviceEvent]:
        if not isinstance(event, Violation):
            self._violations_in_a_row = 0
            return [event]
        self._violations_in_a_row += 1
        if self._violations_in_a_row < MAX_VIOLATIONS_IN_A_ROW or event.fatal:
            return [event]
        count = self._violations_in_a_row
        return [event, Violation(code="too-many", message=f"{count} violations in a row", fatal=True)]

    def _read_text(self, text: str) -> DeviceEvent:
        if len(text) > MAX_TEXT_CHARS:
            return Violation(code="text-too-large", message=f"{len(text)} characters, {MAX_TEXT_CHARS} are allowed")
        kind = ""
        try:
            kind = msgspec.json.decode(text, type=_Kind).type
            if kind not in self._known:
                return Ignored(kind="unknown-type")
            if not self.has_greeted and kind not in {"hello", "ping", "iot"}:
                return Violation(code="hello-first", message=f"{kind} before hello")
            shape, meaning = self._known[kind]
            return meaning(msgspec.json.decode(text, type=shape))
        except (msgspec.MsgspecError, RecursionError, UnicodeError, OverflowError) as error:
            name = kind or "a message that is no JSON object with a type"
            return Violation(code="malformed", message=f"{name}: {type(error).__name__}", fatal=kind == "hello")

    def _read_binary(self, message: bytes) -> DeviceEvent:
        if not self.has_greeted:
            return Violation(code="hello-first", message=f"{len(message)} bytes of audio before hello")
        try:
            frame = framing.decode(message, self.version)
        except DeviceProtocolError as error:
            return Violation(code="bad-frame", message=str(error))
        if not 0 < len(frame.payload) <= MAX_PACKET_BYTES:
            return Violation(code="bad-packet", message=f"an Opus packet of {len(frame.payload)} bytes")
        return AudioPacket(payload=frame.payload, timestamp_ms=frame.timestamp_ms)

    def _on_hello(self, message: _Hello) -> DeviceEvent:
        if self.has_greeted:
            return Violation(code="hello-twice", message="a second hello")
        audio, features = message.audio_params or _AudioParams(), message.features or _Features()
        if message.transport != "websocket" or audio.format != "opus":
            return Violation(code="unsupported", message="only Opus over WebSocket is spoken here", fatal=True)
        if audio.frame_duration not in FRAME_LENGTHS_MS:
            return Violation(code="unsupported", message="no such frame length in Opus", fatal=True)
        if not self._is_version_fixed and message.version in framing.VERSIONS:
            self.version = message.version
        self.has_greeted = True
        return Hello(
            version=self.version,
            has_mcp=bool(features.mcp),
            has_server_aec=bool(features.aec),
            frame_ms=audio.frame_duration,
            language=_primary_tag(message.language or ""),
        )

    def _on_listen(self, message: _Listen) -> DeviceEvent:
        if len(message.text) > MAX_TYPED_CHARS:
            return Violation(code="text-too-large", message=f"a wake word of {len(message.text)} characters")
        self.has_listened = True
        if message.state == "detect":
            return WakeWord(text=message.text)
        if message.state == "stop":
            self.is_listening = False
            return ListenStop()
        if self.is_listening and self._mode == message.mode:
            return Ignored(kind="listen-repeated")
        self.is_listening, self._mode = True, message.mode
        return ListenStart(mode=message.mode)

    def _on_abort(self, message: _Abort) -> DeviceEvent:
        """A device that interrupts says ``listen/start`` again, in every mode when its wake word did it (protocol §8.3)."""
        self.is_listening = False
        return Abort(reason=(message.reason or "")[:64])


def _on_mcp(message: _Mcp) -> DeviceEvent:
    """JSON has numbers of any size; raise OverflowError for those that nothing behind this could pass on."""
    msgspec.msgpack.encode(message.payload)
    return Mcp(payload=message.payload)


def _primary_tag(language: str) -> str:
    """Return "zh" of "zh-CN"; "" for what is no language tag."""
    tag = language.replace("_", "-").partition("-")[0].lower()
    return tag if tag.isascii() and tag.isalpha() and len(tag) in {2, 3} else ""
