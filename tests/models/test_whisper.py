from __future__ import annotations

import asyncio
import math
import threading
from contextlib import aclosing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import CatalogError, ConfigError, RecognitionError
from models.speech import Transcript, Utterance
from models.store import locate
from models.whisper import PIECE_S, Heard, WhisperRecognizer, believed, cut, unlooped, window_s
from tests.real_time import run

RATE_HZ = 16_000
NOWHERE = Path("unused")


class Script:
    """Stands in for the model: each piece is heard as the next of ``pieces``; what it was asked is kept."""

    def __init__(self, *pieces: Heard, spoken: str = "zh", error: Exception | None = None) -> None:
        self.encoded: list[tuple[int, str]] = []
        self.wrote = 0
        self.began = threading.Event()
        self.open = threading.Event()
        self.open.set()
        self._pieces = pieces
        self._spoken = spoken
        self._error = error

    def encode(self, pcm: np.ndarray, language: str) -> tuple[Any, str]:
        self.began.set()
        assert self.open.wait(10)
        if self._error:
            raise self._error
        self.encoded.append((len(pcm), language))
        return None, language or self._spoken

    def write(self, encoded: Any, language: str, duration_s: float) -> Heard:
        self.wrote += 1
        return self._pieces[self.wrote - 1]


def sure(text: str, logprob: float = -0.25, no_speech: float = 0.0) -> Heard:
    return Heard(text=text, logprob=logprob, no_speech=no_speech)


def saying(duration_s: float, language: str = "", rate_hz: int = RATE_HZ, *, is_final: bool = True) -> Utterance:
    pcm = bytes(2 * round(duration_s * rate_hz))
    return Utterance(
        turn_id="t",
        device_id="d",
        pcm=pcm,
        sample_rate_hz=rate_hz,
        start_ms=0,
        end_ms=0,
        language=language,
        is_final=is_final,
    )


def heard_by(model: Script, utterance: Utterance, **options) -> Transcript:
    async def work() -> Transcript:
        recognizer = WhisperRecognizer(NOWHERE, model=model, **options)
        transcript = await recognizer.transcribe(utterance)
        recognizer.close()
        return transcript

    return run(work())


@pytest.mark.parametrize(
    ("duration_s", "window"), [(0, 10), (5, 10), (5.01, 15), (10, 15), (12, 20), (15, 20), (99, 20)]
)
def test_the_window_is_the_shortest_that_leaves_silence_after_the_speech(duration_s: float, window: int):
    assert window_s(duration_s) == window


@pytest.mark.parametrize(
    ("heard", "text"),
    [
        (sure("  今天天气\n怎么样？ "), "今天天气 怎么样？"),
        (sure("a\x00b\x07c\ufffd\u200bd"), "abcd"),
        (sure(""), ""),
        (sure(" …。 "), ""),
        (sure("你不认识我吗?", -1.62, 0.68), ""),
        (sure("油", -3.02, 0.2), ""),
        (sure("临", -1.04, 0.54), "临"),
        (sure("打开灯", -0.1, 0.9), "打开灯"),
        (sure("Thank you.", -0.1, 0.4), ""),
        (sure("Thank you.", -0.1, 0.1), "Thank you."),
        (sure("字幕由某某提供", -0.1, 0.5), ""),
        (sure("Thank you for your help.", -0.1, 0.5), "Thank you for your help."),
        (sure("请不吝点赞 订阅 转发", -0.1, 0.5), ""),
        (sure("谢谢大家的观看。", -0.1, 0.5), ""),
        (sure("正在升级系统。" * 9), "正在升级系统。"),
        (sure("啦" * 200), "啦" * 4),
        (sure("ab" * 3 + "cd" * 60), ""),
    ],
)
def test_only_what_was_said_is_believed(heard: Heard, text: str):
    assert believed(heard) == text


@pytest.mark.parametrize(
    ("text", "once"),
    [
        ("", ""),
        ("你好你好你好", "你好你好你好"),
        ("打开客厅打开客厅", "打开客厅打开客厅"),
        ("打开客厅打开客厅打开客厅", "打开客厅"),
        ("what is it? what is it? what is it? what", "what is it?"),
        ("请打开客厅的灯。", "请打开客厅的灯。"),
    ],
)
def test_a_loop_is_said_once(text: str, once: str):
    assert unlooped(text) == once


