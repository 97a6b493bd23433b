"""The record of one turn: what was heard, who answered and why, and when each mark was passed."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from coordinator.wire import decoded


class Tier(StrEnum):
    """Where an answer is made."""

    CACHE = "cache"
    EDGE = "edge"
    CLOUD = "cloud"


class RoutingDecision(msgspec.Struct, frozen=True, kw_only=True):
    """Why a prompt went where it went; a fallback makes a second one with its own reason."""

    turn_id: str
    tier: Tier
    reason: str
    """Kebab-case: "private", "real-time", "device-command", "asked-to-think", "below-threshold", "complex", "remembered", ..."""
    score: float = 0.0
    """In [0, 1]."""
    threshold: float = 0.0
    """In [0, 1]; the cloud is asked when score >= threshold."""
    pool: str = ""
    """Cloud pool that is asked; "" unless ``tier`` is the cloud."""
    gain: float = 0.0
    """How much likelier the cloud is right than the edge, in [-1, 1]; 0 where nothing was predicted."""
    policy: int = 0
    """Version of the policy that decided."""
    arm: str = ""
    """Arm of a comparison this device is in; "" outside one."""


class Marks(msgspec.Struct, frozen=True, kw_only=True):
    """Milliseconds after the end of the utterance was *known* (``endpoint``); None when the turn did not get there.

    Add ``endpoint_wait_ms`` for the time since the person stopped talking.
    """

    endpoint_wait_ms: float = 0.0
    """Silence in audio time that had to pass before the end was sure."""
    transcript_ms: float | None = None
    first_token_ms: float | None = None
    first_sentence_ms: float | None = None
    first_audio_ms: float | None = None
    """First Opus packet handed to the gateway."""
    ended_ms: float | None = None


class TurnRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One finished turn. Holds what was said: it goes to subscribers, never into a log."""

    turn_id: str
    session_id: str
    device_id: str
    edge_id: str
    outcome: str
    """answered, silent, interrupted or failed."""
    code: str = ""
    heard: str = ""
    language: str = ""
    answer: str = ""
    model: str = ""
    decisions: tuple[RoutingDecision, ...] = ()
    """In order; the last one is where the answer came from."""
    marks: Marks = Marks()


_decoder = msgspec.msgpack.Decoder(TurnRecord)


def decode_turn(payload: bytes) -> TurnRecord:
    """Return the record; raise msgspec.MsgspecError for anything else."""
    return decoded(_decoder, payload)
