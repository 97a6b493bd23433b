"""The contract on NATS: subjects, messages and caps. Everything that crosses a machine is defined here or in ``edge.seam``.

An edge asks a *pool* (a queue group of workers), never a worker. The answer streams to a subject of the asker's own, one for each
request: what still comes for a cancelled one meets nobody. Cancelling is a message to the worker that answers or, before it was heard,
to the whole pool. An asker beats for all its requests at once to each worker that answers it. Budgets travel as milliseconds left.
An edge's key lets it use its own name alone, and a worker believes the subject: nobody has one speak to another edge, or stops its work.

    voice.complete.<pool>.<edge>          CompletionRequest       edge -> one worker of the queue group <pool>
    voice.complete.<pool>.<edge>.<worker> CompletionRequest       edge -> this worker, while another one of the pool seems lost
    voice.cancel.<pool>.<edge>            CompletionCancel        edge -> every worker of the pool
    voice.cancel.<pool>.<edge>.<worker>   CompletionCancel        edge -> the worker that answers
    voice.asking.<pool>.<edge>.<worker>   AskerBeat               edge -> the worker that answers
    voice.answer.<edge>.<asker>.<request> AnswerFrame             worker -> the edge that asked
    voice.beat.edge.<edge>                EdgeBeat                edge -> coordinator service
    voice.beat.pool.<pool>.<worker>       PoolBeat                worker -> whoever cares
    voice.turn.<edge>.<turn>              TurnRecord (turns.py)   edge -> whoever watches, and the stream that keeps them
    voice.usage.<edge>                    UsageReport (preloading/reports.py)  edge -> the stream the coordinator service reads
    $KV.policy.routing                    routing policy, JSON    operator -> every edge, which keeps the last good one
    $KV.policy.cache                      Purges (cache/purges)   operator -> every edge, which forgets what was made before
    $KV.forecast.<group>                  Foreseen (preloading/foreseen.py)    coordinator -> the group's edges, every hour

The last five are also what JetStream keeps in the hub: the stream ``TURN_STREAM``, only when the operator wants it, the stream
``USAGE_STREAM``, and the key-value buckets ``POLICY_BUCKET`` and ``FORECAST_BUCKET``.
"""

from __future__ import annotations

import re
from typing import TypeVar

import msgspec

from models.errors import ConfigError
from models.prompts import Prompt, Usage

MAX_PAYLOAD_BYTES = 256 * 1024
"""Largest message we send or accept; nats-server refuses above 1 MiB by default. A guess that fits a long dialogue ten times over."""
ANSWER_BEAT_S = 0.25
"""A worker that is busy but has nothing to say sends ``AnswerBeat`` after so long, at most twice that."""
FIRST_SIGN_S = 1.0
"""An asker that heard not even a beat for so long takes the request for lost. A guess: twice the latest first beat."""
ANSWER_SILENCE_S = 2.0
"""An asker that heard nothing more for so long takes the worker for lost."""
ASKER_BEAT_S = 1.0
"""An asker beats this often to each worker that answers it."""
ASKER_SILENCE_S = 3.0
"""A worker that heard nothing of an asker for so long ends its requests: two beats may be lost."""

TURN, PRELOAD = 0, 1
"""Priorities of requests: somebody waits for the answer, or somebody may some day. Higher numbers come later."""

POLICY_BUCKET = "policy"
"""Key-value bucket of what an operator decides for the fleet."""
POLICY_KEY = "routing"
"""Key of the routing policy in it."""
PURGE_KEY = "cache"
"""Key in the same bucket of what every edge's cache is to forget."""
TURN_STREAM = "TURNS"
"""Stream that keeps the records of finished turns."""
USAGE_STREAM = "USAGE"
"""Stream that keeps what edges report of their use of content."""
FORECAST_BUCKET = "forecast"
"""Key-value bucket of what each group will ask for in the hour."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,64}")


def token(name: str) -> str:
    """Return ``name`` if it may stand between two dots of a subject; raise ConfigError otherwise."""
    if not _TOKEN.fullmatch(name):
        raise ConfigError(f"{name[:80]!r} cannot be part of a NATS subject: use 1 to 64 letters, digits, '-' or '_'")
    return name


def complete_subject(pool: str, edge_id: str, worker_id: str = "") -> str:
    """Subject on which an edge asks a pool, or one worker of it; ``*`` for the edge listens to all."""
    return _asked("complete", pool, edge_id, worker_id)


def cancel_subject(pool: str, edge_id: str, worker_id: str = "") -> str:
    """Subject on which an edge cancels its requests, at every worker of a pool or at one; ``*`` for the edge listens to all."""
    return _asked("cancel", pool, edge_id, worker_id)


def asker_beat_subject(pool: str, edge_id: str, worker_id: str) -> str:
    """Subject on which one worker hears that an edge's askers still wait; ``*`` for the edge listens to all."""
    return _asked("asking", pool, edge_id, worker_id)


