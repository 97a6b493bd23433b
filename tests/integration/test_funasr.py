"""SenseVoice beside FunASR's own runtime on the same files; needs a Python with funasr-onnx, which pins an old NumPy.

XIAOZHI_FLEET_FUNASR_PYTHON names that Python; XIAOZHI_FLEET_SENSEVOICE a model directory, else a tiny twin is made.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest

from models.fbank import Fbank, FbankSettings, read_normalization
from models.onnx import open_session
from models.sensevoice import BPE_FILE, SenseVoiceRecognizer
from models.sensevoice_text import WITH_ITN, Vocabulary, clean, write
from models.speech import Utterance
from tests.real_time import run

PYTHON = os.environ.get("XIAOZHI_FLEET_FUNASR_PYTHON", "")
MODEL = os.environ.get("XIAOZHI_FLEET_SENSEVOICE", "")
RATE_HZ = 16_000

pytestmark = pytest.mark.skipif(not PYTHON, reason="XIAOZHI_FLEET_FUNASR_PYTHON names no Python with funasr-onnx")


def sounds() -> dict[str, np.ndarray]:
    """Return noise in syllables, which random weights hear differently from one to the next."""
    random = np.random.default_rng(4)
    made = {}
    for name, duration_s in (("short", 0.6), ("command", 1.8), ("sentence", 4.3)):
        time_s = np.arange(round(duration_s * RATE_HZ)) / RATE_HZ
        voice = sum(np.sin(2 * np.pi * 140 * tone * time_s) / tone for tone in range(1, 20))
        swell = np.abs(np.sin(2 * np.pi * 2.3 * time_s))
        made[name] = np.rint(2500 * swell * voice + random.normal(0, 60, len(time_s))).astype(np.int16)
    return made


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if MODEL:
        return Path(MODEL)
    from models.factory.sensevoice_twin import TINY, build

    return build(tmp_path_factory.mktemp("models") / "twin", size=TINY)


@pytest.fixture(scope="module")
def theirs(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, np.ndarray]:
    folder = tmp_path_factory.mktemp("funasr")
    np.savez(folder / "sounds.npz", **sounds())
    side = Path(__file__).with_name("funasr_side.py")
    arguments = [PYTHON, str(side), str(model_dir), str(folder / "sounds.npz"), str(folder / "result.npz")]
    subprocess.run(arguments, check=True, capture_output=True, timeout=300)
    return dict(np.load(folder / "result.npz"))


def test_features_are_funasrs(model_dir: Path, theirs: dict[str, np.ndarray]):
    fbank = Fbank(FbankSettings(), *read_normalization(model_dir / "am.mvn", 560))
    for name, pcm in sounds().items():
        assert np.abs(fbank.features(pcm) - theirs[f"features_{name}"]).max() <= 1e-5


def test_tokens_are_funasrs(model_dir: Path, theirs: dict[str, np.ndarray]):
    session = open_session(model_dir / "model_quant.onnx")
    for name in sounds():
        features = theirs[f"features_{name}"]
        asked = {"speech": features[np.newaxis], "speech_lengths": np.array([len(features)], np.int32)}
        asked |= {"language": np.array([0], np.int32), "textnorm": np.array([WITH_ITN], np.int32)}
        [logits], [length] = session.run(asked)
        assert list(write(logits[:length]).tokens) == theirs[f"tokens_{name}"].tolist()


def test_texts_are_funasrs_without_tags(model_dir: Path, theirs: dict[str, np.ndarray]):
    async def work() -> None:
        recognizer = SenseVoiceRecognizer(model_dir, threads=1)
        for name, pcm in sounds().items():
            utterance = Utterance(turn_id=name, device_id="d", pcm=pcm.tobytes(), start_ms=0, end_ms=0)
            assert (await recognizer.transcribe(utterance)).text == clean(str(theirs[f"text_{name}"]))
        await recognizer.close()

    assert any(clean(str(theirs[f"text_{name}"])) for name in sounds())
    run(work(), timeout_s=120)


def test_the_vocabulary_is_read_as_funasr_reads_it(model_dir: Path, theirs: dict[str, np.ndarray]):
    sentencepiece = pytest.importorskip("sentencepiece")
    pieces = sentencepiece.SentencePieceProcessor(model_file=str(model_dir / BPE_FILE))
    assert Vocabulary(pieces).size == pieces.get_piece_size()
    for name in sounds():
        assert pieces.decode(theirs[f"tokens_{name}"].tolist()) == str(theirs[f"text_{name}"])
