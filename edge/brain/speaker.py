"""Sentences to the device's packets, between the pipeline and the voices: the same sentence is rendered and encoded once.

    text -> known? -> packets
         -> being rendered for somebody else? -> the same packets as they come
         -> Synthesizer -> SpeechChunk ... -> SpeechEncoder, in a thread -> packets -> remembered when complete

A rendering belongs to all who listen to it: it outlives any one of them, and stops when the last one leaves.
"""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import Literal

from coordinator.cache.flight import Flights
from coordinator.cache.ladder import Ladder
from coordinator.cache.memory import MemoryTier
from edge.brain.opus import SpeechEncoder
from edge.brain.packets import SpeechKey, SpeechMemory, SpeechPackets
from edge.brain.quality import Quality, QualityController
from edge.brain.stage import stage
from edge.seam import DOWNLINK_FRAME_MS
from models.engines import Synthesizer
from models.errors import SynthesisError
from models.slots import Slots
from models.speech import SpeechChunk

PIECE_PACKETS = 10
"""600 ms of speech: about 2 ms of encoding, after which somebody else's sentence may have the thread."""
FIRST_PIECE_PACKETS = 2
"""The first sound leaves after half a millisecond."""
_SPARE_ENCODERS = 8
"""Encoders kept for the next sentence; about 30 kB each."""

SpeechSource = Literal["hit", "joined", "miss"]
"""Where a sentence came from: the cache, a rendering under way, or a rendering of its own."""


class Speaker:
    """Speaks sentences as packets for all sessions of a brain."""

    def __init__(
        self,
        synthesizer: Synthesizer,
        *,
        voice: str = "",
        words: Callable[[str, str], str] = lambda text, _language: " ".join(text.split()),
        slots: Slots | None = None,
        memory: SpeechMemory | None = None,
        quality: QualityController | None = None,
        observe: Callable[[SpeechSource], None] = lambda _source: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """``voice`` names the voices and their version; ``words`` turns text and language into what a voice will say.

        Encoding runs in ``slots``, which then belong to the speaker; without them it runs on the loop, for tests and tools.
        ``observe`` is told where each sentence came from.
        """
        self._memory = memory or SpeechMemory(Ladder(MemoryTier()))
        self.quality = quality or QualityController(now=now)
        self._synthesizer = synthesizer
        self._voice = voice
        self._words = words
        self._slots = slots
        self._observe = observe
        self._now = now
        self._renderings: Flights[SpeechKey, SpeechPackets] = Flights()
        self._spare: list[SpeechEncoder] = []

    def qualities(self) -> list[str]:
        """Return the names of the levels that are good enough now, best first; the last one is encoded at."""
        return [quality.name for quality in self.quality.levels[: self.quality.level + 1]]

    @property
    def rendering(self) -> int:
        """Sentences being rendered now."""
        return len(self._renderings)

    @property
    def waiting(self) -> int:
        """Pieces in line for an encoder now."""
        return self._slots.waiting if self._slots is not None else 0

    async def speak(self, text: str, language: str = "") -> AsyncGenerator[SpeechPackets, None]:
        """Yield the spoken sentence as it comes; nothing for text without anything speakable; raise SynthesisError.

        Closing stops the rendering before it returns, unless somebody else listens to it.
        """
        level = self.quality.level
        words = self._words(text, language)
        keys = [
            SpeechKey(voice=self._voice, language=language, quality=quality, words=words)
            for quality in self.qualities()
        ]
        known = self._memory.known(keys)
        if known is None and not any(key in self._renderings for key in keys):
            known = await self._memory.find(keys[-1])
        if known is not None:
            self._observe("hit")
            if known:
                yield SpeechPackets(packets=known)
            return
        key = next((key for key in keys if key in self._renderings), keys[-1])
        self._observe("joined" if key in self._renderings else "miss")
        rendering = self._renderings.join(key, lambda: self._render(key, text, language, self.quality.levels[level]))
        async with aclosing(rendering) as pieces:
            async for piece in pieces:
                yield piece

    async def close(self) -> None:
        """Stop every rendering; whoever listens gets a SynthesisError."""
        await self._renderings.close(SynthesisError("the speaker is closed"))
        if self._slots is not None:
            self._slots.close()

    async def _render(
        self, key: SpeechKey, text: str, language: str, quality: Quality
    ) -> AsyncGenerator[SpeechPackets, None]:
        """Yield the sentence as it is made, and remember it whole."""
        encoder = self._spare.pop() if self._spare else SpeechEncoder()
        made: list[bytes] = []
        try:
            with stage("tts", SynthesisError):
                encoder.begin(quality.bitrate, quality.complexity)
                async with aclosing(self._encoded(encoder, text, language)) as pieces:
                    async for packets in pieces:
                        made += packets
                        yield SpeechPackets(packets=packets)
            self._memory.put(key, made)
        finally:
            if len(self._spare) < _SPARE_ENCODERS:
                self._spare.append(encoder)

    async def _encoded(
        self, encoder: SpeechEncoder, text: str, language: str
    ) -> AsyncGenerator[tuple[bytes, ...], None]:
        """Yield the sentence's packets in pieces, the first of it a small one."""
        size = FIRST_PIECE_PACKETS
        async with aclosing(self._synthesizer.speak(text, language)) as speech:
            async for chunk in speech:
                packet_bytes = 2 * chunk.sample_rate_hz * DOWNLINK_FRAME_MS // 1000
                start = 0
                while start < len(chunk.pcm):
                    end = start + packet_bytes * size
                    piece = SpeechChunk(pcm=chunk.pcm[start:end], sample_rate_hz=chunk.sample_rate_hz)
                    if packets := await self._run(encoder.encode, piece):
                        size = PIECE_PACKETS
                        yield packets
                    start = end
        if packets := await self._run(encoder.flush):
            yield packets

    async def _run(self, encode: Callable[..., Iterator[bytes]], *arguments: SpeechChunk) -> tuple[bytes, ...]:
        """Return what ``encode`` yields, made in a thread, and report what it cost."""

        def work() -> tuple[tuple[bytes, ...], float]:
            began_s = time.thread_time()
            packets = tuple(encode(*arguments))
            return packets, time.thread_time() - began_s

        began_s = self._now()
        if self._slots is None:
            packets, busy_s = work()
        else:
            async with self._slots.hold():
                packets, busy_s = await self._slots.run(work)
        wall_s = self._now() - began_s
        self.quality.took(len(packets) * DOWNLINK_FRAME_MS / 1000, wall_s=wall_s, busy_s=busy_s)
        return packets
