"""Turns on a node whose cache is measured: the whole way from a transcript to the first packet, with engines that are scripted.

A known question is answered by the pipeline itself from the tier that knows it; an unknown one by a model that answers at once, so that what
is seen is what the cache adds.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from benchmarks.report import percentile
from coordinator.cache.answers import AnswerCache
from coordinator.cache.ladder import Ladder
from coordinator.cache.memory import MemoryTier
from coordinator.cache.tiers import FarTier
from coordinator.hierarchy import Hierarchy
from coordinator.routing.policy import Policy
from coordinator.routing.router import Router
from edge.brain.conversation import Conversation
from edge.brain.packets import SpeechMemory, SpeechPackets
from edge.brain.pipeline import Event, Pipeline
from edge.brain.quality import LEVELS, QualityController
from edge.brain.sentences import Sentence
from edge.brain.speaker import Speaker
from edge.brain.spoken_answers import SpokenAnswers
from models.prompts import CompletionDelta, Prompt
from models.scripted import ScriptedRecognizer, ScriptedSynthesizer
from models.slots import Slots
from models.speech import Transcript

HERD = 150
"""Devices of a node that ask the same new question at once."""
FIRST_TOKEN_S = 0.3
"""Of the model that the herd asks."""


def question(number: int) -> str:
    """Return a question that may be remembered."""
    return f"海拔{number}米的地方水的沸点是多少度"


def answer_to(asked: str) -> str:
    """Return the one right answer to it."""
    return f"{asked}，答案是第{sum(asked.encode()) % 1000}号。请记住。"


class Knowing:
    """A Completer that gives each question its one right answer, after a while."""

    def __init__(self, first_token_s: float = 0.0) -> None:
        self.calls = 0
        self._first_token_s = first_token_s

    async def complete(self, prompt: Prompt) -> AsyncGenerator[CompletionDelta, None]:
        """Yield the answer whole."""
        self.calls += 1
        await asyncio.sleep(self._first_token_s)
        yield CompletionDelta(text=answer_to(prompt.question), model="scripted")


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """How a turn went."""

    first_packet_ms: float | None
    words: str


class Node:
    """One node's way from words to packets."""

    def __init__(self, ladder: Ladder, completer: Knowing) -> None:
        self.completer = completer
        self.synthesizer = ScriptedSynthesizer(ms_per_character=100)
        self.reasons: Counter[str] = Counter()
        self.ladder = ladder
        self.slots = Slots("opus", 1, max_waiting=1024)
        cache = AnswerCache(ladder, "benchmark")
        best = QualityController(
            levels=LEVELS[:1]
        )  # speech of another quality is not looked for: a benchmark encodes all the time
        speaker = Speaker(self.synthesizer, voice="v", slots=self.slots, memory=SpeechMemory(ladder), quality=best)
        spoken = SpokenAnswers(
            ladder,
            cache,
            voice="v",
            qualities=speaker.qualities,
            observe=lambda decision: self.reasons.update([decision.reason]),
        )
        hierarchy = Hierarchy(completer, {}, cache, Router(Policy(router="complexity", threshold=2.0), None))
        self._pipeline = Pipeline(ScriptedRecognizer(), hierarchy, speaker, spoken)

    async def turn(self, asked: str) -> Turn:
        """Hold a turn with what a recogniser heard."""
        words: list[str] = []
        began_s = time.perf_counter()
        first_ms: float | None = None

        async def emit(event: Event) -> None:
            nonlocal first_ms
            if isinstance(event, SpeechPackets) and first_ms is None:
                first_ms = (time.perf_counter() - began_s) * 1000
            if isinstance(event, Sentence):
                words.append(event.text)

        def ask(transcript: Transcript) -> Prompt:
            return Conversation("d").prompt("t", transcript.text)

        await self._pipeline.reply(Transcript(turn_id="t", text=asked, language="zh"), ask, emit, lambda _event: None)
        return Turn(first_packet_ms=first_ms, words="".join(words))


@asynccontextmanager
async def node(*far: FarTier, first_token_s: float = 0.0) -> AsyncGenerator[Node, None]:
    """Open a node with an empty memory of its own and these tiers beyond it."""
    async with Ladder(MemoryTier(), far).open() as ladder:
        made = Node(ladder, Knowing(first_token_s))
        try:
            yield made
        finally:
            made.slots.close()


async def audio_hits(far: FarTier | None, rounds: int) -> dict[str, Any]:
    """Return the times to the first packet of ``rounds`` questions that memory, or one far tier alone, knows as sound; milliseconds."""
    numbers = range(rounds)
    async with node(*([far] if far else [])) as before:
        for number in numbers:
            await before.turn(question(number))
        await written(before.ladder.writes_waiting)
        if far is None:
            return await _asked_again(before, numbers)
    async with node(*([far] if far else [])) as fresh:
        return await _asked_again(fresh, numbers)


async def written(waiting: Mapping[str, Callable[[], int]], within_s: float = 30.0) -> None:
    """Return once nothing waits to be written to the far tiers."""
    until_s = time.monotonic() + within_s
    while any(count() for count in waiting.values()) and time.monotonic() < until_s:  # noqa: ASYNC110  # tasks that tell nobody
        await asyncio.sleep(0.01)
    await asyncio.sleep(0.05)  # the last one is under way


async def _asked_again(known: Node, numbers: Sequence[int]) -> dict[str, Any]:
    known.reasons.clear()
    turns = [await known.turn(question(number)) for number in numbers]
    took_ms = [turn.first_packet_ms for turn in turns if turn.first_packet_ms is not None]
    right = sum(turn.words == answer_to(question(number)) for number, turn in zip(numbers, turns, strict=True))
    marks = {f"p{share}": round(percentile(took_ms, share) or 0.0, 3) for share in (50, 95, 99)}
    return {**marks, "n": len(turns), "right": right, "from_sound": known.reasons["remembered-speech"]}


async def herd(far: Sequence[FarTier], size: int = HERD) -> dict[str, Any]:
    """Return what it costs when so many devices of one node ask the same new question at once."""
    async with node(*far, first_token_s=FIRST_TOKEN_S) as asked:
        turns = await asyncio.gather(*(asked.turn(question(10_000_000)) for _ in range(size)))
        return {
            "devices": size,
            "model_calls": asked.completer.calls,
            "sentences": len({turn.words for turn in turns}),
            "syntheses": asked.synthesizer.calls.started,
            "sentences_in_the_answer": 2,
            "answered": sum(turn.first_packet_ms is not None for turn in turns),
        }