@settings(max_examples=20, deadline=None)
@given(st.floats(0, 60), st.integers(0, 2**32 - 1))
def test_pieces_joined_are_the_utterance_and_none_is_too_long(duration_s: float, seed: int):
    pcm = np.random.default_rng(seed).integers(-9, 9, round(duration_s * 100), np.int16).repeat(RATE_HZ // 100)
    pieces = cut(pcm)
    assert np.array_equal(np.concatenate(pieces), pcm)
    assert all(len(piece) <= PIECE_S * RATE_HZ for piece in pieces)


def test_a_long_utterance_is_cut_where_it_is_quiet():
    silence = np.zeros(20 * RATE_HZ, np.int16)
    assert len(cut(silence)[0]) / RATE_HZ > PIECE_S - 0.1
    pcm = np.full(20 * RATE_HZ, 1000, np.int16)
    pcm[12 * RATE_HZ : 13 * RATE_HZ] = 0
    first, second = cut(pcm)
    assert 12 <= len(first) / RATE_HZ <= 13
    assert len(first) + len(second) == len(pcm)


def test_an_utterance_becomes_text_in_the_language_it_is_in():
    model = Script(sure("你好"), spoken="zh")
    heard = heard_by(model, saying(2))
    assert heard == Transcript(turn_id="t", text="你好", language="zh", confidence=math.exp(-0.25))
    assert model.encoded == [(2 * RATE_HZ, "")]


@pytest.mark.parametrize(("set_to", "asked_for", "language"), [("en", "en", "en"), ("fr", "", "zh"), ("", "", "zh")])
def test_a_language_the_device_names_is_not_guessed(set_to: str, asked_for: str, language: str):
    model = Script(sure("hello"))
    assert heard_by(model, saying(1, set_to)).language == language
    assert model.encoded == [(RATE_HZ, asked_for)]


def test_pieces_are_joined_as_their_language_is_written():
    apart = (sure("one"), sure("", -9), sure("two", -0.5))
    assert heard_by(Script(*apart, spoken="en"), saying(40)).text == "one two"
    heard = heard_by(Script(*apart, spoken="zh"), saying(40))
    assert (heard.text, heard.confidence) == ("onetwo", math.exp(-0.5))


@pytest.mark.parametrize("pcm", [b"", b"\x01"])
def test_nothing_recorded_is_nothing_said_and_costs_nothing(pcm: bytes):
    model = Script()
    utterance = Utterance(turn_id="t", device_id="d", pcm=pcm, start_ms=0, end_ms=0)
    assert heard_by(model, utterance) == Transcript(turn_id="t", text="")
    assert model.encoded == []


def test_a_text_has_a_longest_length():
    assert heard_by(Script(sure("一二三四五")), saying(1), max_text_characters=3).text == "一二三"


def test_another_rate_is_refused():
    with pytest.raises(RecognitionError, match="48000 Hz"):
        heard_by(Script(), saying(1, rate_hz=48_000))


def test_a_failing_model_frees_its_slot():
    async def work() -> None:
        recognizer = WhisperRecognizer(NOWHERE, model=Script(error=RecognitionError("planned")))
        for _ in range(2):
            with pytest.raises(RecognitionError, match="planned"):
                await recognizer.transcribe(saying(1))
        recognizer.close()

    run(work())


def test_cancelling_stops_after_the_step_in_hand():
    async def work() -> None:
        model = Script(sure("one"), sure("two"))
        model.open.clear()
        recognizer = WhisperRecognizer(NOWHERE, model=model)
        task = asyncio.create_task(recognizer.transcribe(saying(1)))
        await asyncio.to_thread(model.began.wait, 10)
        task.cancel()
        await asyncio.sleep(0)
        model.open.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert model.wrote == 0
        assert (await recognizer.transcribe(saying(1))).text == "one"
        recognizer.close()

    run(work())


def test_finals_are_heard_before_partials_that_came_earlier():
    async def work() -> list[str]:
        model = Script(*map(sure, "一二三"))
        model.open.clear()
        recognizer = WhisperRecognizer(NOWHERE, model=model)
        first = asyncio.create_task(recognizer.transcribe(saying(1)))
        await asyncio.to_thread(model.began.wait, 10)
        partial = asyncio.create_task(recognizer.transcribe(saying(1, is_final=False)))
        await asyncio.sleep(0)
        final = asyncio.create_task(recognizer.transcribe(saying(1)))
        await asyncio.sleep(0)
        assert recognizer.waiting == 2
        model.open.set()
        heard = await asyncio.gather(first, partial, final)
        recognizer.close()
        return [transcript.text for transcript in heard]

    assert run(work()) == ["一", "三", "二"]


@pytest.mark.parametrize("library", ["ctranslate2", "faster_whisper"])
def test_without_its_libraries_the_extra_is_named(library: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("models.whisper.find_spec", lambda name: None if name == library else name)
    with pytest.raises(ConfigError, match=f"{library}.*engines"):
        WhisperRecognizer(NOWHERE)


@pytest.mark.parametrize("absent", ["model.bin", "config.json", "tokenizer.json"])
def test_a_missing_file_is_named(tmp_path: Path, absent: str):
    for name in {"model.bin", "config.json", "tokenizer.json"} - {absent}:
        (tmp_path / name).write_bytes(b"")
    with pytest.raises(CatalogError, match=f"{absent}.*models pull"):
        WhisperRecognizer(tmp_path)


@pytest.mark.parametrize("content", [b"", b"not a model at all" * 9])
def test_a_damaged_model_is_named(tmp_path: Path, content: bytes):
    for name in ("model.bin", "config.json", "tokenizer.json", "vocabulary.txt"):
        (tmp_path / name).write_bytes(content)
    with pytest.raises(CatalogError, match=r"model\.bin.*pull"):
        WhisperRecognizer(tmp_path)


@pytest.mark.engine
@pytest.mark.parametrize("content", ["", "{", "[]", "{}"])
def test_a_damaged_tokenizer_is_named(tmp_path: Path, content: str):
    for role, path in locate("whisper-base").items():
        if role != "tokenizer":
            (tmp_path / path.name).symlink_to(path)
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(CatalogError, match=r"tokenizer\.json.*pull"):
        WhisperRecognizer(tmp_path)


def real(**options) -> WhisperRecognizer:
    return WhisperRecognizer(locate("whisper-base")["model"].parent, **options)


@pytest.mark.engine
def test_an_unknown_language_is_refused_at_the_start():
    with pytest.raises(ConfigError, match="klingon"):
        real(languages=["klingon"])


def not_speech() -> list[np.ndarray]:
    random, time_s = np.random.default_rng(3), np.arange(2 * RATE_HZ) / RATE_HZ
    hum = 3000 * np.sin(2 * np.pi * 50 * time_s)
    return [np.zeros(2 * RATE_HZ), random.normal(0, 300, 2 * RATE_HZ), random.normal(0, 2000, RATE_HZ // 2), hum]


@pytest.mark.engine
@pytest.mark.parametrize("language", ["", "zh", "en"])
def test_the_real_model_hears_nothing_where_nobody_speaks(language: str):
    async def work() -> None:
        recognizer = real()
        for sound in not_speech():
            pcm = sound.astype("<i2").tobytes()
            utterance = Utterance(turn_id="t", device_id="d", pcm=pcm, start_ms=0, end_ms=0, language=language)
            assert (await recognizer.transcribe(utterance)).text == ""
        recognizer.close()

    run(work())


async def spoken(text: str) -> bytes:
    """Return ``text`` spoken by the English starter voice, at 16 kHz."""
    soxr = pytest.importorskip("soxr")
    pytest.importorskip("piper")
    from models.piper import PiperSynthesizer

    files = locate("piper-en-us-joe-medium")
    voice = PiperSynthesizer(files["model"], files["config"])
    async with aclosing(voice.speak(text, "en")) as chunks:
        pcm = b"".join([chunk.pcm async for chunk in chunks])
    voice.close()
    resampled: np.ndarray = soxr.resample(np.frombuffer(pcm, "<i2"), voice.sample_rate_hz, RATE_HZ)
    return resampled.tobytes()


@pytest.mark.engine
@pytest.mark.parametrize("language", ["", "en"])
def test_the_real_model_hears_a_spoken_sentence(language: str):
    async def work() -> None:
        recognizer = real()
        pcm = await spoken("What is the weather like today?")
        utterance = Utterance(turn_id="t", device_id="d", pcm=pcm, start_ms=0, end_ms=0, language=language)
        heard = await recognizer.transcribe(utterance)
        assert heard.text == "What is the weather like today?"
        assert heard.language == "en"
        assert 0.5 < heard.confidence <= 1
        recognizer.close()

    run(work(), timeout_s=60)
