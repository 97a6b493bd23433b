"""The little we ask of JetStream, as plain requests on the bus: make a stream, look something up in it, read it, follow it.

What a server keeps is asked for by *domain*: "hub" is the cloud's, from any edge through its leaf; "" is the server this process is
connected to. A push or pull consumer of ours lives in the server's memory and ends by itself soon after we are gone.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec

from coordinator import wire
from coordinator.bus import Bus, BusMessage, Headers
from models.errors import CloudUnreachableError, ConfigError

ANSWER_S = 5.0
"""How long JetStream may take to answer; a hub behind a slow link needs a fraction of it."""
HEARTBEAT_S = 5.0
"""How often a followed stream says that it is there when it has nothing else to say."""
SILENCE_S = 12.0
"""A followed stream that said nothing for so long is asked anew: two heartbeats missed and a little."""
RENEW_S = 300.0
"""A followed stream is asked anew so often all the same: what was lost on a link that froze and came back is made good then."""
_LEFT_S = 30
"""How long a server keeps a consumer of ours that nobody listens to."""
_BATCH = 256
"""Messages asked for at once; a subscription takes 1024."""
_NS = 1_000_000_000

_NOT_FOUND = 404
_UNAVAILABLE = 503
_NAME_IN_USE = 10058
"""JSStreamNameExistErr: there is a stream of this name with another configuration."""
_WRONG_SEQUENCE = (10071, 10164)
"""JSStreamWrongLastSequenceErrF and its variant without the number."""


class HeaderBus(Bus, Protocol):
    """A Bus that carries headers as well, as NATS does."""

    async def publish(self, subject: str, payload: bytes, *, reply: str = "", headers: Headers = None) -> None:
        """Send; returns once handed to the connection. Raises CloudUnreachableError when not connected or too large."""
        ...


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """A message that a stream keeps."""

    payload: bytes
    sequence: int
    """Its place in the stream, from 1."""
    at_s: float
    """When the server took it, in seconds since 1970."""
    pending: int = 0
    """How many more were asked for and are still to come."""
    subject: str = ""
    """What it was said on, where a consumer delivered it."""


class _Refusal(msgspec.Struct, frozen=True):
    code: int = 0
    err_code: int = 0
    description: str = ""


class _Message(msgspec.Struct, frozen=True):
    seq: int
    time: datetime
    data: bytes = b""


class _Answer(msgspec.Struct, frozen=True):
    """Any answer of JetStream; what it does not hold is left at its default."""

    error: _Refusal | None = None
    message: _Message | None = None
    name: str = ""
    seq: int = 0


_answers = msgspec.json.Decoder(_Answer)


class JetStream:
    """Streams of one domain, asked over a bus; holds no connection and no task of its own."""

    def __init__(
        self, bus: HeaderBus, *, domain: str = "", asker: str = "operator", answer_s: float = ANSWER_S
    ) -> None:
        self._bus = bus
        self._domain = wire.token(domain) if domain else ""
        self._asker = wire.token(asker)
        self._answer_s = answer_s
        self._prefix = f"$JS.{domain}.API" if domain else "$JS.API"

    async def make(self, stream: Mapping[str, Any]) -> None:
        """Make a stream, or give the one of this name these settings; raise CloudUnreachableError, ConfigError."""
        name, request = stream["name"], msgspec.json.encode(stream)
        answer = await self._ask(f"{self._prefix}.STREAM.CREATE.{name}", request, name)
        if answer.error and answer.error.err_code == _NAME_IN_USE:
            answer = await self._ask(f"{self._prefix}.STREAM.UPDATE.{name}", request, name)
        self._check(answer, name)

    async def drop(self, stream: str) -> bool:
        """Delete a stream with all it keeps; return whether there was one. Raises CloudUnreachableError, ConfigError."""
        answer = await self._ask(f"{self._prefix}.STREAM.DELETE.{stream}", b"", stream)
        if answer.error and answer.error.code == _NOT_FOUND:
            return False
        self._check(answer, stream)
        return True

    async def has(self, stream: str) -> bool:
        """Return whether there is such a stream; raise CloudUnreachableError, ConfigError."""
        answer = await self._ask(f"{self._prefix}.STREAM.INFO.{stream}", b"", stream)
        if answer.error and answer.error.code == _NOT_FOUND:
            return False
        self._check(answer, stream)
        return True

    async def last(self, stream: str, subject: str) -> Kept | None:
        """Return the newest message on ``subject`` (``*`` allowed), None when nothing is kept; raise like ``make``."""
        request = msgspec.json.encode({"last_by_subj": subject})
        answer = await self._ask(f"{self._prefix}.STREAM.MSG.GET.{stream}", request, stream)
        if answer.error and answer.error.code == _NOT_FOUND:
            return None
        self._check(answer, stream)
        if answer.message is None:
            return None
        message = answer.message
        return Kept(payload=message.data, sequence=message.seq, at_s=message.time.timestamp())

    async def store(self, subject: str, payload: bytes, *, expected: int | None = None) -> int | None:
        """Have a bucket's stream keep a message under ``$KV...`` and return its sequence; raise CloudUnreachableError, ConfigError.

        ``expected`` is the sequence the newest message on the subject must have, 0 for none; returns None when it has another.
        """
        headers = None if expected is None else {"Nats-Expected-Last-Subject-Sequence": str(expected)}
        # A server's own $KV subjects do not cross to a leaf of another domain; these do.
        place = f"{self._prefix}.{subject}" if self._domain else subject
        answer = await self._ask(place, payload, subject, headers=headers)
        if answer.error and answer.error.err_code in _WRONG_SEQUENCE:
            return None
        self._check(answer, subject)
        return answer.seq

    async def read(self, stream: str, subject: str, *, since_s: float | None = None) -> AsyncGenerator[Kept, None]:
        """Yield what the stream keeps now on ``subject``, oldest first, from ``since_s`` (seconds since 1970) on; raise like ``make``."""
        consumer: dict[str, Any] = {"deliver_policy": "all"}
        if since_s is not None:
            start = datetime.fromtimestamp(since_s, UTC).isoformat().replace("+00:00", "Z")
            consumer = {"deliver_policy": "by_start_time", "opt_start_time": start}
        name = await self._consumer(stream, subject, consumer)
        async with self._bus.subscribe(inbox := self._inbox()) as line:
            messages = aiter(line)
            is_more = True
            while is_more:
                is_more = False
                request = msgspec.json.encode({"batch": _BATCH, "no_wait": True})
                await self._bus.publish(f"{self._prefix}.CONSUMER.MSG.NEXT.{stream}.{name}", request, reply=inbox)
                for place in range(_BATCH):
                    kept = kept_of(await self._next(messages, stream))
                    if kept is None:
                        break
                    yield kept
                    if kept.pending == 0:
                        break
                    is_more = place == _BATCH - 1

    async def follow(self, stream: str, subject: str, *, renew_s: float = RENEW_S) -> AsyncGenerator[Kept, None]:
        """Yield the newest message on ``subject`` and each one after it; end when the server falls silent or after ``renew_s``.

        Raises CloudUnreachableError or, without such a stream, ConfigError before the first message.
        """
        async with self._bus.subscribe(inbox := self._inbox()) as line:
            messages = aiter(line)
            loop = asyncio.get_running_loop()
            ends_s = loop.time() + renew_s
            push = {"deliver_policy": "last", "deliver_subject": inbox, "idle_heartbeat": int(HEARTBEAT_S * _NS)}
            await self._consumer(stream, subject, push)
            while (left_s := ends_s - loop.time()) > 0:
                try:
                    async with asyncio.timeout(min(SILENCE_S, left_s)):
                        message = await anext(messages)
                except (TimeoutError, StopAsyncIteration):
                    return
                kept = kept_of(message)
                if kept is not None:
                    yield kept

    async def _consumer(self, stream: str, subject: str, options: Mapping[str, Any]) -> str:
        """Make a consumer that ends by itself and return its name."""
        config = {
            "ack_policy": "none",
            "filter_subject": subject,
            "inactive_threshold": _LEFT_S * _NS,
            "mem_storage": True,
            "num_replicas": 1,
            "replay_policy": "instant",
            **options,
        }
        request = msgspec.json.encode({"stream_name": stream, "config": config})
        answer = await self._ask(f"{self._prefix}.CONSUMER.CREATE.{stream}", request, stream)
        self._check(answer, stream)
        return answer.name

    async def _ask(self, subject: str, payload: bytes, about: str, *, headers: Headers = None) -> _Answer:
        async with self._bus.subscribe(inbox := self._inbox()) as line:
            await self._bus.publish(subject, payload, reply=inbox, headers=headers)
            message = await self._next(aiter(line), about)
        try:
            return _answers.decode(message.payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise CloudUnreachableError(f"{about}: something else than JetStream answered") from error

    async def _next(self, messages: AsyncIterator[BusMessage], about: str) -> BusMessage:
        try:
            async with asyncio.timeout(self._answer_s):
                message = await anext(messages)
        except TimeoutError as error:
            raise CloudUnreachableError(
                f"{about}: {self._where()} did not answer within {self._answer_s:g} s; may this user ask it?"
            ) from error
        except StopAsyncIteration as error:
            raise CloudUnreachableError(f"{about}: the connection to NATS was closed") from error
        if message.no_responders:
            raise CloudUnreachableError(f"{about}: {self._where()} is out of reach")
        return message

    def _check(self, answer: _Answer, about: str) -> None:
        if answer.error is None:
            return
        said = answer.error.description or f"error {answer.error.err_code or answer.error.code}"
        if answer.error.code == _UNAVAILABLE:
            raise CloudUnreachableError(f"{about}: {self._where()} cannot now: {said}")
        raise ConfigError(f"{about}: {self._where()} says: {said}")

    def _where(self) -> str:
        return f"JetStream of domain {self._domain!r}" if self._domain else "JetStream of this NATS server"

    def _inbox(self) -> str:
        return wire.answer_subject(self._asker, uuid.uuid4().hex)


def kept_of(message: BusMessage) -> Kept | None:
    """Return the kept message a consumer delivered, None for a heartbeat or a status.

    Where and when is told by the reply subject: ``$JS.ACK.<stream>.<consumer>.<delivered>.<sequence>.<consumer sequence>.<ns>.<pending>``
    or, with domain and account before the stream, two tokens more (NATS ADR-15).
    """
    tokens = message.reply.split(".")
    if tokens[:2] != ["$JS", "ACK"] or len(tokens) < 9 or len(tokens) == 10:  # noqa: PLR2004 - see above
        return None
    start = 2 if len(tokens) == 9 else 4  # noqa: PLR2004 - see above
    try:
        sequence, _, at_ns, pending = (int(token) for token in tokens[start + 3 : start + 7])
    except ValueError:
        return None
    return Kept(payload=message.payload, sequence=sequence, at_s=at_ns / _NS, pending=pending, subject=message.subject)
