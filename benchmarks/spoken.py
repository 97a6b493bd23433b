"""Sentences of the starter voices as samples, with pauses and room noise put in: speech whose every boundary is known."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from edge.simulator.voice import speaker, spoken
from models.speech import AudioFrame

Samples = npt.NDArray[np.int16]

RATE_HZ = 16_000
FRAME = 960
"""Samples of a frame as devices send it: 60 ms."""


class Sentence(NamedTuple):
    """What somebody says in one breath, or with a hesitation in the middle of a clause."""

    language: str
    before: str
    filler: str
    """Said in front of the pause by those who think aloud."""
    after: str

    @property
    def text(self) -> str:
        """The whole sentence, said fluently."""
        return self.before + self.after


SENTENCES = (
    Sentence("zh", "请问明天上午", "，那个，", "北京的天气怎么样？"),
    Sentence("en", "Please turn on the", ", um,", " light in the kitchen."),
    Sentence("zh", "给我讲一个关于", "，嗯，", "小狗和小猫的故事。"),
    Sentence("en", "Tell me something nice about", ", uh,", " the city of Paris."),
    Sentence("zh", "帮我把客厅的", "，那个，", "空调调到二十六度。"),
    Sentence("en", "What is the weather", ", uh,", " going to be like tomorrow morning?"),
    Sentence("zh", "明天早上七点钟", "，呃，", "叫我起床。"),
    Sentence("en", "I would like to know how", ", um,", " many months are in a year."),
    Sentence("zh", "你知道太阳系里面", "，那个，", "最大的行星是哪一个吗？"),
    Sentence("en", "Remind me to call my", ", um,", " mother at seven in the evening."),
    Sentence("zh", "我想听一首", "，嗯，", "周杰伦的歌。"),
    Sentence("en", "Explain to me the differences between", ", uh,", " solar and wind power."),
)
"""Languages take turns. None has a comma of its own: a pause there would be an end as good as any."""

_BLOCK = RATE_HZ // 100
"""10 ms: what loudness is measured over."""
_AUDIBLE = 0.02
"""Loudness of a block, as part of the loudest one's, from which it is speech. A guess that was looked at."""
_FADE = RATE_HZ // 200
"""5 ms at each side of an inserted pause, so that it begins without a click."""


async def said(sentences: Sequence[tuple[str, str]]) -> list[Samples]:
    """Return each sentence spoken, without the silence around it; raise CatalogError, ConfigError or SynthesisError."""
    async with AsyncExitStack() as stack:
        languages = dict.fromkeys(language for language, _ in sentences)
        voices = {language: await stack.enter_async_context(speaker(language)) for language in languages}
        clips = [await spoken(text, voices[language], language) for language, text in sentences]
    return [trimmed(np.frombuffer(clip, "<i2")) for clip in clips]


def loudness(sound: Samples) -> npt.NDArray[np.float64]:
    """Return the root mean square of each whole 10 ms."""
    blocks = sound[: len(sound) // _BLOCK * _BLOCK].reshape(-1, _BLOCK).astype(np.float64)
    return np.asarray(np.sqrt((blocks**2).mean(axis=1)))


def trimmed(sound: Samples) -> Samples:
    """Return ``sound`` from its first to its last audible 10 ms."""
    loud = loudness(sound)
    audible = np.flatnonzero(loud > _AUDIBLE * loud.max(initial=0.0))
    return sound[audible[0] * _BLOCK : (audible[-1] + 1) * _BLOCK] if len(audible) else sound[:0]


def hesitation(sound: Samples) -> int:
    """Return the sample in the middle part of a sentence where its voice is lowest: where a pause cuts the least."""
    loud = np.convolve(loudness(sound), np.ones(3), mode="same")
    first, past = round(len(loud) * 0.3), round(len(loud) * 0.7)
    return int(first + loud[first:past].argmin()) * _BLOCK + _BLOCK // 2


def with_pause(first: Samples, second: Samples, pause_ms: int) -> Samples:
    """Return ``first``, silence, and ``second``; both must have 5 ms."""
    before, after = first.astype(np.float64), second.astype(np.float64)
    ramp = np.linspace(0, 1, _FADE)
    before[-_FADE:] *= ramp[::-1]
    after[:_FADE] *= ramp
    return np.concatenate([before, np.zeros(pause_ms * RATE_HZ // 1000), after]).astype(np.int16)


def in_room(sound: Samples, *, before_ms: int, after_ms: int, noise: float, seed: int) -> Samples:
    """Return ``sound`` with silence around it and noise of ``noise`` (root mean square, of 32,768) under all of it."""
    quiet = np.pad(sound, (before_ms * RATE_HZ // 1000, after_ms * RATE_HZ // 1000)).astype(np.float64)
    hiss = np.random.default_rng(seed).normal(0, noise, len(quiet))
    return np.clip(quiet + hiss, -32768, 32767).astype(np.int16)


def frames_of(sound: Samples) -> list[AudioFrame]:
    """Return the whole frames of 60 ms in ``sound``."""
    return [
        AudioFrame(pcm=sound[start : start + FRAME].tobytes(), start_ms=start * 1000 // RATE_HZ)
        for start in range(0, len(sound) - FRAME + 1, FRAME)
    ]
