from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.errors import ConfigError
from models.factory.sensevoice_twin import TINY, TwinSize, build, main, normalization_text, pieces
from models.onnx import open_session
from models.sensevoice import BPE_FILE, SIGNED_FILE, TWIN_FILE

for library in ("onnx", "onnxruntime", "sentencepiece"):
    pytest.importorskip(library)

FILES = {"model.onnx", "model_quant.onnx", SIGNED_FILE, "am.mvn", "config.yaml", BPE_FILE, TWIN_FILE}


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def inputs(lengths: list[int], size: TwinSize, *, padding: float = 0.0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(2)
    speech = np.full((len(lengths), max(lengths), size.features), padding, np.float32)
    for row, length in zip(speech, lengths, strict=True):
        row[:length] = random.normal(0, 1, (length, size.features))
    return {
        "speech": speech,
        "speech_lengths": np.array(lengths, np.int32),
        "language": np.zeros(len(lengths), np.int32),
        "textnorm": np.full(len(lengths), 14, np.int32),
    }


def test_a_twin_has_funasrs_files_inputs_and_outputs(tmp_path: Path):
    said: list[str] = []
    folder = build(tmp_path / "twin", size=TINY, say=said.append)
    assert names(folder) == FILES
    assert said[-1].endswith("done")
    for file in ("model.onnx", "model_quant.onnx"):
        logits, lengths = open_session(folder / file).run(inputs([5, 9], TINY))
        assert logits.shape == (2, 9 + 4, TINY.vocabulary)
        assert (lengths.dtype, lengths.tolist()) == (np.int32, [9, 13])
        assert np.isfinite(logits).all()
    assert not list(tmp_path.glob("*.part"))


def test_padding_changes_nothing_before_it(tmp_path: Path):
    session = open_session(build(tmp_path / "twin", size=TINY, quantize=False) / "model.onnx")
    padded, _ = session.run(inputs([5, 9], TINY, padding=7.0))
    alone, _ = session.run(
        {name: value[:1, :5] if value.ndim > 1 else value[:1] for name, value in inputs([5, 9], TINY).items()}
    )
    assert np.abs(padded[0, :9] - alone[0]).max() < 1e-4


def test_language_and_writing_change_what_is_heard(tmp_path: Path):
    session = open_session(build(tmp_path / "twin", size=TINY, quantize=False) / "model.onnx")
    asked = inputs([5], TINY)
    plain, _ = session.run(asked)
    for name in ("language", "textnorm"):
        other, _ = session.run(asked | {name: np.array([3], np.int32)})
        assert np.abs(other - plain).max() > 1e-3


def test_a_seed_makes_the_same_twin_again(tmp_path: Path):
    first, again, other = (build(tmp_path / f"{number}", size=TINY, seed=seed) for number, seed in enumerate((1, 1, 2)))
    for file in FILES:
        assert (first / file).read_bytes() == (again / file).read_bytes()
    assert (first / "model.onnx").read_bytes() != (other / "model.onnx").read_bytes()


def test_the_unquantized_model_goes_when_told_to(tmp_path: Path):
    assert names(build(tmp_path / "twin", size=TINY, keep_fp32=False)) == FILES - {"model.onnx"}
    assert names(build(tmp_path / "twin", size=TINY, quantize=False, keep_fp32=False)) == FILES - {
        "model_quant.onnx",
        SIGNED_FILE,
    }


def test_nothing_but_a_twin_is_overwritten(tmp_path: Path):
    (tmp_path / "photos").mkdir()
    with pytest.raises(ConfigError, match="photos"):
        build(tmp_path / "photos", size=TINY)
    assert names(tmp_path / "photos") == set()


def test_remains_of_an_interrupted_build_do_not_matter(tmp_path: Path):
    (tmp_path / "twin.part").mkdir()
    (tmp_path / "twin.part" / "rest").write_text("")
    assert names(build(tmp_path / "twin", size=TINY)) == FILES


def test_without_a_library_the_extras_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("models.factory.sensevoice_twin.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"onnx.*build"):
        build(tmp_path / "twin", size=TINY)


def test_the_command_builds_and_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["--out", str(tmp_path / "twin"), "--tiny"]) == 0
    assert names(tmp_path / "twin") == FILES
    assert "done" in capsys.readouterr().out


@pytest.mark.parametrize("count", [64, TwinSize().vocabulary])
def test_pieces_are_unique_and_hold_every_tag(count: int):
    made = pieces(count)
    assert len(made) == len(set(made)) == count - 3
    assert {"<|zh|>", "<|nospeech|>", "<|withitn|>"} <= set(made)


def test_tags_of_the_full_size_stand_where_sensevoice_has_them():
    made = ["<unk>", "<s>", "</s>", *pieces(TwinSize().vocabulary)]
    assert [made[token] for token in (24884, 24885, 24888, 24892, 24896, 24992, 25016, 25017)] == [
        f"<|{tag}|>" for tag in ("zh", "en", "yue", "ja", "ko", "nospeech", "withitn", "woitn")
    ]


def test_the_normalization_has_a_number_for_every_feature():
    assert normalization_text(560).count(" 0.145000") == 560
