"""A device without a socket: what it says as Opus packets, and a session with scripted engines to say it to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial

from coordinator.turns import TurnRecord
from edge.brain.opus import OpusEncoder
from edge.brain.pipeline import Pipeline
from edge.brain.session import BrainSession, SessionOptions
from edge.brain.speaker import Speaker
from edge.seam import (
    AudioUp,
    DownMessage,
    Felt,
    Heard,
    ListenMode,
    ListenStarted,
    Played,
    SentenceStarted,
    SessionClosed,
    SessionOpened,
    SessionRefused,
    SpeechDown,
    SpeechHeld,
    SpeechResumed,
    TurnEnded,
    Up,
)
from models.engines import TurnDetector, VoiceStream
from models.scripted import Calls, ScriptedCompleter, ScriptedDetector, ScriptedRecognizer, ScriptedSynthesizer, tone

ANSWER = "好的。今天天气很好很好。我们一起去公园吧。"
"""Three sentences: 2, 8 and 8 speakable characters at 200 ms each are 0.4 + 1.6 + 1.6 s of speech."""


def packets(voice_ms: int, silence_ms: int = 720) -> list[bytes]:
    """Return speech and the silence after it as the firmware would send them."""
    encoder = OpusEncoder(16_000, 60, bitrate=16_000, complexity=0)
    pcm = tone(voice_ms, 16_000) + bytes(32 * silence_ms)
    return [encoder.encode(pcm[at : at + 1920]) for at in range(0, len(pcm), 1920)]


SPOKEN = packets(600)


class Engines:
    """Scripted engines, and whether anything of them is left."""

    def __init__(
        self,
        recognizer: ScriptedRecognizer | None = None,
        completer: ScriptedCompleter | None = None,
        synthesizer: ScriptedSynthesizer | None = None,
    ) -> None:
        self.recognizer = recognizer or ScriptedRecognizer(delay_s=0.5)
        self.completer = completer or ScriptedCompleter(unknown=ANSWER, first_token_s=1.0, per_token_s=0.1)
        self.synthesizer = synthesizer or ScriptedSynthesizer(delay_s=0.3)

    @property
    def pipeline(self) -> Pipeline:
        return Pipeline(self.recognizer, self.completer, Speaker(self.synthesizer))

    @property
    def calls(self) -> list[Calls]:
        return [self.recognizer.calls, self.completer.calls, self.synthesizer.calls]

    @property
    def running(self) -> int:
        return sum(calls.running for calls in self.calls)


class Detecting:
    """A voice detector whose devices share one stream."""

    def __init__(self, voice: VoiceStream) -> None:
        self.voice = voice

    def listen(self) -> VoiceStream:
        return self.voice


class Talk:
    """One session, what it was told and what it said."""

    def __init__(
        self,
        engines: Engines,
        options: SessionOptions | None = None,
        *,
        voice: VoiceStream | None = None,
        turn_detector: TurnDetector | None = None,
    ) -> None:
        self.engines = engines
        self.down: list[DownMessage] = []
        self.records: list[TurnRecord] = []
        self.fence = 0
        self.seq = 0
        self.changed = asyncio.Event()
        self.is_over = False
        self.on_send: Callable[[DownMessage], None] = lambda _message: None
        self.session = BrainSession(
            SessionOpened(session_id="s", device_id="d"),
            edge_id="e",
            detector=Detecting(voice) if voice is not None else ScriptedDetector(),
            turn_detector=turn_detector,
            pipeline=engines.pipeline,
            send=self._send,
            turn_ended=self._record,
            options=options,
            now=asyncio.get_running_loop().time,
        )

    async def _send(self, message: DownMessage) -> None:
        self.down.append(message)
        self.changed.set()
        self.on_send(message)

    async def _record(self, record: TurnRecord) -> None:
        self.records.append(record)
        self.changed.set()

    def ended(self) -> None:
        self.is_over = True
        self.changed.set()

    def tell(self, kind: type[Up], **fields: object) -> None:
        """Put a message into the session's inbox, stamped as the gateway would."""
        message = kind(session_id="s", fence=self.fence, **fields)
        self.session.inbox.put(message)  # type: ignore[arg-type]  # kind is one of UpMessage's

    def listen(self, mode: ListenMode = "auto") -> None:
        self.tell(ListenStarted, mode=mode)

    def say(self, spoken: list[bytes] | None = None) -> None:
        """Send packets in one burst."""
        for packet in SPOKEN if spoken is None else spoken:
            self.tell(AudioUp, seq=self.seq, packet=packet)
            self.seq += 1

    async def until(self, happened: Callable[[], object]) -> None:
        """Wait until a message down or a record makes ``happened`` true."""
        while not happened():
            assert not self.is_over, "the session ended"
            self.changed.clear()
            await self.changed.wait()

    async def until_sent(self, kind: type[DownMessage], count: int = 1) -> None:
        await self.until(lambda: sum(isinstance(message, kind) for message in self.down) >= count)

    async def until_records(self, count: int = 1) -> None:
        await self.until(lambda: len(self.records) >= count)

    async def until_thinking(self) -> None:
        """Wait, without letting time pass, until a turn has begun."""
        while self.session.turn is None:  # noqa: ASYNC110 - a turn tells nobody that it begins
            await asyncio.sleep(0)

    def plays(self) -> None:
        """Report all speech as played at the pace of a loudspeaker."""
        loop = asyncio.get_running_loop()
        began_s: list[float] = []
        sent_ms = 0

        def on_send(message: DownMessage) -> None:
            nonlocal sent_ms
            if isinstance(message, SpeechDown):
                began_s.append(loop.time())
                sent_ms += 60 * len(message.packets)
                report = partial(self.tell, Played, turn_id=message.turn_id, played_ms=sent_ms)
                loop.call_at(began_s[0] + sent_ms / 1000, report)

        self.on_send = on_send

    @property
    def story(self) -> list[str]:
        return story(self.down)

    @property
    def speech_ms(self) -> int:
        return sum(60 * len(message.packets) for message in self.down if isinstance(message, SpeechDown))


@asynccontextmanager
async def talk(
    engines: Engines | None = None, options: SessionOptions | None = None, *, turn_detector: TurnDetector | None = None
) -> AsyncGenerator[Talk, None]:
    """Run a session; afterwards nothing of it or of the engines is left."""
    talking = Talk(engines or Engines(), options, turn_detector=turn_detector)
    task = asyncio.create_task(talking.session.run(), name="session")
    task.add_done_callback(lambda _: talking.ended())
    try:
        yield talking
        talking.tell(SessionClosed)
        await task
    finally:
        task.cancel()
        await asyncio.wait([task])
    assert talking.engines.running == 0


def story(down: list[DownMessage]) -> list[str]:
    """Return the messages as a golden list: one word each, speech packets of a sentence as one."""
    told: list[str] = []
    for message in down:
        word = _word(message)
        told += [word] if told[-1:] != ["speech"] or word != "speech" else []
    return told


def _word(message: DownMessage) -> str:
    match message:
        case Heard():
            return f"heard {message.text}"
        case Felt():
            return f"felt {message.emotion}"
        case SentenceStarted():
            return f"sentence {message.text}"
        case TurnEnded():
            return f"{message.outcome} {message.code}".strip()
        case SessionRefused():
            return f"refused {message.code}"
        case _:
            return {SpeechDown: "speech", SpeechHeld: "held", SpeechResumed: "resumed"}[type(message)]
