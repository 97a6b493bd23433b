"""Sentences to the device's packets, between the pipeline and the voices: the same sentence is rendered and encoded once.

    text -> known? -> packets
         -> being rendered for somebody else? -> the same packets as they come
         -> Synthesizer -> SpeechChunk ... -> SpeechEncoder, in a thread -> packets -> remembered when complete

A rendering belongs to all who listen to it: it outlives any one of them, and stops when the last one leaves.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from typing import Literal

from edge.brain.flow import stopped
from edge.brain.opus import SpeechEncoder
from edge.brain.packets import PacketCache, SpeechKey, SpeechPackets
from edge.brain.quality import Quality, QualityController
from edge.brain.stage import stage
from edge.seam import DOWNLINK_FRAME_MS
from models.engines import Synthesizer
from models.errors import SynthesisError, VoiceError
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


class _Rendering:
    """A sentence being rendered for one or more listeners, who all get every packet from the first on."""

    def __init__(self) -> None:
        self.listeners = 0
        self.pieces: list[SpeechPackets] = []
        self.task: asyncio.Task[None] | None = None
        self._error: VoiceError | None = None
        self._ended = False
        self._news = asyncio.Event()

    def add(self, packets: tuple[bytes, ...]) -> None:
        """Give everybody the next packets."""
        if packets:
            self.pieces.append(SpeechPackets(packets=packets))
            self._tell()

    def end(self, error: VoiceError | None = None) -> None:
        """Say that nothing more comes, and why."""
        self._ended, self._error = True, error
        self._tell()

    async def listen(self) -> AsyncGenerator[SpeechPackets, None]:
        """Yield everything from the beginning; raise what ended it."""
        taken = 0
        while True:
            news = self._news
            while taken < len(self.pieces):
                taken += 1
                yield self.pieces[taken - 1]
            if self._ended:
                break
            if news is self._news:
                await news.wait()
        if self._error is not None:
            # One of its own for each listener: a raised exception carries the traceback of whoever caught it.
            raise type(self._error)(str(self._error)) from self._error

    def _tell(self) -> None:
        news, self._news = self._news, asyncio.Event()
        news.set()


class Speaker:
    """Speaks sentences as packets for all sessions of a brain."""

    def __init__(
        self,
        synthesizer: Synthesizer,
        *,
        voice: str = "",
        words: Callable[[str, str], str] = lambda text, _language: " ".join(text.split()),
        slots: Slots | None = None,
        cache: PacketCache | None = None,
        quality: QualityController | None = None,
        observe: Callable[[SpeechSource], None] = lambda _source: None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """``voice`` names the voices and their version; ``words`` turns text and language into what a voice will say.

        Encoding runs in ``slots``, which then belong to the speaker; without them it runs on the loop, for tests and tools.
        ``observe`` is told where each sentence came from.
        """
        self.cache = cache if cache is not None else PacketCache()
        self.quality = quality or QualityController(now=now)
        self._synthesizer = synthesizer
        self._voice = voice
        self._words = words
        self._slots = slots
        self._observe = observe
        self._now = now
        self._renderings: dict[SpeechKey, _Rendering] = {}
        self._spare: list[SpeechEncoder] = []

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
            SpeechKey(voice=self._voice, language=language, quality=quality.name, words=words)
            for quality in self.quality.levels[: level + 1]
        ]
        known = next((packets for key in keys if (packets := self.cache.get(key)) is not None), None)
        if known is not None:
            self._observe("hit")
            if known:
                yield SpeechPackets(packets=known)
            return
        key = next((key for key in keys if key in self._renderings), keys[-1])
        self._observe("joined" if key in self._renderings else "miss")
        rendering = self._renderings.get(key) or self._begin(key, text, language, self.quality.levels[level])
        rendering.listeners += 1
        try:
            async with aclosing(rendering.listen()) as pieces:
                async for piece in pieces:
                    yield piece
        finally:
            rendering.listeners -= 1
            if not rendering.listeners:
                await self._leave(key, rendering)

    async def close(self) -> None:
        """Stop every rendering and refuse new ones; whoever listens gets a SynthesisError."""
        for key, rendering in list(self._renderings.items()):
            await self._leave(key, rendering)
            rendering.end(SynthesisError("the speaker is closed"))
        if self._slots is not None:
            self._slots.close()

    def _begin(self, key: SpeechKey, text: str, language: str, quality: Quality) -> _Rendering:
        rendering = self._renderings[key] = _Rendering()
        rendering.task = asyncio.create_task(self._render(rendering, key, text, language, quality), name="rendering")
        return rendering

    async def _leave(self, key: SpeechKey, rendering: _Rendering) -> None:
        if self._renderings.get(key) is rendering:
            del self._renderings[key]
        if rendering.task is not None:
            await stopped(rendering.task)

    async def _render(self, rendering: _Rendering, key: SpeechKey, text: str, language: str, quality: Quality) -> None:
        encoder = self._spare.pop() if self._spare else SpeechEncoder()
        try:
            with stage("tts", SynthesisError):
                encoder.begin(quality.bitrate, quality.complexity)
                async with aclosing(self._synthesizer.speak(text, language)) as speech:
                    async for chunk in speech:
                        await self._encode(rendering, encoder, chunk)
                rendering.add(await self._run(encoder.flush))
        except VoiceError as error:
            rendering.end(error)
        else:
            self.cache.put(key, tuple(packet for piece in rendering.pieces for packet in piece.packets))
            rendering.end()
        finally:
            if self._renderings.get(key) is rendering:
                del self._renderings[key]
            if len(self._spare) < _SPARE_ENCODERS:
                self._spare.append(encoder)

    async def _encode(self, rendering: _Rendering, encoder: SpeechEncoder, chunk: SpeechChunk) -> None:
        """Encode a chunk in pieces, the first of a sentence a small one."""
        start = 0
        packet_bytes = 2 * chunk.sample_rate_hz * DOWNLINK_FRAME_MS // 1000
        while start < len(chunk.pcm):
            end = start + packet_bytes * (PIECE_PACKETS if rendering.pieces else FIRST_PIECE_PACKETS)
            piece = SpeechChunk(pcm=chunk.pcm[start:end], sample_rate_hz=chunk.sample_rate_hz)
            rendering.add(await self._run(encoder.encode, piece))
            start = end

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
