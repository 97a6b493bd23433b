from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.errors import CatalogError, ConfigError
from models.factory.sensevoice_twin import TINY, build
from models.factory.signed_weights import main, sign_weights
from models.onnx import open_session

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def quantized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("models") / "twin", size=TINY) / "model_quant.onnx"


def kinds(model: Path) -> dict[str, set[int]]:
    """Return the types of the MatMulInteger weights and of their zero points."""
    graph = onnx.load(model).graph
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    nodes = [node for node in graph.node if node.op_type == "MatMulInteger"]
    return {"weights": {types[node.input[1]] for node in nodes}, "zeros": {types[node.input[3]] for node in nodes}}


def test_weights_and_zero_points_become_signed(quantized: Path, tmp_path: Path):
    assert kinds(quantized) == {"weights": {onnx.TensorProto.UINT8}, "zeros": {onnx.TensorProto.UINT8}}
    assert sign_weights(quantized, tmp_path / "signed.onnx") == 4 * (TINY.blocks + TINY.tp_blocks) + 1
    assert kinds(tmp_path / "signed.onnx") == {"weights": {onnx.TensorProto.INT8}, "zeros": {onnx.TensorProto.INT8}}
    assert [path.name for path in tmp_path.iterdir()] == ["signed.onnx"]


def test_every_stored_number_stays_what_it_stands_for(quantized: Path, tmp_path: Path):
    sign_weights(quantized, tmp_path / "signed.onnx")
    before, after = (
        {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
        for path in (quantized, tmp_path / "signed.onnx")
    )
    changed = 0
    for node in onnx.load(quantized).graph.node:
        if node.op_type == "MatMulInteger":
            weight, zero = node.input[1], node.input[3]
            old = before[weight].astype(int) - before[zero].astype(int)
            assert np.array_equal(old, after[weight].astype(int) - after[zero].astype(int))
            changed += 1
    assert changed


def test_the_signed_model_still_runs(quantized: Path, tmp_path: Path):
    sign_weights(quantized, tmp_path / "signed.onnx")
    asked = {
        "speech": np.ones((1, 5, TINY.features), np.float32),
        "speech_lengths": np.array([5], np.int32),
        "language": np.array([0], np.int32),
        "textnorm": np.array([14], np.int32),
    }
    logits, _ = open_session(tmp_path / "signed.onnx").run(asked)
    assert logits.shape == (1, 9, TINY.vocabulary)


@pytest.mark.parametrize("content", [b"", b"not a model at all"])
def test_what_is_no_quantized_model_is_named(tmp_path: Path, content: bytes):
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(CatalogError, match=r"model\.onnx"):
        sign_weights(tmp_path / "model.onnx", tmp_path / "signed.onnx")
    assert not (tmp_path / "signed.onnx").exists()


def test_a_missing_or_signed_model_is_named(quantized: Path, tmp_path: Path):
    with pytest.raises(CatalogError, match="absent"):
        sign_weights(tmp_path / "absent.onnx", tmp_path / "signed.onnx")
    sign_weights(quantized, tmp_path / "signed.onnx")
    with pytest.raises(CatalogError, match="no unsigned"):
        sign_weights(tmp_path / "signed.onnx", tmp_path / "again.onnx")


def test_without_onnx_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("models.factory.signed_weights.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match="build"):
        sign_weights(tmp_path / "a", tmp_path / "b")


def test_the_command_converts_and_tells(quantized: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(quantized), str(tmp_path / "signed.onnx")]) == 0
    assert "13 products" in capsys.readouterr().out
