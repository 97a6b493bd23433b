"""One device in the brain: its messages in order, its ears, and the turn it is having.

A few tasks, all of one TaskGroup: the session itself, which reads messages and listens; the current turn, which is alive until its
speech was played; early transcriptions, asides and the patience of a held answer. Only the session decides: what the others find out
comes back through its inbox. Interrupting a turn cancels it and waits for its end.
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
from edge.brain.backchannel import UnlessStop, bare, said
from edge.brain.barge_in import BargeInRules
from edge.brain.conversation import Conversation, Limits
from edge.brain.ears import Ears
from edge.brain.floor import Floor
from edge.brain.groups import DeviceGroup, endpointing_of, is_one_of
from edge.brain.inbox import Inbox
from edge.brain.listener import Listener, Outlets, Question, Words, words_of
from edge.brain.observer import BrainObserver, DeafObserver
from edge.brain.pipeline import Pipeline
from edge.brain.segmenter import Endpointing, Segmenter
from edge.brain.stage import stage
from edge.brain.turn import Send, Turn, TurnNames
from edge.seam import (
    Aborted,
    AudioUp,
    ListenStarted,
    ListenStopped,
    Outcome,
    Played,
    SessionClosed,
    SessionOpened,
    Up,
    UpMessage,
    WakeWordHeard,
)
from models.engines import Recognizer, TurnDetector, VoiceDetector
from models.errors import DeadlineError, DeviceTooSlowError, StageError, VoiceError
from models.prompts import Prompt
from models.speech import Transcript
from models.stopping import stopped

_log = structlog.get_logger()

WAKE_WORDS = (
    "你好小智", "小智小智", "小智", "你好小鑫", "你好喵伴", "小爱同学", "你好小美", "嗨乐鑫", "Hi ESP", "Hi 乐鑫", "Hi Lexin",
    "Hey Willow", "Hi Jason", "Alexa", "Jarvis", "Computer", "Sophia", "Mycroft", "Hi Joy", "Hey Wanda",
)  # fmt: skip
"""What common builds are woken by; esp-sr's WakeNet models."""


class SessionOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What may differ between deployments."""

    endpointing: Endpointing = Endpointing()
    groups: tuple[DeviceGroup, ...] = ()
    """Devices that are listened to differently; the first group a device belongs to counts."""
    private_devices: tuple[str, ...] = ()
    """Shell patterns of the ids of devices whose questions never leave the edge."""
    limits: Limits = Limits()
    language: str = "zh"
    """For devices whose record names none."""
    budget_s: float = 30.0
    """How long a turn may go on without saying anything new."""
    barge_in: BargeInRules = BargeInRules()
    """What interrupts an answer in realtime mode."""
    partial_ms: int = 600
    """Speech after which the words so far are asked for, again and again while somebody speaks over an answer; 0 for never."""
    partials_always: bool = False
    """Whether they are asked for between answers too, where nothing but the metrics needs them yet."""
    wake_words: tuple[str, ...] = WAKE_WORDS
    """Texts that only wake; any other text of a wake-word message was typed."""


_BY_WAKE_WORD = "wake_word_detected"
"""Reason of an abort after which the device says ``listen/start`` itself (protocol §8.5)."""
_Work = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Running:
    turn: Turn
    task: asyncio.Task[None]
    question: Question | None
    """None for a turn that was typed."""


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
        turn_detector: TurnDetector | None = None,
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
        self._turn_detector = turn_detector
        self._ears = Ears(detector, self._observer, now=now)
        rules = endpointing_of(opened.device_id, self._options.groups, self._options.endpointing)
        self._segmenter = Segmenter(opened.device_id, rules=rules, language=opened.language)
        self._conversation = Conversation(
            opened.device_id,
            language=opened.language or self._options.language,
            is_private=is_one_of(opened.device_id, self._options.private_devices),
            limits=self._options.limits,
        )
        self._wake_words = frozenset(bare(word) for word in self._options.wake_words)
        self._listens_after = False
        self._running: _Running | None = None
        self._unsure: Question | None = None
        """What was said over an answer, until its words tell whether it is a turn."""
        self._stopping_id = ""
        """The utterance whose words interrupted an answer before it was over."""

    @property
    def turn(self) -> asyncio.Task[None] | None:
        """The task of the turn being answered or played, None between turns."""
        return self._running.task if self._running is not None else None

    async def run(self) -> None:
        """Serve until the device is gone; nothing of the session runs any more when this returns or raises."""
        async with asyncio.TaskGroup() as group:
            self._group = group
            self._floor = Floor(self._options.barge_in, self._send, group, now=self._now)
            self._listener = self._new_listener(group)
            while not isinstance(message := await self.inbox.get(), SessionClosed):
                if isinstance(message, Up):
                    await self._take(message)
                else:
                    await message()
            await self._interrupt(tell=False)
            await self._forget()

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
                await self._listener.heed(self._segmenter.stop())
            case Played():
                if self._running and self._running.turn.names.turn_id == message.turn_id:
                    self._running.turn.played(message.played_ms)
            case WakeWordHeard():
                await self._wake(message.text)
            case _:
                pass

    def _new_listener(self, group: asyncio.TaskGroup) -> Listener:
        def is_heard() -> bool:
            return self._running is None or self._is_over_answer

        return Listener(
            self._ears,
            self._segmenter,
            self._pipeline.recognizer,
            group,
            Outlets(self._asked, self._worded, is_heard, self.inbox.note),
            turn_detector=self._turn_detector,
            partial_ms=self._options.partial_ms,
            observer=self._observer,
            now=self._now,
        )

    async def _withdraw(self, *, by_wake_word: bool) -> None:
        """End the turn and forget the question begun, because the device interrupted.

        A device that interrupts before it heard of an answer still listens and does not say so again; one that was woken does.
        """
        await self._interrupt()
        await self._forget()
        if self._segmenter.mode != "manual":
            self._listener.forget_sound()
            if not by_wake_word:
                self._segmenter.start(self._segmenter.mode)

    async def _forget(self) -> None:
        """Stop whatever finds out what is or was being said."""
        await self._listener.forget()
        unsure, self._unsure = self._unsure, None
        if unsure is not None:
            await unsure.recognizer.drop()

    async def _hear(self, message: AudioUp) -> None:
        is_over_answer = self._is_over_answer
        wants_words = is_over_answer or self._options.partials_always
        events = await self._listener.hear(message.packet, wants_words=wants_words)
        if is_over_answer and await self._floor.voiced(self._segmenter.voiced_ms):
            await self._give_way(self._segmenter.turn_id)
        if events:
            await self._listener.heed(events)

    # What is said over an answer.

    @property
    def _is_over_answer(self) -> bool:
        """Whether what is said now is said over an answer, and heard."""
        return self._running is not None and self._segmenter.mode == "realtime"

    async def _worded(self, words: Words) -> None:
        """Let words decide about the answer they are said over."""
        if self._is_over_answer and await self._floor.heard(words.text, words.voiced_ms):
            await self._give_way(words.turn_id)

    async def _give_way(self, turn_id: str) -> None:
        """End the answer for an utterance that is not over yet."""
        self._stopping_id = turn_id
        await self._interrupt()

    async def _asked(self, question: Question) -> None:
        """Answer what was said; said over an answer, its words decide first whether it wants that."""
        before, self._unsure = self._unsure, None
        if before is not None:
            await before.recognizer.drop()
        if self._running is None:
            self._answer(question)
            return
        self._unsure = question
        await self._floor.voiced(0.0)
        if question.recognizer.known(question.utterance) is not None:
            await self._judge(question)
        else:
            await question.recognizer.join(question.utterance, partial(self.inbox.note, partial(self._judge, question)))

    async def _judge(self, question: Question) -> None:
        """Let the words of an utterance that is over decide about the answer they were said over, and about themselves."""
        result = question.recognizer.known(question.utterance)
        if question is not self._unsure or result is None:
            return
        self._unsure = None
        text = words_of(result)
        if self._running is not None and not await self._floor.over(text):
            return
        await self._interrupt()
        if said(text) not in {"stop", "nothing"}:
            self._answer(question)

    def _answer(self, question: Question) -> None:
        utterance = question.utterance
        turn = self._new_turn(utterance.turn_id, question.wait_ms + (self._now() - question.over_s) * 1000)
        recognizer: Recognizer = question.recognizer
        if utterance.turn_id == self._stopping_id:
            recognizer = UnlessStop(recognizer)
        pipeline = replace(self._pipeline, recognizer=recognizer)
        self._start(turn, partial(pipeline.answer, utterance, self._ask(turn), turn.emit, turn.observe), question)

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
        if not text.strip() or bare(text) in self._wake_words:
            self.wake_word = text
            return
        await self._interrupt()
        await self._forget()
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
        return Turn(
            names, self._floor.send, now=self._now, endpoint_wait_ms=endpoint_wait_ms, failed=self._observer.error
        )

    def _ask(self, turn: Turn) -> Callable[[Transcript], Prompt]:
        def ask(transcript: Transcript) -> Prompt:
            left_ms = max(1, round(self._options.budget_s * 1000 - turn.elapsed_ms))
            return self._conversation.prompt(
                transcript.turn_id, transcript.text, language=transcript.language, budget_ms=left_ms
            )

        return ask

    def _start(self, turn: Turn, work: _Work, question: Question | None = None) -> None:
        self._floor.give(turn)
        task = self._group.create_task(self._take_turn(turn, work), name=f"turn-{turn.names.turn_id}")
        self._running = _Running(turn, task, question)

    async def _take_turn(self, turn: Turn, work: _Work) -> None:
        """See the turn through to its last played packet; whoever cancels this ends the turn."""
        outcome, code = await self._outcome(turn, work)
        if outcome == "failed":
            await turn.end(outcome, self._fence, code)
        else:
            await self._floor.until_played(turn)
        self._running = None
        await self._floor.take_back(tell=outcome != "failed")
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
        if running.question is not None:
            await running.question.recognizer.drop()
        if self._running is None:
            return
        self._running = None
        await self._floor.take_back(tell=False)
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
