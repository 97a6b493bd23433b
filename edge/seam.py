"""The seam: what crosses between the gateway, which holds a device's socket, and the brain, which answers it.

Every message names its session. ``fence`` kills what is stale: the gateway raises it by one each time the device interrupts, every
message up carries it, the brain stamps its answers with the fence of the turn they belong to, and the gateway drops whatever comes
down with an older fence. So a late ``tts/start`` or packet of an interrupted turn can never reach the device, whoever is slow.

The brain may run ahead of the loudspeaker by ``SPEECH_WINDOW_MS`` of sound; the gateway says how far it played with ``Played``.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from coordinator.wire import decoded

DOWNLINK_RATE_HZ = 24_000
"""Rate the server hello announces; 137 of 148 board configurations play at 24 kHz, protocol §4.3."""
DOWNLINK_FRAME_MS = 60
"""Opus frame length of the speech going down."""
UPLINK_RATE_HZ = 16_000
"""Rate of the microphone's Opus stream, protocol §6.1."""
SPEECH_WINDOW_MS = 30_000
"""Speech the brain may send beyond what was played; 500 packets, about 75 kB a device."""
BEAT_S = 1.0
"""Seconds between two beats of a brain; three missed ones count as dead (architecture, decision 9)."""

ListenMode = Literal["auto", "manual", "realtime"]
Outcome = Literal["answered", "silent", "interrupted", "failed"]


class Up(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """A message from the gateway to the brain."""

    session_id: str
    fence: int = 0


class SessionOpened(Up, frozen=True, kw_only=True, tag="opened"):
    """A device said hello."""

    device_id: str
    client_id: str = ""
    language: str = ""
    """BCP-47 primary tag from the device's record, "" when unknown."""
    frame_ms: int = 60
    """Length of the device's Opus packets."""


class ListenStarted(Up, frozen=True, kw_only=True, tag="listen-started"):
    """The microphone streams from now on."""

    mode: ListenMode = "auto"


class ListenStopped(Up, frozen=True, kw_only=True, tag="listen-stopped"):
    """Push-to-talk was released: the utterance ends here."""


class WakeWordHeard(Up, frozen=True, kw_only=True, tag="wake-word"):
    """The device heard its wake word, or a client typed ``text`` (protocol §7.1)."""

    text: str = ""


class AudioUp(Up, frozen=True, kw_only=True, tag="audio"):
    """One Opus packet from the microphone."""

    seq: int
    """Counts this session's packets from 0, without gaps."""
    packet: bytes


class Aborted(Up, frozen=True, kw_only=True, tag="aborted"):
    """The device interrupted; ``fence`` is already the new one."""

    reason: str = ""


class Played(Up, frozen=True, kw_only=True, tag="played"):
    """How much of a turn's speech has been handed to the device."""

    turn_id: str
    played_ms: int


class SessionClosed(Up, frozen=True, kw_only=True, tag="closed"):
    """The socket is gone; everything of this session ends."""


class Down(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """A message from the brain to the gateway."""

    session_id: str
    fence: int = 0


class Heard(Down, frozen=True, kw_only=True, tag="heard"):
    """The transcript of a turn that will be answered: ``stt`` and ``tts/start`` for the device."""

    turn_id: str
    text: str


class Felt(Down, frozen=True, kw_only=True, tag="felt"):
    """The face to show: ``llm`` for the device."""

    turn_id: str
    emotion: str


class SentenceStarted(Down, frozen=True, kw_only=True, tag="sentence"):
    """The text of the speech that follows: ``tts/sentence_start`` for the device."""

    turn_id: str
    text: str


class SpeechDown(Down, frozen=True, kw_only=True, tag="speech"):
    """Opus packets of DOWNLINK_FRAME_MS each at DOWNLINK_RATE_HZ, in playing order."""

    turn_id: str
    packets: tuple[bytes, ...]


class SpeechHeld(Down, frozen=True, kw_only=True, tag="held"):
    """Somebody may be interrupting: play no more of this turn, and keep it."""

    turn_id: str


class SpeechResumed(Down, frozen=True, kw_only=True, tag="resumed"):
    """Nobody was: go on where the turn was held."""

    turn_id: str


class TurnEnded(Down, frozen=True, kw_only=True, tag="turn-ended"):
    """Nothing more comes for this turn; ``tts/stop`` once everything queued is played (at once unless "answered")."""

    turn_id: str
    outcome: Outcome
    code: str = ""
    """The error's code when the outcome is "failed"."""


class SessionRefused(Down, frozen=True, kw_only=True, tag="refused"):
    """The brain will not serve this session; the device is told why by ``alert`` and the socket closed."""

    code: str


UpMessage = SessionOpened | ListenStarted | ListenStopped | WakeWordHeard | AudioUp | Aborted | Played | SessionClosed
DownMessage = Heard | Felt | SentenceStarted | SpeechDown | SpeechHeld | SpeechResumed | TurnEnded | SessionRefused


class BrainBeat(msgspec.Struct, frozen=True, kw_only=True):
    """A brain says it lives."""

    brain_id: str
    sessions: int = 0


def up_subject(node_id: str) -> str:
    """Subject a node's brain listens on."""
    return f"voice.seam.{node_id}.up"


def down_subject(node_id: str) -> str:
    """Subject a node's gateway listens on."""
    return f"voice.seam.{node_id}.down"


def beat_subject(node_id: str) -> str:
    """Subject a node's brain beats on."""
    return f"voice.seam.{node_id}.beat"


_encoder = msgspec.msgpack.Encoder()
_up: msgspec.msgpack.Decoder[UpMessage] = msgspec.msgpack.Decoder(UpMessage)
_down: msgspec.msgpack.Decoder[DownMessage] = msgspec.msgpack.Decoder(DownMessage)
_beat = msgspec.msgpack.Decoder(BrainBeat)


def encode(message: Up | Down | BrainBeat) -> bytes:
    """Return the message as msgpack."""
    return _encoder.encode(message)


def decode_up(payload: bytes) -> UpMessage:
    """Return the message; raise msgspec.MsgspecError for anything else."""
    return decoded(_up, payload)


def decode_down(payload: bytes) -> DownMessage:
    """Return the message; raise msgspec.MsgspecError for anything else."""
    return decoded(_down, payload)


def decode_beat(payload: bytes) -> BrainBeat:
    """Return the beat; raise msgspec.MsgspecError for anything else."""
    return decoded(_beat, payload)
