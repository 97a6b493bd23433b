"""The contract on NATS: subjects, messages and caps. Everything that crosses a machine is defined here or in ``edge.seam``.

An edge asks a *pool* (a queue group of workers), never a worker. The answer streams to a subject of the asker's own. Cancelling is
a message to the whole pool, because the asker does not know who took the request. Budgets travel as milliseconds left.

    voice.complete.<pool>                 CompletionRequest       edge -> one worker of the queue group <pool>
    voice.cancel.<pool>                   CompletionCancel        edge -> every worker of the pool
    voice.answer.<edge>.<request>         AnswerFrame             worker -> the edge that asked
    voice.beat.edge.<edge>                EdgeBeat                edge -> coordinator service
    voice.beat.pool.<pool>.<worker>       PoolBeat                worker -> whoever cares
    voice.turn.<edge>.<turn>              TurnRecord (turns.py)   edge -> whoever watches, and the stream that keeps them
    $KV.policy.routing                    routing policy, JSON    operator -> every edge, which keeps the last good one

The last two are also what JetStream keeps in the hub: the stream ``TURN_STREAM``, only when the operator wants it, and the key-value
bucket ``POLICY_BUCKET``.
"""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

from models.errors import ConfigError
from models.prompts import Prompt, Usage

MAX_PAYLOAD_BYTES = 256 * 1024
"""Largest message we send or accept; nats-server refuses above 1 MiB by default. A guess that fits a long dialogue ten times over."""
ANSWER_BEAT_S = 0.5
"""A worker that is busy but has nothing to say sends ``AnswerBeat`` this often."""
ANSWER_SILENCE_S = 2.0
"""An asker that heard nothing for so long takes the worker for lost."""

POLICY_BUCKET = "policy"
"""Key-value bucket of what an operator decides for the fleet."""
POLICY_KEY = "routing"
"""Key of the routing policy in it."""
TURN_STREAM = "TURNS"
"""Stream that keeps the records of finished turns."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")


def token(name: str) -> str:
    """Return ``name`` if it may stand between two dots of a subject; raise ConfigError otherwise."""
    if not _TOKEN.fullmatch(name):
        raise ConfigError(f"{name[:80]!r} cannot be part of a NATS subject: use 1 to 64 letters, digits, '-' or '_'")
    return name


def complete_subject(pool: str) -> str:
    """Subject on which a pool takes requests."""
    return f"voice.complete.{token(pool)}"


def cancel_subject(pool: str) -> str:
    """Subject on which a pool's workers hear of cancelled requests."""
    return f"voice.cancel.{token(pool)}"


def answer_subject(edge_id: str, request_id: str) -> str:
    """Subject one answer streams to."""
    return f"voice.answer.{token(edge_id)}.{token(request_id)}"


def edge_beat_subject(edge_id: str) -> str:
    """Subject of an edge's heartbeat; ``*`` listens to all."""
    return f"voice.beat.edge.{edge_id if edge_id == '*' else token(edge_id)}"


def pool_beat_subject(pool: str, worker_id: str) -> str:
    """Subject of a worker's heartbeat; ``*`` for the worker listens to the whole pool."""
    return f"voice.beat.pool.{token(pool)}.{worker_id if worker_id == '*' else token(worker_id)}"


def turn_subject(edge_id: str, turn_id: str = "*") -> str:
    """Subject of the record of one finished turn; ``*`` listens to all edges, all turns."""
    edge, turn = (name if name == "*" else token(name) for name in (edge_id, turn_id))
    return f"voice.turn.{edge}.{turn}"


class CompletionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Please answer this prompt; ``prompt.budget_ms`` counts from when the worker receives it."""

    request_id: str
    prompt: Prompt


class CompletionCancel(msgspec.Struct, frozen=True, kw_only=True):
    """Nobody waits for this answer any more."""

    request_id: str


class AnswerFrame(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """One message of an answer; ``seq`` counts them from 0 without gaps, so a lost one is noticed."""

    seq: int


class AnswerBeat(AnswerFrame, frozen=True, kw_only=True, tag="beat"):
    """The worker is busy with the request."""

    worker_id: str = ""


class AnswerDelta(AnswerFrame, frozen=True, kw_only=True, tag="delta"):
    """The next piece of text."""

    text: str
    model: str = ""


class AnswerEnd(AnswerFrame, frozen=True, kw_only=True, tag="end"):
    """The answer is complete."""

    usage: Usage | None = None


class AnswerFailed(AnswerFrame, frozen=True, kw_only=True, tag="failed"):
    """There will be no (more) answer; ``code`` is one of models.errors."""

    code: str
    message: str = ""


AnyAnswerFrame = AnswerBeat | AnswerDelta | AnswerEnd | AnswerFailed


class EdgeBeat(msgspec.Struct, frozen=True, kw_only=True):
    """An edge lives and takes devices at ``websocket_url``."""

    edge_id: str
    websocket_url: str
    region: str = ""
    active_devices: int = 0
    max_devices: int = 150
    ready: bool = True


class PoolBeat(msgspec.Struct, frozen=True, kw_only=True):
    """A worker lives and has so much to do."""

    pool: str
    worker_id: str
    model: str = ""
    running: int = 0
    max_running: int = 0
    ready: bool = True


M = TypeVar("M")

_encoder = msgspec.msgpack.Encoder()
_request = msgspec.msgpack.Decoder(CompletionRequest)
_cancel = msgspec.msgpack.Decoder(CompletionCancel)
_answer: msgspec.msgpack.Decoder[AnyAnswerFrame] = msgspec.msgpack.Decoder(AnyAnswerFrame)
_edge_beat = msgspec.msgpack.Decoder(EdgeBeat)
_pool_beat = msgspec.msgpack.Decoder(PoolBeat)


def encode(message: msgspec.Struct) -> bytes:
    """Return any message of the contract as msgpack."""
    return _encoder.encode(message)


def decoded(decoder: msgspec.msgpack.Decoder[M], payload: bytes) -> M:
    """Return the decoder's message; raise msgspec.MsgspecError for anything else, broken text and endless nesting included."""
    try:
        return decoder.decode(payload)
    except (UnicodeDecodeError, RecursionError) as error:
        raise msgspec.DecodeError(type(error).__name__) from error


def decode_request(payload: bytes) -> CompletionRequest:
    """Return the request; raise msgspec.MsgspecError for anything else."""
    return decoded(_request, payload)


def decode_cancel(payload: bytes) -> CompletionCancel:
    """Return the cancel; raise msgspec.MsgspecError for anything else."""
    return decoded(_cancel, payload)


def decode_answer(payload: bytes) -> AnyAnswerFrame:
    """Return the frame; raise msgspec.MsgspecError for anything else."""
    return decoded(_answer, payload)


def decode_edge_beat(payload: bytes) -> EdgeBeat:
    """Return the beat; raise msgspec.MsgspecError for anything else."""
    return decoded(_edge_beat, payload)


def decode_pool_beat(payload: bytes) -> PoolBeat:
    """Return the beat; raise msgspec.MsgspecError for anything else."""
    return decoded(_pool_beat, payload)
