"""One turn's way out: the pipeline's events to messages for the gateway, no further ahead than the loudspeaker may lag."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import msgspec

from coordinator.turns import Marks, TurnRecord
from edge.brain.conversation import SpokenSentence, heard, joined
from edge.brain.packets import SpeechPackets
from edge.brain.pipeline import Event
from edge.brain.sentences import Sentence
from edge.seam import (
    DOWNLINK_FRAME_MS,
    SPEECH_WINDOW_MS,
    DownMessage,
    Felt,
    Heard,
    Outcome,
    SentenceStarted,
    SpeechDown,
    TurnEnded,
)
from models.errors import SynthesisError
from models.prompts import CompletionDelta
from models.speech import Transcript

_PACKETS_PER_MESSAGE = 10
"""600 ms of speech; what the cache hands out is a whole sentence."""
_PLAYED_LATE_MS = 2_000
"""How much later than its length speech may be reported as played before the report counts as lost; a guess."""

_UNHEARD_MS = 600
"""Speech the device may hold unplayed when the last report about it was sent: the gateway's lead, protocol §6.3."""

Send = Callable[[DownMessage], Awaitable[None]]


class TurnNames(msgspec.Struct, frozen=True, kw_only=True):
    """Whose turn it is."""

    turn_id: str
    session_id: str
    device_id: str
    edge_id: str
    fence: int


