from __future__ import annotations

from contextlib import aclosing

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import ConfigError
from models.speech import SpeechChunk
from models.voices import Voices, main_language, stretches, trimmed_pcm
from tests.virtual_time import run

_BOTH = ("zh", "en")


class _Echo:
    """Speaks by giving back its name and the words; remembers how its generators ended."""

    def __init__(self, name, rate=16_000):
        self.name, self.rate, self.closed = name, rate, 0

    async def speak(self, text, language=""):
        try:
            for _ in range(2):
                yield SpeechChunk(pcm=f"{self.name}:{language}:{text}".encode(), sample_rate_hz=self.rate)
        finally:
            self.closed += 1


@pytest.mark.parametrize(
    ("text", "hint", "language"),
    [
        ("今天天气很好", "en", "zh"),
        ("How are you?", "zh", "en"),
        ("我喜欢Python", "", "zh"),
        ("The word 好 means good", "", "en"),
        ("好 good", "zh-CN", "zh"),
        ("好 good", "EN", "en"),
        ("42", "en", "en"),
        ("", "", ""),
        ("25°C", "zh", "zh"),
    ],
)
def test_main_language_follows_the_script(text, hint, language):
    assert main_language(text, hint) == language


@pytest.mark.parametrize(
    ("text", "hint", "parts"),
    [
        ("今天25度。", "", [("zh", "今天25度。")]),
        ("It is 25 degrees.", "", [("en", "It is 25 degrees.")]),
        ("我用Python写程序", "", [("zh", "我用"), ("en", "Python"), ("zh", "写程序")]),
        (
            "他说 good morning, my friend，然后走了",
            "",
            [("zh", "他说 "), ("en", "good morning, my friend"), ("zh", "，然后走了")],
        ),
        ("打开WiFi和AI", "", [("zh", "打开"), ("en", "WiFi"), ("zh", "和AI")]),
        ("今天25°C，跑了5km", "", [("zh", "今天25°C，跑了5km")]),
        ("OK，好的", "", [("zh", "OK，好的")]),
        ("The word 你好 means hello.", "", [("en", "The word "), ("zh", "你好"), ("en", " means hello.")]),
        ("42!", "en", [("en", "42!")]),
        ("42!", "fr", [("zh", "42!")]),
        ("", "", []),
    ],
)
def test_each_stretch_goes_to_its_script(text, hint, parts):
    assert stretches(text, _BOTH, hint=hint) == parts


def test_missing_voice_leaves_everything_to_the_other():
    assert stretches("我用Python写程序", ("zh",)) == [("zh", "我用Python写程序")]
    assert stretches("hello world", ("zh",)) == [("zh", "hello world")]


@given(
    st.text(st.one_of(st.characters(), st.sampled_from("你好天 abcOK,。25°'-")), max_size=60),
    st.sampled_from(["", "zh", "en", "fr"]),
)
def test_no_word_is_lost_between_voices(text, hint):
    assert "".join(part for _, part in stretches(text, _BOTH, hint=hint)) == text


def test_sentence_is_spoken_in_turn_by_its_voices():
    voices = Voices({"zh": _Echo("kokoro", 24_000), "en": _Echo("piper", 22_050)}, default="zh")

    async def heard():
        async with aclosing(voices.speak("我用Python", "zh")) as chunks:
            return [(chunk.pcm.decode(), chunk.sample_rate_hz) async for chunk in chunks]

    assert run(heard()) == [("kokoro:zh:我用", 24_000)] * 2 + [("piper:en:Python", 22_050)] * 2


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("今天25°C。", "今天二十五摄氏度。", True),
        ("用Python写", "用 Python 写", True),
        ("It is 5 kg.", "It is 5 kilograms.", True),
        ("2个", "3个", False),
        ("hello", "Hello", False),
    ],
)
def test_texts_of_the_same_words_sound_the_same(one, other, same):
    voices = Voices({"zh": _Echo("zh"), "en": _Echo("en")}, default="zh")
    assert (voices.words(one) == voices.words(other)) is same


def test_closing_closes_the_voice_that_speaks():
    chinese = _Echo("kokoro")
    voices = Voices({"zh": chinese}, default="zh")

    async def interrupted():
        async with aclosing(voices.speak("你好")) as chunks:
            await anext(chunks)
        return chinese.closed

    assert run(interrupted()) == 1


def test_default_without_voice_is_refused():
    with pytest.raises(ConfigError, match="'zh'"):
        Voices({"en": _Echo("piper")}, default="zh")


def test_silence_around_sound_is_cut_to_the_margins():
    samples = np.zeros(24_000, dtype=np.float32)
    samples[10_000:12_000] = 0.5
    pcm = trimmed_pcm(samples, 24_000, lead_ms=50, trail_ms=80)
    assert len(pcm) == 2 * (1_200 + 2_000 + 1_920)
    assert np.frombuffer(pcm, "<i2").max() == 16_383


def test_loud_samples_are_clipped_and_silence_is_empty():
    assert np.frombuffer(trimmed_pcm(np.full(10, 2.0, np.float32), 24_000), "<i2").tolist() == [32_767] * 10
    assert trimmed_pcm(np.zeros(10, np.float32), 24_000) == b""
    assert trimmed_pcm(np.zeros(0, np.float32), 24_000) == b""
