from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from models.errors import CatalogError, ConfigError, RecognitionError, StageError
from models.onnx import open_session

FLOAT, FLOAT16 = 1, 10
"""Of TensorProto.DataType in onnx.proto."""


def field(number: int, value: int | bytes | str) -> bytes:
    """Return one protobuf field: a varint below 128 or a short string."""
    if isinstance(value, int):
        return bytes([number << 3, value])
    content = value.encode() if isinstance(value, str) else value
    assert len(content) < 128
    return bytes([number << 3 | 2, len(content)]) + content


def doubling_model(number: int = FLOAT) -> bytes:
    """Return an ONNX model with one node, y = x + x, x of shape [n, 2]; field numbers are those of onnx.proto."""
    shape = field(1, field(2, "n")) + field(1, field(1, 2))
    kind = field(1, field(1, number) + field(2, shape))
    x, y = (field(1, name) + field(2, kind) for name in "xy")
    node = field(1, "x") + field(1, "x") + field(2, "y") + field(4, "Add")
    graph = field(1, node) + field(2, "g") + field(11, x) + field(12, y)
    return field(1, 8) + field(8, field(1, "") + field(2, 13)) + field(7, graph)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "doubling.onnx"
    path.write_bytes(doubling_model())
    return path


def test_a_session_runs_the_model(model: Path):
    [doubled] = open_session(model).run({"x": np.array([[1, 2]], np.float32)})
    assert doubled.tolist() == [[2, 4]]


def test_a_model_that_wants_half_floats_takes_whole_ones(tmp_path: Path):
    path = tmp_path / "half.onnx"
    path.write_bytes(doubling_model(FLOAT16))
    [doubled] = open_session(path).run({"x": np.array([[1, 2.5]], np.float32)})
    assert (doubled.dtype, doubled.tolist()) == (np.float16, [[2, 5]])


def test_providers_this_machine_lacks_are_passed_over(model: Path):
    session = open_session(model, threads=2, providers=["NoSuchExecutionProvider", "CPUExecutionProvider"])
    assert session.providers == ("CPUExecutionProvider",)


def test_no_usable_provider_is_a_config_error(model: Path):
    with pytest.raises(ConfigError, match="NoSuchExecutionProvider"):
        open_session(model, providers=["NoSuchExecutionProvider"])


def test_a_missing_file_is_named_with_the_mend(tmp_path: Path):
    with pytest.raises(CatalogError, match=r"absent\.onnx.*models pull"):
        open_session(tmp_path / "absent.onnx")


@pytest.mark.parametrize("content", [b"", b"not a model at all", doubling_model()[:40]], ids=["empty", "text", "cut"])
def test_a_damaged_file_is_named_with_the_mend(tmp_path: Path, content: bytes):
    path = tmp_path / "damaged.onnx"
    path.write_bytes(content)
    with pytest.raises(CatalogError, match=r"damaged\.onnx.*models pull"):
        open_session(path)


@pytest.mark.parametrize(
    "inputs",
    [
        {},
        {"z": np.zeros((1, 2), np.float32)},
        {"x": np.zeros((1, 3), np.float32)},
        {"x": np.zeros((1, 2), np.float64)},
    ],
    ids=["none", "unknown", "shape", "type"],
)
def test_wrong_inputs_raise_the_chosen_error(model: Path, inputs: dict[str, np.ndarray]):
    with pytest.raises(StageError, match=r"doubling\.onnx"):
        open_session(model).run(inputs)
    with pytest.raises(RecognitionError):
        open_session(model, failure=RecognitionError).run(inputs)


def test_without_onnxruntime_the_extra_is_named(model: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("models.onnx.find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match="engines"):
        open_session(model)


def test_importing_the_module_does_not_load_onnxruntime():
    assert "onnxruntime" not in vars(sys.modules["models.onnx"])
