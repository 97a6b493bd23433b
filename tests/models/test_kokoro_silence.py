from __future__ import annotations

import numpy as np
import pytest

from models.kokoro_silence import without_silence
from models.onnx import open_session
from models.store import locate

_MARGIN, _SAMPLES = 6, 600


def test_model_of_another_layout_is_left_alone():
    assert without_silence(b"") is None
    assert without_silence(b"\x12\x1a/encoder/MatMul_1_output_0" * 2) is None


def _halves(frames, loud):
    """Return inputs with energy in the frames ``loud`` and a model of nothing but the edited joint between the halves."""
    onnx = pytest.importorskip("onnx", reason="the build extra is not installed")
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    names = ["/encoder/MatMul_1_output_0", "/encoder/Reshape_output_0", "/encoder/Reshape_1_output_0"]
    shapes = [[1, 512, "frames"], [1, "half"], [1, "half"]]
    ends = ["features", "pitch", "energy"]
    nodes = [helper.make_node("Identity", [end], [name]) for end, name in zip(ends, names, strict=True)]
    nodes += [helper.make_node("Identity", [name], [f"{end}-out"]) for end, name in zip(ends, names, strict=True)]
    values = [helper.make_tensor_value_info(end, kind, shape) for end, shape in zip(ends, shapes, strict=True)]
    outputs = [helper.make_tensor_value_info(f"{end}-out", kind, None) for end in ends]
    graph = helper.make_graph(nodes, "halves", values, outputs)
    whole = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    edited = without_silence(whole.SerializeToString())
    assert edited is not None
    energy = np.full((1, 2 * frames), -9.4, np.float32)
    energy[0, 2 * loud.start : 2 * loud.stop] = 5.0
    numbers = np.arange(frames, dtype=np.float32)
    inputs = {
        "features": np.broadcast_to(numbers, (1, 512, frames)).copy(),
        "pitch": np.repeat(numbers, 2)[None],
        "energy": energy,
    }
    return inputs, edited


@pytest.mark.parametrize(
    ("frames", "loud", "kept"),
    [
        (60, range(20, 30), range(14, 36)),
        (60, range(2, 30), range(36)),
        (60, range(20, 58), range(14, 60)),
        (60, range(60), range(60)),
        (60, range(0), range(60)),
        (3, range(1, 2), range(3)),
    ],
)
def test_frames_around_the_loud_ones_are_kept_in_step(tmp_path, frames, loud, kept):
    inputs, edited = _halves(frames, loud)
    path = tmp_path / "halves.onnx"
    path.write_bytes(edited)
    features, pitch, energy = open_session(path).run(inputs)
    assert features[0, 0].tolist() == features[0, -1].tolist() == list(kept)
    assert pitch[0].tolist() == [frame for frame in kept for _ in range(2)]
    assert energy[0].tolist() == inputs["energy"][0, 2 * kept.start : 2 * kept.stop].tolist()


@pytest.mark.engine
def test_real_model_renders_the_words_without_the_silence(tmp_path):
    path = locate("kokoro-82m-int8")["model"]
    edited = without_silence(path.read_bytes())
    assert edited is not None
    quick = tmp_path / "quick.onnx"
    quick.write_bytes(edited)
    styles = np.fromfile(locate("kokoro-voice-zf_xiaobei")["voice"], dtype="<f4").reshape(510, 256)
    ids = [56, 51, 169, 66, 43, 63, 169, 4]
    inputs = {
        "tokens": np.array([[0, *ids, 0]], dtype=np.int64),
        "style": styles[len(ids)][None],
        "speed": np.ones(1, dtype=np.float32),
    }
    whole, cut = (open_session(model).run(inputs)[0].reshape(-1) for model in (path, quick))
    spoken = [np.flatnonzero(np.abs(samples) > 0.01) for samples in (whole, cut)]
    lengths = [audible[-1] - audible[0] for audible in spoken]
    assert abs(lengths[0] - lengths[1]) < 3 * _SAMPLES
    assert len(cut) < lengths[1] + (2 * _MARGIN + 10) * _SAMPLES
    assert len(cut) < 0.75 * len(whole)
