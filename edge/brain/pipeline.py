"""The spine: one utterance in, one spoken answer out. Read this first.

    Utterance -> Recognizer -> Transcript -> ask -> Prompt -> Completer -> CompletionDelta ...
                                                   -> sentences -> Speaker -> SpeechPackets ...
                                         -> known as spoken before? -> SpeechPackets ...

Two outlets: ``emit`` is awaited and may make the pipeline wait (the device), ``observe`` is called and may not (marks and metrics).
Generation runs ahead of speaking through ``prefetch``, so sentence n is spoken while sentence n+1 is being written. Only the first one
has the cores to itself: writing goes on once it sounds, which is sooner than if both shared them. A sentence that cannot be spoken is
left out; only an answer of which nothing can be spoken fails.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

import structlog

from edge.brain.flow import prefetch
from edge.brain.packets import SpeechPackets
from edge.brain.sentences import Sentence, sentences
from edge.brain.spoken_answers import SpokenAnswer, SpokenAnswers, SpokenPiece
from edge.brain.stage import stage
from models.engines import Completer, Recognizer
from models.errors import CompletionError, RecognitionError, SynthesisError
from models.prompts import CompletionDelta, Prompt
from models.speech import Transcript, Utterance

_log = structlog.get_logger()

SENTENCES_AHEAD = 64
"""More than 256 tokens make: generation ends and frees its slot without waiting for the loudspeaker."""

Event = Transcript | Sentence | SpeechPackets
Emit = Callable[[Event], Awaitable[None]]
Ask = Callable[[Transcript], Prompt]
Observe = Callable[[Event | CompletionDelta | SynthesisError], None]
"""A SynthesisError is the sentence before it, left out."""


class Speaks(Protocol):
    """Turns a sentence into packets: the Speaker."""

    def speak(self, text: str, language: str = "") -> AsyncGenerator[SpeechPackets, None]:
        """Yield the spoken sentence piece by piece; nothing for text without anything speakable; raise SynthesisError."""
        ...


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The three engines one turn passes through, in order."""

    recognizer: Recognizer
    completer: Completer
    speaker: Speaks
    spoken: SpokenAnswers | None = None
    """What was spoken before; None remembers no answer as sound."""

    async def answer(self, utterance: Utterance, ask: Ask, emit: Emit, observe: Observe) -> None:
        """Emit the transcript, then the answer sentence by sentence with its speech; raise StageError.

        Cancel the task to interrupt: every engine is closed before this returns.
        """
        with stage("asr", RecognitionError):
            transcript = await self.recognizer.transcribe(utterance)
        observe(transcript)
        await self.reply(transcript, ask, emit, observe)

    async def reply(self, transcript: Transcript, ask: Ask, emit: Emit, observe: Observe) -> None:
        """Do the same for words that need no recognising; nothing but the transcript is emitted when there are none."""
        await emit(transcript)
        if not transcript.text:
            return
        prompt = ask(transcript)
        known = None if self.spoken is None else await self.spoken.get(prompt)
        if known is not None:
            await _replay(known, emit, observe)
            return
        said = _Said()
        with stage("llm", CompletionError):
            answer = sentences(_watched(self.completer.complete(prompt), observe, said))
            async with prefetch(_after_the_first(answer, said.begun), SENTENCES_AHEAD) as ready:
                async for sentence in ready:
                    observe(sentence)
                    await emit(sentence)
                    await self._speak(sentence, prompt, emit, observe, said)
        if said.failure is not None and not said.anything:
            raise said.failure
        if self.spoken is not None and said.is_kept and said.failure is None:
            self.spoken.put(prompt, SpokenAnswer(model=said.model, pieces=tuple(said.pieces)))

    async def _speak(self, sentence: Sentence, prompt: Prompt, emit: Emit, observe: Observe, said: _Said) -> None:
        spoken: list[bytes] = []
        try:
            async with aclosing(self.speaker.speak(sentence.text, prompt.language)) as speech:
                while (packets := await _next(speech)) is not None:
                    spoken += packets.packets
                    said.anything = True
                    said.begun.set()
                    observe(packets)
                    await emit(packets)
        except SynthesisError as error:
            _log.warning("sentence-left-out", turn_id=prompt.turn_id, code=error.code, error=str(error))
            said.failure = error
            observe(error)
        said.pieces.append(SpokenPiece(text=sentence.text, emotion=sentence.emotion, packets=tuple(spoken)))
        said.begun.set()


class _Said:
    """What became of an answer's sentences so far."""

    def __init__(self) -> None:
        self.begun = asyncio.Event()
        """The first sentence sounds, or never will."""
        self.anything = False
        self.pieces: list[SpokenPiece] = []
        self.model = ""
        self.is_kept = False
        """Whether others who ask the same are told the same words."""
        self.failure: SynthesisError | None = None


async def _next(speech: AsyncGenerator[SpeechPackets, None]) -> SpeechPackets | None:
    """Return the next packets, None at the end; only the voice's own failures are a SynthesisError."""
    with stage("tts", SynthesisError):
        return await anext(speech, None)


async def _after_the_first(
    answer: AsyncGenerator[Sentence, None], begun: asyncio.Event
) -> AsyncGenerator[Sentence, None]:
    """Yield the first sentence at once, and go on once it sounds."""
    async with aclosing(answer):
        async for sentence in answer:
            yield sentence
            await begun.wait()


async def _replay(answer: SpokenAnswer, emit: Emit, observe: Observe) -> None:
    """Emit what was emitted when the answer was spoken first."""
    for piece in answer.pieces:
        sentence = Sentence(text=piece.text, emotion=piece.emotion)
        observe(CompletionDelta(text=piece.text, model=answer.model))
        observe(sentence)
        await emit(sentence)
        if piece.packets:
            packets = SpeechPackets(packets=piece.packets)
            observe(packets)
            await emit(packets)


async def _watched(
    deltas: AsyncGenerator[CompletionDelta, None], observe: Observe, said: _Said
) -> AsyncGenerator[CompletionDelta, None]:
    async with aclosing(deltas):
        async for delta in deltas:
            said.model = said.model or delta.model
            said.is_kept = said.is_kept or delta.is_kept
            observe(delta)
            yield delta