class Turn:
    """What one turn has said so far, when, and how much of it was played."""

    def __init__(
        self,
        names: TurnNames,
        send: Send,
        *,
        now: Callable[[], float],
        endpoint_wait_ms: float = 0.0,
        failed: Callable[[str, str], None] = lambda _stage, _code: None,
    ) -> None:
        """``failed`` gets stage and code of every sentence that was left out because it could not be spoken."""
        self.names = names
        self.question = ""
        self.is_answering = False
        """Whether the device was told to expect an answer."""
        self.is_all_sent = False
        """Whether the gateway was told that nothing more comes."""
        self.is_waiting_for_room = False
        """Whether the device has to play before more speech may be sent."""
        self.made_progress: Callable[[], None] = lambda: None
        """Called whenever speech was sent or played."""
        self._send = send
        self._failed = failed
        self._now = now
        self._began_s = now()
        self._marks = Marks(endpoint_wait_ms=endpoint_wait_ms)
        self._spoken: list[SpokenSentence] = []
        self._has_face = False
        self._language = ""
        self._model = ""
        self._sent_ms = 0
        self._played_ms = 0
        self._has_played = asyncio.Event()

    @property
    def elapsed_ms(self) -> float:
        """Wall time since the turn began."""
        return (self._now() - self._began_s) * 1000

    @property
    def is_played(self) -> bool:
        """Whether everything was sent and, as far as anybody can tell, heard."""
        return self.is_all_sent and self._sent_ms - self._played_ms <= _UNHEARD_MS

    async def emit(self, event: Event) -> None:
        """Send what the event means for the device, waiting while SPEECH_WINDOW_MS of speech is unplayed."""
        match event:
            case Transcript():
                await self._emit_transcript(event)
            case Sentence():
                await self._emit_sentence(event)
            case _:
                await self._emit_packets(event)

    def observe(self, event: Event | CompletionDelta | SynthesisError) -> None:
        """Set the mark this event stands for, if it is the first of its kind; a failure takes the silent sentence back."""
        match event:
            case Transcript():
                self._mark("transcript_ms")
            case Sentence():
                self._mark("first_sentence_ms")
            case CompletionDelta():
                self._model = event.model or self._model
                if event.text:
                    self._mark("first_token_ms")
            case SynthesisError():
                self._leave_out(event)
            case _:
                pass

    def played(self, played_ms: int) -> None:
        """Take the gateway's word for how much was handed to the device."""
        if played_ms > self._played_ms:
            self._played_ms = min(played_ms, self._sent_ms)
            self.made_progress()
            self._has_played.set()

    def play_out(self) -> None:
        """Take everything for played: the device listens again."""
        self.played(self._sent_ms)

    async def finish(self) -> None:
        """Send the end of an answered turn."""
        await self.end("answered" if self.is_answering else "silent", self.names.fence)

    async def end(self, outcome: Outcome, fence: int, code: str = "") -> None:
        """Tell the gateway that nothing more comes."""
        self.is_all_sent = True
        self._mark("ended_ms")
        await self._send(
            TurnEnded(
                session_id=self.names.session_id, fence=fence, turn_id=self.names.turn_id, outcome=outcome, code=code
            )
        )

    async def until_played(self) -> None:
        """Return when everything was played, or should have been long ago."""
        with suppress(TimeoutError):
            async with asyncio.timeout((self._sent_ms - self._played_ms + _PLAYED_LATE_MS) / 1000):
                while self._played_ms < self._sent_ms:
                    await self._wait_for_played()

    def answer(self, outcome: Outcome) -> str:
        """Return the words said to the device; of a turn that was cut short only those it played."""
        if outcome == "answered":
            return joined([sentence.text for sentence in self._spoken])
        return heard(self._spoken, self._played_ms)

    def record(self, outcome: Outcome, code: str = "") -> TurnRecord:
        """Return the record of the turn without its decisions."""
        return TurnRecord(
            turn_id=self.names.turn_id,
            session_id=self.names.session_id,
            device_id=self.names.device_id,
            edge_id=self.names.edge_id,
            outcome=outcome,
            code=code,
            heard=self.question,
            language=self._language,
            answer=self.answer(outcome),
            model=self._model,
            marks=self._marks,
        )

    def _mark(self, name: str) -> None:
        if getattr(self._marks, name) is None:
            self._marks = msgspec.structs.replace(self._marks, **{name: self.elapsed_ms})

    async def _emit_transcript(self, transcript: Transcript) -> None:
        self.question, self._language = transcript.text, transcript.language
        if transcript.text:
            self.is_answering = True
            await self._send(
                Heard(
                    session_id=self.names.session_id,
                    fence=self.names.fence,
                    turn_id=self.names.turn_id,
                    text=transcript.text,
                )
            )

    async def _emit_sentence(self, sentence: Sentence) -> None:
        names = self.names
        emotion = sentence.emotion or ("" if self._has_face else "neutral")
        if emotion:
            self._has_face = True
            await self._send(
                Felt(session_id=names.session_id, fence=names.fence, turn_id=names.turn_id, emotion=emotion)
            )
        self._spoken.append(SpokenSentence(text=sentence.text, duration_ms=0))
        await self._send(
            SentenceStarted(session_id=names.session_id, fence=names.fence, turn_id=names.turn_id, text=sentence.text)
        )

    async def _emit_packets(self, speech: SpeechPackets) -> None:
        for start in range(0, len(speech.packets), _PACKETS_PER_MESSAGE):
            batch = speech.packets[start : start + _PACKETS_PER_MESSAGE]
            batch_ms = len(batch) * DOWNLINK_FRAME_MS
            await self._room_for(batch_ms)
            names = self.names
            # Counted before it is sent: the report that it was played may arrive first.
            self._count_sent(batch_ms)
            await self._send(
                SpeechDown(session_id=names.session_id, fence=names.fence, turn_id=names.turn_id, packets=batch)
            )
            self._mark("first_audio_ms")
            self.made_progress()
            await asyncio.sleep(0)

    def _leave_out(self, error: SynthesisError) -> None:
        self._failed("tts", error.code)
        if self._spoken and not self._spoken[-1].duration_ms:
            self._spoken.pop()

    def _count_sent(self, batch_ms: int) -> None:
        self._sent_ms += batch_ms
        last = self._spoken[-1]
        self._spoken[-1] = msgspec.structs.replace(last, duration_ms=last.duration_ms + batch_ms)

    async def _room_for(self, batch_ms: int) -> None:
        self.is_waiting_for_room = True
        while self._sent_ms + batch_ms - self._played_ms > SPEECH_WINDOW_MS:
            await self._wait_for_played()
        self.is_waiting_for_room = False

    async def _wait_for_played(self) -> None:
        self._has_played.clear()
        await self._has_played.wait()
