from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import CatalogError, ConfigError
from models.factory.sensevoice_twin import normalization_text
from models.fbank import Fbank, FbankSettings, read_normalization, stack

pytest.importorskip("kaldi_native_fbank")
GOLDEN = Path(__file__).parent / "data" / "funasr_fbank.npz"
"""Sounds and what funasr-onnx 0.4.3 made of them; see tests/integration/funasr_side.py."""
WIDTH = 560


def plain() -> Fbank:
    return Fbank(FbankSettings(), np.zeros(WIDTH), np.ones(WIDTH))


@pytest.mark.parametrize("sound", ["chirp", "tone", "silence"])
def test_features_are_funasrs_own(sound: str, tmp_path: Path):
    (tmp_path / "am.mvn").write_text(normalization_text(WIDTH))
    fbank = Fbank(FbankSettings(), *read_normalization(tmp_path / "am.mvn", WIDTH))
    golden = np.load(GOLDEN)
    features = fbank.features(golden[f"sound_{sound}"])
    assert features.dtype == np.float32
    assert features.shape == golden[f"features_{sound}"].shape
    assert np.abs(features - golden[f"features_{sound}"]).max() <= 1e-5


@pytest.mark.parametrize(
    ("samples", "vectors"), [(0, 0), (399, 0), (400, 1), (1359, 1), (1360, 2), (16_000, 17), (28_800, 30)]
)
def test_a_vector_stands_for_every_60_ms_once_25_ms_are_there(samples: int, vectors: int):
    assert plain().features(np.zeros(samples, np.int16)).shape == (vectors, WIDTH)


@settings(max_examples=50, deadline=None)
@given(frames=st.integers(0, 40), stacked=st.sampled_from([1, 3, 5, 7]), step=st.integers(1, 8))
def test_stacking_is_what_funasrs_loop_does(frames: int, stacked: int, step: int):
    mel = np.arange(frames * 2, dtype=np.float32).reshape(frames, 2)
    padded = [mel[0]] * ((stacked - 1) // 2) + list(mel) if frames else []
    expected = []
    for begin in range(0, frames, step):
        row = padded[begin : begin + stacked]
        expected.append(np.concatenate(row + [mel[-1]] * (stacked - len(row))))
    assert stack(mel, stacked, step).tolist() == [row.tolist() for row in expected]


GOOD = "<AddShift> 2 2\n<LearnRateCoef> 0 [ 1 2 ]\n<Rescale> 2 2\n<LearnRateCoef> 0 [ 3 4 ]\n"


def test_the_normalization_is_read(tmp_path: Path):
    (tmp_path / "am.mvn").write_text(f"<Nnet>\n<Splice> 2 2\n[ 0 ]\n{GOOD}</Nnet>\n")
    shift, scale = read_normalization(tmp_path / "am.mvn", 2)
    assert (shift.tolist(), scale.tolist()) == ([1, 2], [3, 4])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "<AddShift>"),
        (b"\xff\xfe\xfd", "not a readable"),
        (GOOD.replace("4", "four").encode(), "<Rescale>"),
        (GOOD.replace("2 ]", "2").encode(), "<AddShift>"),
        (GOOD.replace("3 4", "3").encode(), "2 numbers and has 1"),
        (GOOD.replace("3 4", "3 nan").encode(), "<Rescale>"),
        (GOOD.replace("<Rescale>", "").encode(), "<Rescale>"),
    ],
)
def test_a_damaged_normalization_is_named_with_the_mend(tmp_path: Path, content: bytes, said: str):
    (tmp_path / "am.mvn").write_bytes(content)
    with pytest.raises(CatalogError, match=rf"am\.mvn: .*{said}.*pull"):
        read_normalization(tmp_path / "am.mvn", 2)


def test_a_missing_normalization_is_named(tmp_path: Path):
    with pytest.raises(CatalogError, match=r"am\.mvn"):
        read_normalization(tmp_path / "am.mvn", 2)


def test_without_its_library_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("models.fbank.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match="engines"):
        plain()
