"""Garbage through the product, in a process of its own: ``python -m benchmarks.soak_mill`` takes a MillPlan, gives a Ground a batch.

Frames go through framing, device protocol and Opus decoder, texts through a whole device session whose messages to the brain are read
back. Each batch begins with new sessions and dice of its own, so seed and number of a batch bring back whatever happened in it. None
of what is called here may raise: what is raised is an error, whatever it is.
"""

from __future__ import annotations

import asyncio
import faulthandler
import logging
import random
import signal
import sys
from collections.abc import Callable
from typing import Literal, Protocol

import msgspec
import structlog

from benchmarks.soak_garbage import FrameGarbage, real_packets
from benchmarks.soak_memory import own_rss_mib
from benchmarks.soak_texts import HELLO, TextGarbage
from coordinator.memory_bus import MemoryBus
from edge import seam
from edge.brain.opus import MAX_FRAME_MS, OpusDecoder
from edge.brain.stage import stage
from edge.gateway import framing
from edge.gateway.device_protocol import AudioPacket, DeviceProtocol, Violation
from edge.gateway.session import DeviceSession
from models.errors import StageError, VoiceError

Kind = Literal["frames", "messages"]
MAX_TOLD = 5
"""Errors of a batch told in words; the others are counted."""
SESSIONS = 12
"""Devices that send frames in turn: four of each framing version."""
SESSION_TEXTS = 400
"""Texts after which a device hangs up, if it was not thrown out before."""
GREETED = 0.9
"""Share of devices that say hello first: without one everything is refused in one place."""
_TEXT_S = 0.06
"""What passes on a session's clock with each text: a device sends no faster, and its allowance is another test's."""
_MAX_PCM_BYTES = 2 * seam.UPLINK_RATE_HZ * MAX_FRAME_MS // 1000
_GREETING = msgspec.json.encode(HELLO)


class MillPlan(msgspec.Struct, frozen=True, kw_only=True):
    """What to grind."""

    kind: Kind
    seed: int
    batches: tuple[int, ...]
    """Numbers of the batches, in this order."""
    batch: int
    """Frames or texts in each."""


class Ground(msgspec.Struct, frozen=True, kw_only=True):
    """One batch is done."""

    batch: int
    errors: int
    told: tuple[str, ...]
    """The first errors, by type and place, never with content."""
    rss_mib: float


class Decoder(Protocol):
    """Opus of one session to sound."""

    def decode(self, packet: bytes) -> bytes:
        """Return at most MAX_FRAME_MS of s16le mono; never raise."""
        ...


class _Session:
    """One device that sends frames; thrown out, it comes back as another."""

    def __init__(self, version: int, decoder: Decoder) -> None:
        self.version = version
        self.protocol = DeviceProtocol("soak", version=version)
        self.protocol.receive(_GREETING.decode())
        self.decoder = decoder


class FrameMill:
    """Grinds binary messages; ``new_decoder`` makes a session's decoder."""

    def __init__(self, new_decoder: Callable[[], Decoder] = OpusDecoder) -> None:
        self._new_decoder = new_decoder
        self._packets = real_packets()
        self.heard = 0
        """Packets that came as far as a decoder."""

    def grind(self, dice: random.Random, count: int) -> list[str]:
        """Feed ``count`` frames to new sessions and return the errors. Blocks."""
        garbage = FrameGarbage(dice, self._packets)
        versions = framing.VERSIONS
        sessions = [_Session(versions[number % len(versions)], self._new_decoder()) for number in range(SESSIONS)]
        errors: list[str] = []
        numbers = iter(range(count))
        while True:
            try:
                with stage("frame", StageError):
                    for number in numbers:
                        place = number % SESSIONS
                        session = sessions[place]
                        if not self._feed(session, garbage.message(session.version)):
                            sessions[place] = _Session(session.version, self._new_decoder())
            except VoiceError as error:
                errors.append(_told(error))
            else:
                return errors

    def _feed(self, session: _Session, message: bytes) -> bool:
        """Take one message as gateway and brain do; return whether the session goes on."""
        is_on = True
        for event in session.protocol.receive(message):
            if isinstance(event, AudioPacket):
                self.heard += 1
                size = len(session.decoder.decode(event.payload))
                if not 0 < size <= _MAX_PCM_BYTES or size % 2:
                    raise ValueError(f"{size} bytes of sound")
            elif isinstance(event, Violation) and event.fatal:
                is_on = False
        return is_on