def edge_of(subject: str) -> str:
    """Return the edge that says what is said on one of the three subjects above: its key lets it use no other name."""
    return subject.split(".", 4)[3]


def is_answer_to(edge_id: str, subject: str) -> bool:
    """Return whether what is said on ``subject`` reaches that edge alone."""
    return subject.startswith(f"voice.answer.{edge_id}.")


def answer_subject(edge_id: str, request_id: str) -> str:
    """Subject one answer streams to, for an asker with a subscription for each."""
    return f"voice.answer.{token(edge_id)}.{token(request_id)}"


def inbox_subject(edge_id: str, asker_id: str) -> str:
    """Subject of everything one asker is answered; with the request's id for the ``*`` the one its answer streams to."""
    return f"voice.answer.{token(edge_id)}.{token(asker_id)}.*"


def edge_beat_subject(edge_id: str) -> str:
    """Subject of an edge's heartbeat; ``*`` listens to all."""
    return f"voice.beat.edge.{_token_or_any(edge_id)}"


def pool_beat_subject(pool: str, worker_id: str) -> str:
    """Subject of a worker's heartbeat; ``*`` for the worker listens to the whole pool."""
    return f"voice.beat.pool.{token(pool)}.{_token_or_any(worker_id)}"


def turn_subject(edge_id: str, turn_id: str = "*") -> str:
    """Subject of the record of one finished turn; ``*`` listens to all edges, all turns."""
    return f"voice.turn.{_token_or_any(edge_id)}.{_token_or_any(turn_id)}"


def usage_subject(edge_id: str) -> str:
    """Subject on which an edge tells what its devices asked for; ``*`` listens to all."""
    return f"voice.usage.{_token_or_any(edge_id)}"


def _asked(what: str, pool: str, edge_id: str, worker_id: str) -> str:
    end = f".{token(worker_id)}" if worker_id else ""
    return f"voice.{what}.{token(pool)}.{_token_or_any(edge_id)}{end}"


def _token_or_any(name: str) -> str:
    return name if name == "*" else token(name)


class CompletionRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Please answer this prompt; ``prompt.budget_ms`` counts from when the worker receives it.

    Whose budget and share it counts to says the subject it comes on, which an edge's key binds it to.
    """

    request_id: str
    prompt: Prompt
    asker_id: str = ""
    """Name under which the asker beats, "" for one that does not."""
    priority: int = TURN
    first_token_ms: int = 0
    """How long the asker waits for the first token, 0 for as long as ``prompt.budget_ms``."""


class CompletionCancel(msgspec.Struct, frozen=True, kw_only=True):
    """Nobody waits for this answer any more."""

    request_id: str


class AskerBeat(msgspec.Struct, frozen=True, kw_only=True):
    """The asker lives and waits for all its answers."""

    asker_id: str


class AnswerFrame(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind"):
    """One message of an answer; ``seq`` counts them from 0 without gaps, so a lost one is noticed."""

    seq: int
    worker_id: str = ""
    """Set on the first frame: whom to cancel."""


class AnswerBeat(AnswerFrame, frozen=True, kw_only=True, tag="beat"):
    """The worker is busy with the request, or keeps it waiting."""


class AnswerDelta(AnswerFrame, frozen=True, kw_only=True, tag="delta"):
    """The next piece of text."""

    text: str
    model: str = ""


class AnswerEnd(AnswerFrame, frozen=True, kw_only=True, tag="end"):
    """The answer is complete with this last piece of text."""

    usage: Usage | None = None
    text: str = ""
    model: str = ""


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
    waiting: int = 0
    ready: bool = True


M = TypeVar("M")

_encoder = msgspec.msgpack.Encoder()
_request = msgspec.msgpack.Decoder(CompletionRequest)
_cancel = msgspec.msgpack.Decoder(CompletionCancel)
_asker_beat = msgspec.msgpack.Decoder(AskerBeat)
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


def decode_asker_beat(payload: bytes) -> AskerBeat:
    """Return the beat; raise msgspec.MsgspecError for anything else."""
    return decoded(_asker_beat, payload)


def decode_answer(payload: bytes) -> AnyAnswerFrame:
    """Return the frame; raise msgspec.MsgspecError for anything else."""
    return decoded(_answer, payload)


def decode_edge_beat(payload: bytes) -> EdgeBeat:
    """Return the beat; raise msgspec.MsgspecError for anything else."""
    return decoded(_edge_beat, payload)


def decode_pool_beat(payload: bytes) -> PoolBeat:
    """Return the beat; raise msgspec.MsgspecError for anything else."""
    return decoded(_pool_beat, payload)
