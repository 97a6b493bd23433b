"""One device in the brain: its messages in order, its ears, and the turn it is having.

Three tasks at most, all of one TaskGroup: the session itself, which reads messages and listens; the current turn, which is alive
until its speech was played; and an early transcription. Interrupting a turn cancels it and waits for its end.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial

import msgspec
import structlog

from coordinator.turns import TurnRecord
from edge.brain.conversation import Conversation, Limits
from edge.brain.early import EarlyRecognizer
from edge.brain.flow import stopped
from edge.brain.inbox import Inbox
from edge.brain.observer import BrainObserver, DeafObserver
from edge.brain.opus import OpusDecoder, SpeechEncoder
from edge.brain.pipeline import Pipeline
from edge.brain.segmenter import Endpoint, Endpointing, Segmenter, SegmentEvent, SilenceBegan, VoiceResumed
from edge.brain.stage import stage
from edge.brain.turn import Send, Turn, TurnNames
from edge.seam import (
    UPLINK_RATE_HZ,
    Aborted,
    AudioUp,
    ListenStarted,
    ListenStopped,
    Outcome,
    Played,
    SessionClosed,
    SessionOpened,
    UpMessage,
    WakeWordHeard,
)
from models.engines import VoiceDetector
from models.errors import DeadlineError, DeviceTooSlowError, StageError, VoiceError
from models.prompts import Prompt
from models.speech import AudioFrame, Transcript

_log = structlog.get_logger()

WAKE_WORDS = (
    "你好小智", "小智小智", "小智", "你好小鑫", "你好喵伴", "小爱同学", "你好小美", "嗨乐鑫", "Hi ESP", "Hi 乐鑫", "Hi Lexin",
    "Hey Willow", "Hi Jason", "Alexa", "Jarvis", "Computer", "Sophia", "Mycroft", "Hi Joy", "Hey Wanda",
)  # fmt: skip
"""What common builds are woken by; esp-sr's WakeNet models."""

_MAX_DEAF_FRAMES = 50
"""Frames in a row the voice detector may fail on, 3 s at 60 ms: an overload passes, a broken model does not."""


class SessionOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What may differ between deployments."""

    endpointing: Endpointing = Endpointing()
    limits: Limits = Limits()
    language: str = "zh"
    """For devices whose record names none."""
    budget_s: float = 30.0
    """How long a turn may go on without saying anything new."""
    barge_in_ms: int = 300
    """Speech that interrupts an answer in realtime mode; a 嗯 is shorter."""
    wake_words: tuple[str, ...] = WAKE_WORDS
    """Texts that only wake; any other text of a wake-word message was typed."""


_BY_WAKE_WORD = "wake_word_detected"
"""Reason of an abort after which the device says ``listen/start`` itself (protocol §8.5)."""
_Work = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Running:
    turn: Turn
    task: asyncio.Task[None]


class BrainSession:
    """Serves one device from SessionOpened to SessionClosed."""

    def __init__(
        self,
        opened: SessionOpened,
        *,
        edge_id: str,
        detector: VoiceDetector,
        pipeline: Pipeline,
        send: Send,
        turn_ended: Callable[[TurnRecord], Awaitable[None]],
        observer: BrainObserver | None = None,
        options: SessionOptions | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.inbox = Inbox()
        self.wake_word = ""
        """What the device was woken by last, "" when it did not say."""
        self._opened = opened
        self._edge_id = edge_id
        self._pipeline = pipeline
        self._send = send
        self._turn_ended = turn_ended
        self._observer: BrainObserver = observer or DeafObserver()
        self._options = options or SessionOptions()
        self._now = now
        self._fence = opened.fence
        self._decoder = OpusDecoder()
        self._audio_ms = 0.0
        self._voice = detector.listen()
        self._segmenter = Segmenter(opened.device_id, rules=self._options.endpointing, language=opened.language)
        self._conversation = Conversation(
            opened.device_id, language=opened.language or self._options.language, limits=self._options.limits
        )
        self._wake_words = frozenset(_bare(word) for word in self._options.wake_words)
        self._deaf_frames = 0
        self._listens_after = False
        self._running: _Running | None = None

    @property
    def turn(self) -> asyncio.Task[None] | None:
        """The task of the turn being answered or played, None between turns."""
        return self._running.task if self._running is not None else None

    async def run(self) -> None:
        """Serve until the device is gone; nothing of the session runs any more when this returns or raises."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._early = EarlyRecognizer(self._pipeline.recognizer, group)
            while not isinstance(message := await self.inbox.get(), SessionClosed):
                await self._take(message)
            await self._interrupt(tell=False)
            await self._early.drop()

    async def _take(self, message: UpMessage) -> None:
        if message.fence > self._fence or isinstance(message, Aborted):
            self._fence = max(self._fence, message.fence)
            await self._withdraw(by_wake_word=isinstance(message, Aborted) and message.reason == _BY_WAKE_WORD)
        match message:
            case AudioUp():
                await self._hear(message)
            case ListenStarted():
                await self._listen(message)
            case ListenStopped():
                await self._heed(self._segmenter.stop())
            case Played():
                if self._running and self._running.turn.names.turn_id == message.turn_id:
                    self._running.turn.played(message.played_ms)
            case WakeWordHeard():
                await self._wake(message.text)
            case _:
                pass

    async def _withdraw(self, *, by_wake_word: bool) -> None:
        """End the turn and forget the question begun, because the device interrupted.

        A device that interrupts before it heard of an answer still listens and does not say so again; one that was woken does.
        """
        await self._interrupt()
        await self._early.drop()
        if self._segmenter.mode != "manual" and not by_wake_word:
            self._voice.reset()
            self._segmenter.pause()
            self._segmenter.start(self._segmenter.mode)

    async def _hear(self, message: AudioUp) -> None:
        frame = AudioFrame(
            pcm=self._decoder.decode(message.packet), sample_rate_hz=UPLINK_RATE_HZ, start_ms=round(self._audio_ms)
        )
        self._audio_ms += frame.duration_ms
        events = self._segmenter.feed(frame, await self._speech(frame))
        is_realtime = self._segmenter.mode == "realtime"
        if self._running and is_realtime and self._segmenter.voiced_ms >= self._options.barge_in_ms:
            await self._interrupt()
        await self._heed(events)

    async def _speech(self, frame: AudioFrame) -> float:
        """Return the frame's speech probability, 0.0 for one the detector failed on; raise when it fails for seconds."""
        began_s = self._now()
        try:
            speech = await self._voice.detect(frame)
        except StageError as error:
            self._observer.error("vad", error.code)
            self._deaf_frames += 1
            if self._deaf_frames >= _MAX_DEAF_FRAMES:
                raise
            return 0.0
        self._deaf_frames = 0
        self._observer.stage_seconds("vad", self._now() - began_s)
        return speech

    async def _heed(self, events: list[SegmentEvent]) -> None:
        for event in events:
            match event:
                case SilenceBegan() if self._running is None:
                    await self._early.begin(event.utterance)
                case VoiceResumed() if self._running is None:
                    await self._early.drop()
                case Endpoint() if self._running is None:
                    self._voice.reset()
                    turn = self._new_turn(event.utterance.turn_id, event.wait_ms)
                    pipeline = replace(self._pipeline, recognizer=self._early)
                    self._start(
                        turn, partial(pipeline.answer, event.utterance, self._ask(turn), turn.emit, turn.observe)
                    )
                case _:
                    pass

    async def _listen(self, message: ListenStarted) -> None:
        if self._running and (self._running.turn.is_all_sent or message.mode == "manual"):
            await self._make_way()
        if self._running and message.mode != "realtime":
            self._segmenter.mode = message.mode
            self._listens_after = True
        else:
            self._segmenter.start(message.mode)

    async def _make_way(self) -> None:
        """End the turn because the device listens again: what was sent is played, and nobody waits for the rest."""
        running = self._running
        if running is not None and running.turn.is_all_sent:
            running.turn.play_out()
            await asyncio.wait([running.task])
        else:
            await self._interrupt()

    async def _wake(self, text: str) -> None:
        if not text.strip() or _bare(text) in self._wake_words:
            self.wake_word = text
            return
        await self._interrupt()
        await self._early.drop()
        if self._segmenter.mode != "realtime":
            self._segmenter.pause()
        turn = self._new_turn(uuid.uuid4().hex, 0.0)
        typed = Transcript(turn_id=turn.names.turn_id, text=text.strip(), language=self._opened.language)
        turn.observe(typed)
        self._start(turn, partial(self._pipeline.reply, typed, self._ask(turn), turn.emit, turn.observe))

    def _new_turn(self, turn_id: str, endpoint_wait_ms: float) -> Turn:
        names = TurnNames(
            turn_id=turn_id,
            session_id=self._opened.session_id,
            device_id=self._opened.device_id,
            edge_id=self._edge_id,
            fence=self._fence,
        )
        return Turn(names, self._send, encoder=SpeechEncoder(), now=self._now, endpoint_wait_ms=endpoint_wait_ms)

    def _ask(self, turn: Turn) -> Callable[[Transcript], Prompt]:
        def ask(transcript: Transcript) -> Prompt:
            left_ms = max(1, round(self._options.budget_s * 1000 - turn.elapsed_ms))
            return self._conversation.prompt(
                transcript.turn_id, transcript.text, language=transcript.language, budget_ms=left_ms
            )

        return ask

    def _start(self, turn: Turn, work: _Work) -> None:
        task = self._group.create_task(self._take_turn(turn, work), name=f"turn-{turn.names.turn_id}")
        self._running = _Running(turn, task)

    async def _take_turn(self, turn: Turn, work: _Work) -> None:
        """See the turn through to its last played packet; whoever cancels this ends the turn."""
        outcome, code = await self._outcome(turn, work)
        if outcome == "failed":
            await turn.end(outcome, self._fence, code)
        else:
            await turn.until_played()
        self._running = None
        await self._close_turn(turn, outcome, code)

    async def _outcome(self, turn: Turn, work: _Work) -> tuple[Outcome, str]:
        try:
            async with asyncio.timeout(self._options.budget_s) as deadline:
                turn.made_progress = lambda: _extend(deadline, self._options.budget_s)
                with stage("turn", StageError):
                    await work()
                    await turn.finish()
        except TimeoutError:
            return "failed", DeviceTooSlowError.code if turn.is_waiting_for_room else DeadlineError.code
        except VoiceError as error:
            _log.warning("turn-failed", turn_id=turn.names.turn_id, code=error.code, error=str(error))
            return "failed", error.code
        finally:
            turn.made_progress = lambda: None
        return ("answered" if turn.is_answering else "silent"), ""

    async def _interrupt(self, *, tell: bool = True) -> None:
        """Cancel the turn and return when nothing of it runs; ``tell`` the gateway unless the device is gone."""
        running = self._running
        if running is None:
            return
        await stopped(running.task)
        if self._running is None:
            return
        self._running = None
        outcome: Outcome = "interrupted"
        if tell:
            await running.turn.end(outcome, self._fence)
        elif running.turn.is_played:
            outcome = "answered"
        await self._close_turn(running.turn, outcome, "")

    async def _close_turn(self, turn: Turn, outcome: Outcome, code: str) -> None:
        """File the turn; a device that was not told of an answer, or asked to be heard since, is listening."""
        if turn.question:
            self._conversation.remember(turn.question, turn.answer(outcome))
        if self._listens_after or (not turn.is_answering and self._segmenter.mode != "manual"):
            self._listens_after = False
            self._segmenter.start(self._segmenter.mode)
        await self._turn_ended(turn.record(outcome, code))


def _extend(deadline: asyncio.Timeout, budget_s: float) -> None:
    if not deadline.expired():
        deadline.reschedule(asyncio.get_running_loop().time() + budget_s)


def _bare(text: str) -> str:
    """Return the letters of a wake word, whatever case and punctuation it came with."""
    return "".join(character for character in text.casefold() if character.isalnum())
