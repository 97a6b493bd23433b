from __future__ import annotations

import json
from contextlib import aclosing

import numpy as np
import pytest

import models.piper
from models.errors import CatalogError, ConfigError, SynthesisError
from models.piper import PiperSynthesizer
from models.store import locate
from tests.real_time import run

_CONFIG = {"audio": {"sample_rate": 22_050}, "inference": {"noise_scale": 0.6, "length_scale": 1, "noise_w": 0.8}}


class _Tone:
    """A voice that renders 0.1 s of sound per phoneme between two silences."""

    def __init__(self):
        self.inputs = []

    providers = ("fake",)

    def run(self, inputs):
        self.inputs.append(inputs)
        sound = np.full(2_205 * inputs["input"].shape[1], 0.5, np.float32)
        silence = np.zeros(10_000, np.float32)
        return [np.concatenate([silence, sound, silence]).reshape(1, 1, -1)]


def _ids(text):
    return [[len(word) for word in text.split()]]


def _config(tmp_path, content):
    path = tmp_path / "voice.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def _piper(tmp_path, session, phonemizer=_ids):
    return PiperSynthesizer(tmp_path / "voice.onnx", _config(tmp_path, _CONFIG), session=session, phonemizer=phonemizer)


async def _spoken(voice, text):
    async with aclosing(voice.speak(text, "en")) as chunks:
        return [chunk async for chunk in chunks]


def test_sentence_is_spoken_clause_by_clause_without_the_silence(tmp_path):
    session = _Tone()
    chunks = run(_spoken(_piper(tmp_path, session), "The weather is fine this morning, so let us all go out."))
    assert [inputs["input"].tolist() for inputs in session.inputs] == [[[3, 7, 2, 4, 4, 8]], [[2, 3, 2, 3, 2, 4]]]
    assert session.inputs[0]["input_lengths"].tolist() == [6]
    assert [chunk.sample_rate_hz for chunk in chunks] == [22_050] * 2
    assert len(chunks[0].pcm) == 2 * (6 * 2_205 + 22_050 * 50 // 1000 + 22_050 * 80 // 1000)


@pytest.mark.parametrize("text", ["", "...", "你好", "😀"])
def test_nothing_speakable_renders_nothing(tmp_path, text):
    session = _Tone()
    assert run(_spoken(_piper(tmp_path, session), text)) == []
    assert session.inputs == []


def test_failing_phonemizer_is_a_synthesis_error_without_the_text(tmp_path):
    def broken(text):
        raise RuntimeError(text)

    with pytest.raises(SynthesisError) as caught:
        run(_spoken(_piper(tmp_path, _Tone(), broken), "secret words"))
    assert "secret" not in str(caught.value)


def test_missing_library_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(models.piper, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"xiaozhi-fleet\[piper\]"):
        PiperSynthesizer(tmp_path / "voice.onnx", _config(tmp_path, _CONFIG), session=_Tone())


@pytest.mark.parametrize(
    ("content", "fault"), [("{", "not JSON"), ("[]", "not a Piper"), ("{}", "not a Piper"), (_CONFIG, "piper cannot")]
)
def test_damaged_description_is_named(tmp_path, content, fault):
    if content is _CONFIG:
        pytest.importorskip("piper", reason="optional extra piper is not installed")
    with pytest.raises(CatalogError, match=f"voice.json: {fault}"):
        PiperSynthesizer(tmp_path / "voice.onnx", _config(tmp_path, content), session=_Tone())


def test_missing_description_is_named(tmp_path):
    with pytest.raises(CatalogError, match=r"voice\.json: voice description missing"):
        PiperSynthesizer(tmp_path / "voice.onnx", tmp_path / "voice.json")


@pytest.mark.engine
def test_real_voice_speaks_english():
    pytest.importorskip("piper", reason="optional extra piper is not installed")
    files = locate("piper-en-us-joe-medium")
    chunks = run(_spoken(PiperSynthesizer(files["model"], files["config"]), "Hello there, how are you doing today?"))
    assert 1.0 < sum(len(chunk.pcm) for chunk in chunks) / 2 / 22_050 < 5.0
