from __future__ import annotations

import asyncio
import threading
from contextlib import aclosing

import numpy as np
import pytest
from structlog.testing import capture_logs

import models.kokoro
from models.errors import CatalogError, ConfigError, SynthesisError
from models.kokoro import SAMPLE_RATE_HZ, KokoroSynthesizer, _open_quick, phoneme_ids, spelled
from models.store import locate
from tests.real_time import run


class _Tone:
    """A voice that renders 0.1 s of sound per token between two silences, once ``gate`` is open."""

    def __init__(self):
        self.inputs = []
        self.gate = threading.Event()
        self.gate.set()
        self.begun = threading.Event()

    providers = ("fake",)

    def run(self, inputs):
        self.inputs.append(inputs)
        self.begun.set()
        self.gate.wait(10)
        silence = np.zeros(10_000, np.float32)
        return [np.concatenate([silence, np.full(2_400 * inputs["tokens"].shape[1], 0.5, np.float32), silence])]


@pytest.fixture
def voice_path(tmp_path):
    path = tmp_path / "zm_test.bin"
    np.repeat(np.arange(510, dtype="<f4"), 256).tofile(path)
    return path


def _kokoro(voice_path, session, phonemizer=lambda text: "a" * len(text)):
    return KokoroSynthesizer(voice_path.with_name("model.onnx"), voice_path, session=session, phonemizer=phonemizer)


async def _spoken(voice, text):
    async with aclosing(voice.speak(text, "zh")) as chunks:
        return [chunk async for chunk in chunks]


def test_phonemes_become_the_models_numbers():
    assert phoneme_ids("ni↓xau̯↓, ✗") == [56, 51, 169, 66, 43, 63, 169, 3, 16]
    assert len(phoneme_ids("a" * 600)) == 509


def test_latin_words_are_spelled():
    assert spelled("aB-1") == "ˈA bˈi"


def test_sentence_is_spoken_clause_by_clause_without_the_silence(voice_path):
    session = _Tone()
    chunks = run(_spoken(_kokoro(voice_path, session), "今天天气非常好，我们2点出去玩吧。"))
    assert [inputs["tokens"].tolist() for inputs in session.inputs] == [[[0, *[43] * 8, 0]], [[0, *[43] * 9, 0]]]
    assert [inputs["style"].tolist() for inputs in session.inputs] == [[[8.0] * 256], [[9.0] * 256]]
    assert [chunk.sample_rate_hz for chunk in chunks] == [SAMPLE_RATE_HZ] * 2
    assert len(chunks[0].pcm) == 2 * (10 * 2_400 + 1_200 + 1_920)


@pytest.mark.parametrize("text", ["", "，。", "😀"])
def test_nothing_speakable_renders_nothing(voice_path, text):
    session = _Tone()
    assert run(_spoken(_kokoro(voice_path, session), text)) == []
    assert session.inputs == []


def test_clause_without_phonemes_is_skipped(voice_path):
    assert run(_spoken(_kokoro(voice_path, _Tone(), lambda _text: "✗"), "你好")) == []


def test_closing_renders_no_further_clause_and_frees_the_voice(voice_path):
    session = _Tone()
    voice = _kokoro(voice_path, session)

    async def interrupted():
        async with aclosing(voice.speak("今天天气非常好，我们一起出去玩吧，然后回家。")) as chunks:
            await anext(chunks)
        rendered = len(session.inputs)
        return rendered, len(await _spoken(voice, "你好。"))

    assert run(interrupted()) == (1, 1)


def test_cancelling_waits_for_the_clause_being_rendered(voice_path):
    session = _Tone()
    voice = _kokoro(voice_path, session)

    async def interrupted():
        session.gate.clear()
        task = asyncio.create_task(_spoken(voice, "今天天气非常好，我们一起出去玩吧。"))
        assert await asyncio.to_thread(session.begun.wait, 10)
        task.cancel()
        await asyncio.sleep(0)
        assert not task.done()
        session.gate.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        return len(session.inputs)

    assert run(interrupted()) == 1


def test_failing_model_is_a_synthesis_error_and_frees_the_voice(voice_path):
    session = _Tone()
    voice = _kokoro(voice_path, session)

    def broken(_inputs):
        raise SynthesisError("model.onnx: Fail")

    async def twice():
        for _ in range(2):
            with pytest.raises(SynthesisError):
                await _spoken(voice, "你好")

    session.run = broken
    run(twice())


def test_missing_and_damaged_voices_are_named(tmp_path):
    path = tmp_path / "zf_none.bin"
    with pytest.raises(CatalogError, match=r"zf_none\.bin: no such voice"):
        _kokoro(path, _Tone())
    path.write_bytes(bytes(1_000))
    with pytest.raises(CatalogError, match=r"zf_none\.bin: 1000 bytes, a Kokoro voice has 522240"):
        _kokoro(path, _Tone())


def test_missing_library_names_the_extra(voice_path, monkeypatch):
    monkeypatch.setattr(models.kokoro, "find_spec", lambda name: None if name == "misaki" else object())
    with pytest.raises(ConfigError, match=r"misaki; install xiaozhi-fleet\[engines\]"):
        KokoroSynthesizer(voice_path.with_name("model.onnx"), voice_path, session=_Tone())


def test_missing_model_is_named(voice_path):
    with pytest.raises(CatalogError, match=r"model\.onnx: no such model file"):
        KokoroSynthesizer(voice_path.with_name("model.onnx"), voice_path, phonemizer=str)


@pytest.fixture(scope="module")
def yunxia():
    return KokoroSynthesizer(locate("kokoro-82m-int8")["model"], locate("kokoro-voice-zm_yunxia")["voice"])


@pytest.mark.engine
@pytest.mark.parametrize(
    ("text", "phonemes"),
    [
        ("你好，世界", "ni↗xau̯↓, ʂɨ↘ʨje↘"),
        ("一个AI。", "i↗kɤ↘ ˈA ˈI ."),
        ("噷", "hm"),
    ],
)
def test_mandarin_becomes_phonemes_with_sandhi_and_spelling(yunxia, text, phonemes):
    assert yunxia._phonemes(text) == phonemes


@pytest.mark.engine
def test_real_voice_speaks_mandarin(yunxia, capfd):
    chunks = run(_spoken(yunxia, "你好，我是小智，现在25°C。"), timeout_s=60)
    assert 1.5 < sum(len(chunk.pcm) for chunk in chunks) / 2 / SAMPLE_RATE_HZ < 8.0
    assert capfd.readouterr() == ("", "")


def test_model_of_another_layout_is_opened_as_it_is(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(models.kokoro, "open_session", lambda path, **_options: opened.append(path.read_bytes()))
    path = tmp_path / "model.onnx"
    path.write_bytes(b"another model")
    with capture_logs() as logs:
        _open_quick(path, 1)
    assert opened == [b"another model"]
    assert [line["event"] for line in logs] == ["kokoro-silence-kept"]


def test_edited_model_is_opened_and_leaves_no_file_behind(tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr(
        models.kokoro, "open_session", lambda path, **_options: opened.append((path, path.read_bytes()))
    )
    monkeypatch.setattr(models.kokoro, "without_silence", lambda model: model + b" cut")
    path = tmp_path / "model.onnx"
    path.write_bytes(b"model")
    _open_quick(path, 1)
    [(edited, model)] = opened
    assert (edited.name, model) == ("model.onnx", b"model cut")
    assert not edited.parent.exists()
