"""The spine: one utterance in, one spoken answer out. Read this first.

    Utterance -> Recognizer -> Transcript -> ask -> Prompt -> Completer -> CompletionDelta ...
                                                   -> sentences -> Synthesizer -> SpeechChunk ...

Two outlets: ``emit`` is awaited and may make the pipeline wait (the device), ``observe`` is called and may not (marks and metrics).
Generation runs ahead of speaking through ``prefetch``, so sentence n is spoken while sentence n+1 is being written. Only the first one
has the cores to itself: writing goes on once it sounds, which is sooner than if both shared them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

from edge.brain.flow import prefetch
from edge.brain.sentences import Sentence, sentences
from edge.brain.stage import stage
from models.engines import Completer, Recognizer, Synthesizer
from models.errors import CompletionError, RecognitionError, SynthesisError
from models.prompts import CompletionDelta, Prompt
from models.speech import SpeechChunk, Transcript, Utterance

SENTENCES_AHEAD = 64
"""More than 256 tokens make: generation ends and frees its slot without waiting for the loudspeaker."""

Event = Transcript | Sentence | SpeechChunk
Emit = Callable[[Event], Awaitable[None]]
Ask = Callable[[Transcript], Prompt]
Observe = Callable[[Event | CompletionDelta], None]


@dataclass(frozen=True, slots=True)
class Pipeline:
    """The three engines one turn passes through, in order."""

    recognizer: Recognizer
    completer: Completer
    synthesizer: Synthesizer

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
        sounds = asyncio.Event()
        with stage("llm", CompletionError):
            answer = sentences(_watched(self.completer.complete(prompt), observe))
            async with prefetch(_after_the_first(answer, sounds), SENTENCES_AHEAD) as ready:
                async for sentence in ready:
                    observe(sentence)
                    await emit(sentence)
                    await self._speak(sentence, prompt.language, emit, observe, sounds)

    async def _speak(
        self, sentence: Sentence, language: str, emit: Emit, observe: Observe, sounds: asyncio.Event
    ) -> None:
        with stage("tts", SynthesisError):
            async with aclosing(self.synthesizer.speak(sentence.text, language)) as speech:
                async for chunk in speech:
                    sounds.set()
                    observe(chunk)
                    await emit(chunk)
        sounds.set()


async def _after_the_first(
    answer: AsyncGenerator[Sentence, None], sounds: asyncio.Event
) -> AsyncGenerator[Sentence, None]:
    """Yield the first sentence at once, and go on once something sounds."""
    async with aclosing(answer):
        async for sentence in answer:
            yield sentence
            await sounds.wait()


async def _watched(
    deltas: AsyncGenerator[CompletionDelta, None], observe: Observe
) -> AsyncGenerator[CompletionDelta, None]:
    async with aclosing(deltas):
        async for delta in deltas:
            observe(delta)
            yield delta
