"""The brain of an edge node: messages from the gateway to sessions, and what they answer back."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import msgspec
import structlog

from coordinator import wire
from coordinator.bus import Bus
from coordinator.turn_log import without_words
from coordinator.turns import RoutingDecision, TurnRecord
from edge import seam
from edge.brain.groups import is_one_of
from edge.brain.observer import BrainObserver, DeafObserver
from edge.brain.pipeline import Pipeline
from edge.brain.session import BrainSession, SessionOptions
from edge.brain.stage import stage
from models.engines import Completer, TurnDetector, VoiceDetector
from models.errors import CloudUnreachableError, OverloadedError, StageError, VoiceError, error_from_code

_log = structlog.get_logger()

RECORDS_KEPT = 256
"""Finished turns kept for lookups."""
_DECISIONS_KEPT = 1024
"""Turns whose decisions wait for their record; more than one node has at once."""
_REFUSALS_KEPT = 1024
"""Refused sessions whose reason is known; a device that was told is gone within seconds."""
_ANY_FENCE = 2**31 - 1
"""A refusal holds whatever the device did meanwhile."""
_MAX_PENDING = 8192
"""Messages the bus may hold for us: three seconds of audio of 150 devices."""


@dataclass(frozen=True, slots=True)
class _Open:
    session: BrainSession
    task: asyncio.Task[None]


class Brain:
    """Serves up to ``max_sessions`` devices of one node; ``run`` it in a task and cancel that to stop.

    While ``is_overloaded`` newcomers are refused, so that those who talk already are answered as quickly as before.
    """

    def __init__(
        self,
        bus: Bus,
        *,
        node_id: str,
        edge_id: str,
        brain_id: str,
        detector: VoiceDetector,
        pipeline: Pipeline,
        turn_detector: TurnDetector | None = None,
        options: SessionOptions | None = None,
        max_sessions: int = 150,
        is_overloaded: Callable[[], bool] = lambda: False,
        observer: BrainObserver | None = None,
        records: Bus | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """``bus`` leads to the gateway; finished turns are told on ``records``, where None is the same bus."""
        self.ready = asyncio.Event()
        """Set once the gateway's messages are heard."""
        self.lost_messages = 0
        """Messages from or to the gateway that could not be read or sent."""
        self._bus = bus
        self._told_on = records or bus
        self._node_id = node_id
        self._edge_id = edge_id
        self._brain_id = brain_id
        self._detector = detector
        self._pipeline = pipeline
        self._turn_detector = turn_detector
        self._options = options or SessionOptions()
        self._max_sessions = max_sessions
        self._is_overloaded = is_overloaded
        self._observer: BrainObserver = observer or DeafObserver()
        self._now = now
        self._open: dict[str, _Open] = {}
        self._decisions: OrderedDict[str, tuple[RoutingDecision, ...]] = OrderedDict()
        self._refused: OrderedDict[str, str] = OrderedDict()
        self._records: deque[TurnRecord] = deque(maxlen=RECORDS_KEPT)
        self._is_draining = False

    @property
    def completer(self) -> Completer:
        """What answers this brain's prompts."""
        return self._pipeline.completer

    @property
    def sessions(self) -> int:
        """Number of open sessions."""
        return len(self._open)

    @property
    def turns(self) -> int:
        """Number of turns under way."""
        return sum(opened.session.turn is not None for opened in self._open.values())

    @property
    def records(self) -> tuple[TurnRecord, ...]:
        """The last RECORDS_KEPT finished turns, oldest first."""
        return tuple(self._records)

    def observe_decision(self, decision: RoutingDecision) -> None:
        """File a routing decision for the record of its turn."""
        self._decisions[decision.turn_id] = (*self._decisions.pop(decision.turn_id, ()), decision)
        if len(self._decisions) > _DECISIONS_KEPT:
            self._decisions.popitem(last=False)

    async def run(self) -> None:
        """Serve until cancelled; no session runs any more when this ends."""
        subject = seam.up_subject(self._node_id)
        async with self._bus.subscribe(subject, max_pending=_MAX_PENDING) as messages, asyncio.TaskGroup() as group:
            beat = group.create_task(self._beat(), name="brain-beat")
            self.ready.set()
            async for message in messages:
                await self._take(message.payload, group)
            beat.cancel()
            for session in self._open.values():
                session.task.cancel()

    async def drain(self, drain_s: float) -> None:
        """Refuse new sessions and return when no turn is answered or played any more, or after ``drain_s``."""
        self._is_draining = True
        with suppress(TimeoutError):
            async with asyncio.timeout(drain_s):
                while turns := [entry.session.turn for entry in self._open.values() if entry.session.turn]:
                    await asyncio.wait(turns)

    async def _take(self, payload: bytes, group: asyncio.TaskGroup) -> None:
        try:
            message = seam.decode_up(payload)
        except msgspec.MsgspecError:
            self._lost("undecodable-message", payload_bytes=len(payload))
            return
        entry = self._open.get(message.session_id)
        if isinstance(message, seam.SessionOpened):
            if entry is None:
                await self._admit(message, group)
        elif entry is not None:
            try:
                entry.session.inbox.put(message)
            except VoiceError as error:
                entry.task.cancel()
                del self._open[message.session_id]
                await self._refuse(message.session_id, error)
        elif isinstance(message, seam.ListenStarted):
            code = self._refused.get(message.session_id, StageError.code)
            await self._refuse(message.session_id, error_from_code(code, "this brain does not serve the session"))

    async def _admit(self, opened: seam.SessionOpened, group: asyncio.TaskGroup) -> None:
        if why := self._why_not():
            await self._refuse(opened.session_id, OverloadedError(f"brain {self._brain_id}: {why}"))
            return
        try:
            with stage("session", StageError):
                session = self._new_session(opened)
        except VoiceError as error:
            await self._refuse(opened.session_id, error)
            return
        task = group.create_task(self._serve(opened.session_id, session), name=f"session-{opened.session_id}")
        self._open[opened.session_id] = _Open(session, task)
        self._observer.sessions(len(self._open))

    def _why_not(self) -> str:
        """Return why no session more is served, "" when one is."""
        if self._is_draining:
            return "it is being stopped"
        if len(self._open) >= self._max_sessions:
            return f"{len(self._open)} of {self._max_sessions} sessions are open"
        return "its engines have more to do than they can" if self._is_overloaded() else ""

    def _new_session(self, opened: seam.SessionOpened) -> BrainSession:
        return BrainSession(
            opened,
            edge_id=self._edge_id,
            detector=self._detector,
            pipeline=self._pipeline,
            send=self._send,
            turn_ended=self._turn_ended,
            turn_detector=self._turn_detector,
            observer=self._observer,
            options=self._options,
            now=self._now,
        )

    async def _serve(self, session_id: str, session: BrainSession) -> None:
        """Run one session; whatever breaks in it ends it alone."""
        try:
            with stage("session", StageError):
                await session.run()
        except VoiceError as error:
            await self._refuse(session_id, error)
        finally:
            self._open.pop(session_id, None)
            self._observer.sessions(len(self._open))

    async def _refuse(self, session_id: str, error: VoiceError) -> None:
        """Have the device told why; should it go on all the same, it is told the same again."""
        self._refused[session_id] = error.code
        if len(self._refused) > _REFUSALS_KEPT:
            self._refused.popitem(last=False)
        _log.warning("session-refused", session_id=session_id, code=error.code, error=str(error), cause=_cause(error))
        self._observer.error("session", error.code)
        await self._send(seam.SessionRefused(session_id=session_id, fence=_ANY_FENCE, code=error.code))

    async def _turn_ended(self, record: TurnRecord) -> None:
        record = msgspec.structs.replace(record, decisions=self._decisions.pop(record.turn_id, ()))
        self._records.append(record)
        self._observer.turn_ended(record)
        for name, seconds in stages_of(record).items():
            self._observer.stage_seconds(name, seconds)
        if record.code:
            self._observer.error("turn", record.code)
        is_private = is_one_of(record.device_id, self._options.private_devices)
        told = without_words(record) if is_private else record
        await self._publish(wire.turn_subject(self._edge_id, record.turn_id), wire.encode(told), self._told_on)

    async def _beat(self) -> None:
        while True:
            beat = seam.BrainBeat(brain_id=self._brain_id, sessions=len(self._open))
            await self._publish(seam.beat_subject(self._node_id), seam.encode(beat), self._bus)
            await asyncio.sleep(seam.BEAT_S)

    async def _send(self, message: seam.DownMessage) -> None:
        await self._publish(seam.down_subject(self._node_id), seam.encode(message), self._bus)

    async def _publish(self, subject: str, payload: bytes, bus: Bus) -> None:
        try:
            await bus.publish(subject, payload)
        except CloudUnreachableError:
            self._lost("unsendable-message", subject=subject)

    def _lost(self, event: str, **fields: object) -> None:
        self.lost_messages += 1
        self._observer.error("bus", event)
        _log.warning(event, **fields)


def stages_of(record: TurnRecord) -> dict[str, float]:
    """Return the seconds from each mark of the turn to the next, named after the stage between them."""
    marks = record.marks
    pairs = {
        "asr": (0.0, marks.transcript_ms),
        "llm": (marks.transcript_ms, marks.first_token_ms),
        "tts": (marks.first_sentence_ms, marks.first_audio_ms),
    }
    return {name: (end - start) / 1000 for name, (start, end) in pairs.items() if start is not None and end is not None}


def _cause(error: VoiceError) -> str:
    """Return the name of what is behind the error, never its text."""
    return type(error.__cause__).__name__ if error.__cause__ is not None else ""
