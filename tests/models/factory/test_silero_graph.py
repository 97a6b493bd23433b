from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from models.factory.quantize import make
from models.factory.silero_graph import batched
from models.onnx import Array, OnnxSession, open_session
from models.store import locate

pytestmark = pytest.mark.engine


def inputs(count: int, loudness: float = 0.05) -> dict[str, Array]:
    random = np.random.default_rng(3)
    return {
        "input": random.normal(0, loudness, (count, 576)).astype(np.float32),
        "state": random.normal(0, 0.3, (2, count, 128)).astype(np.float32),
        "sr": np.array(16_000, np.int64),
    }


@pytest.fixture(scope="module")
def sessions(tmp_path_factory) -> dict[str, OnnxSession]:
    source = tmp_path_factory.mktemp("silero-vad") / "vad.onnx"
    source.write_bytes(locate("silero-vad")["model"].read_bytes())
    made = {variant: Path(make("silero-vad", source, variant).path) for variant in ("batched", "int8", "fp16")}
    return {name: open_session(path) for name, path in ({"fp32": source} | made).items()}


@pytest.mark.parametrize("count", [1, 2, 33])
@pytest.mark.parametrize(("variant", "within"), [("batched", 1e-5), ("int8", 0.05), ("fp16", 0.005)])
def test_every_variant_says_what_the_original_says(sessions, variant, within, count):
    wanted, got = sessions["fp32"].run(inputs(count)), sessions[variant].run(inputs(count))
    assert [(one.shape, one.dtype) for one in got] == [(one.shape, one.dtype) for one in wanted]
    assert np.allclose(wanted[0], got[0], atol=within)
    assert np.allclose(wanted[1], got[1], atol=8 * within), "the cell is not bounded by 1"


@pytest.mark.parametrize("variant", ["batched", "int8", "fp16"])
def test_a_loud_neighbour_changes_nothing_for_a_quiet_device(sessions, variant):
    quiet, loud = inputs(1, 0.001), inputs(1, 0.9)
    both = {name: np.concatenate([quiet[name], loud[name]], axis=axis) for name, axis in (("input", 0), ("state", 1))}
    alone = sessions[variant].run(quiet)
    beside = sessions[variant].run(both | {"sr": quiet["sr"]})
    assert np.allclose(alone[0], beside[0][:1], atol=1e-6)
    assert np.allclose(alone[1], beside[1][:, :1], atol=1e-6)


def test_silence_is_no_division_by_zero(sessions):
    output, state = sessions["int8"].run({name: np.zeros_like(array) for name, array in inputs(2).items()})
    assert np.isfinite(output).all()
    assert np.isfinite(state).all()


def test_the_graph_holds_int8_weights_when_wanted():
    onnx = pytest.importorskip("onnx")
    model = onnx.load(str(locate("silero-vad")["model"]))
    kinds = {item.data_type for item in batched(model, is_int8=True).graph.initializer}
    assert onnx.TensorProto.INT8 in kinds
    assert onnx.TensorProto.INT8 not in {item.data_type for item in batched(model).graph.initializer}