class _Garbled:
    """A socket whose device sends garbage and reads everything."""

    is_open = True

    def __init__(self, garbage: TextGarbage, is_greeting: bool, left: int) -> None:  # noqa: FBT001 - the dice's word
        self._garbage = garbage
        self._is_greeting = is_greeting
        self._left = left
        self.clock_s = 0.0
        self.taken = 0

    async def recv(self) -> str | bytes | None:
        """Return the next text; None at the end and for what is not UTF-8, at which the library closes (RFC 6455 §8.1)."""
        await asyncio.sleep(0)
        if self._left <= self.taken:
            return None
        self.taken += 1
        self.clock_s += _TEXT_S
        message = _GREETING if self._is_greeting and self.taken == 1 else self._garbage.message()
        try:
            return message.decode()
        except UnicodeDecodeError:
            return None

    async def send(self, message: str | bytes) -> None:
        """Take it."""

    async def close(self, code: int, reason: str) -> None:  # noqa: ARG002 - nobody reads why
        """Close."""
        self.is_open = False

    def abort(self) -> None:
        """Close."""
        self.is_open = False


class _ReadBack(MemoryBus):
    """A bus whose other end reads every message at once; raises for one that a brain could not read."""

    async def publish(self, subject: str, payload: bytes, *, reply: str = "") -> None:
        seam.decode_up(payload)
        await super().publish(subject, payload, reply=reply)


class TextMill:
    """Grinds texts; ``new_session`` makes the session that gets them."""

    def __init__(self, new_session: Callable[..., DeviceSession] = DeviceSession) -> None:
        self._new_session = new_session
        self.sessions = 0
        """How many there were."""

    def grind(self, dice: random.Random, count: int) -> list[str]:
        """Feed ``count`` texts to sessions, one after the other, and return the errors. Blocks."""
        return asyncio.run(self._grind(TextGarbage(dice), dice, count))

    async def _grind(self, garbage: TextGarbage, dice: random.Random, count: int) -> list[str]:
        errors: list[str] = []
        bus, left = _ReadBack(), count
        while left > 0:
            socket = _Garbled(garbage, dice.random() < GREETED, min(left, SESSION_TEXTS))
            try:
                with stage("text", StageError):
                    await self._session(socket, bus).run()
            except VoiceError as error:
                errors.append(_told(error))
            left -= max(1, socket.taken)
            self.sessions += 1
            if len(asyncio.all_tasks()) > 1:
                errors.append("a session left tasks behind")
                return errors
        return errors

    def _session(self, socket: _Garbled, bus: MemoryBus) -> DeviceSession:
        return self._new_session(
            socket, bus, node_id="soak", session_id="soak", device_id="soak", now=lambda: socket.clock_s
        )


def _told(error: VoiceError) -> str:
    """Return what was raised and where, without content."""
    cause: BaseException = error.__cause__ or error
    while isinstance(cause, BaseExceptionGroup):
        cause = cause.exceptions[0]
    trace = cause.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace is not None else "nowhere"
    return f"{type(cause).__name__} at {where}"


def dice_of(plan: MillPlan, batch: int) -> random.Random:
    """Return the dice of one batch."""
    return random.Random(f"{plan.kind} {plan.seed} {batch}")


def mill(plan: MillPlan, tell: Callable[[Ground], None]) -> None:
    """Grind every batch and tell of each."""
    grind = FrameMill().grind if plan.kind == "frames" else TextMill().grind
    for batch in plan.batches:
        errors = grind(dice_of(plan, batch), plan.batch)
        told = tuple(errors[:MAX_TOLD])
        tell(Ground(batch=batch, errors=len(errors), told=told, rss_mib=round(own_rss_mib(), 3)))


def main() -> None:
    """Read a plan from standard input and write what became of each batch to standard output; the parent ends this, not Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.enable()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    plan = msgspec.json.decode(sys.stdin.buffer.readline(), type=MillPlan)

    def tell(ground: Ground) -> None:
        sys.stdout.buffer.write(msgspec.json.encode(ground) + b"\n")
        sys.stdout.buffer.flush()

    mill(plan, tell)


if __name__ == "__main__":
    main()
