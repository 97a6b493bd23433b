"""Silero VAD written anew for batches: the same weights, every convolution one matrix product over all devices' windows.

The published graph convolves each device's four short frames by themselves, which no batch makes cheaper, and hides the layers in a branch
that quantizers do not enter. Rows are quantized one by one: a range shared by the batch would let a loud neighbour drown a quiet device.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from models.errors import CatalogError

Array = npt.NDArray[Any]

_INPUT = 576
"""64 samples of context and 512 of window."""
_PADDED = 64
"""Samples mirrored at the end, as in the published graph."""
_STEP, _FRAME = 128, 256
_FRAMES = 4
_WIDTH = 128
_OPSET = 18
_QUANTIZED = frozenset({"y0", "gates"})
"""The two largest products behind the spectrum. The spectrum spans more decades than 8 bits have; the small layers between, above all the
third, lost more agreement than their size is worth (decisions alike 99.2 % with them, 99.9 % without, on the starter voices)."""
_MIDDLE = 128
"""Zero point of signed values kept unsigned, the fast kernel's kind."""


def batched(model: Any, *, is_int8: bool = False) -> Any:
    """Return the 16 kHz half of Silero's ONNX ``model`` in the layout for batches, weights in int8 if wanted; raise CatalogError.

    Inputs and outputs stay as they are: input [B, 576], state [2, B, 128], sr (ignored); output [B, 1], stateN [2, B, 128].
    """
    from onnx import numpy_helper

    weights = {item.name: numpy_helper.to_array(item) for item in model.graph.initializer}
    graph = _Graph(int8=_QUANTIZED if is_int8 else frozenset())
    try:
        sound = _encoder(graph, weights)
        _decoder(graph, weights, sound)
    except (KeyError, ValueError, IndexError) as error:
        raise CatalogError("this is not the Silero VAD that models/catalog.toml pins: its layers are others") from error
    return graph.model()


class _Graph:
    """Collects nodes and constants; every method adds one step and returns the name of what it makes."""

    def __init__(self, int8: frozenset[str]) -> None:
        self._int8 = int8
        self._nodes: list[Any] = []
        self._constants: dict[str, Array] = {}

    def constant(self, name: str, value: Array) -> str:
        self._constants[name] = np.ascontiguousarray(value)
        return name

    def integers(self, *values: int) -> str:
        return self.constant("n" + "_".join(map(str, values)), np.array(values, np.int64))

    def number(self, value: float) -> str:
        return self.constant(f"f{value}", np.array(value, np.float32))

    def node(self, kind: str, inputs: Sequence[str], output: str, **attributes: Any) -> str:
        self.split(kind, inputs, [output], **attributes)
        return output

    def split(self, kind: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> None:
        from onnx import helper

        self._nodes.append(helper.make_node(kind, inputs, outputs, name=f"make_{outputs[0]}", **attributes))

    def frames(self, source: str, first: int, past: int) -> str:
        """Take some of the frames on axis 1."""
        bounds = [self.integers(first), self.integers(past), self.integers(1)]
        return self.node("Slice", [source, *bounds], f"{source}_{first}_{past}")

    def dense(self, source: str, weight: Array, bias: Array, output: str, *, is_signed: bool = False) -> str:
        """Multiply by ``weight`` [in, out] and add ``bias``; ``is_signed`` unless the source is never negative."""
        if output in self._int8:
            product = self._product_int8(source, weight, output, is_signed=is_signed)
        else:
            product = self.node("MatMul", [source, self.constant(f"{output}_w", weight)], f"{output}_product")
        return self.node("Add", [product, self.constant(f"{output}_b", bias)], output)

    def _product_int8(self, source: str, weight: Array, output: str, *, is_signed: bool) -> str:
        scale = np.abs(weight).max(axis=0) / 127
        exact = self.constant(f"{output}_w", np.round(weight / scale).astype(np.int8))
        size = self.node("Abs", [source], f"{output}_size") if is_signed else source
        top = self.node("ReduceMax", [size, self.integers(-1)], f"{output}_top", keepdims=1)
        floor = self.node("Max", [top, self.number(1e-9)], f"{output}_floor")
        row = self.node("Mul", [floor, self.number(1 / 127 if is_signed else 1 / 255)], f"{output}_row")
        steps = self.node("Round", [self.node("Div", [source, row], f"{output}_steps")], f"{output}_round")
        if is_signed:
            steps = self.node("Add", [steps, self.number(_MIDDLE)], f"{output}_raised")
        whole = self.node("Cast", [steps], f"{output}_q", to=_type("UINT8"))
        zero = self.constant(f"{output}_zero", np.array(_MIDDLE if is_signed else 0, np.uint8))
        product = self.node("MatMulInteger", [whole, exact, zero], f"{output}_sum")
        real = self.node("Cast", [product], f"{output}_real", to=_type("FLOAT"))
        scaled = self.node("Mul", [real, row], f"{output}_rows")
        return self.node(
            "Mul", [scaled, self.constant(f"{output}_columns", scale.astype(np.float32))], f"{output}_product"
        )

    def model(self) -> Any:
        """Return the checked ONNX model."""
        from onnx import checker, helper, numpy_helper

        def described(name: str, kind: str, shape: list[int | str]) -> Any:
            return helper.make_tensor_value_info(name, _type(kind), shape)

        inputs = [
            described("input", "FLOAT", ["batch", _INPUT]),
            described("state", "FLOAT", [2, "batch", _WIDTH]),
            described("sr", "INT64", []),
        ]
        outputs = [described("output", "FLOAT", ["batch", 1]), described("stateN", "FLOAT", [2, "batch", _WIDTH])]
        constants = [numpy_helper.from_array(value, name) for name, value in self._constants.items()]
        graph = helper.make_graph(self._nodes, "silero_vad_16k_batched", inputs, outputs, constants)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=10)
        checker.check_model(model)
        return model


def _encoder(graph: _Graph, weights: Mapping[str, Array]) -> str:
    """Add spectrum and convolutions; each gathers what its kernel spans into one row. Returns [B, 128]."""

    def layer(index: int, source: str, kernel: Array) -> str:
        bias = weights[f"model.encoder.{index}.reparam_conv.bias"]
        return graph.node("Relu", [graph.dense(source, kernel, bias, f"y{index}")], f"x{index}")

    # Each kernel [out, in, 3] by time first, as the rows are gathered: [3, in, out].
    kernels = [weights[f"model.encoder.{index}.reparam_conv.weight"].transpose(2, 1, 0) for index in range(4)]
    loud = _spectrum(graph, weights["model.stft.forward_basis_buffer"][:, 0].T)
    padded = graph.node("Pad", [loud, graph.integers(0, 1, 0, 0, 1, 0)], "loud_padded")
    around = [graph.frames(padded, shift, shift + _FRAMES) for shift in range(3)]
    rows = graph.node("Concat", around, "rows0", axis=2)
    first = layer(0, rows, kernels[0].reshape(-1, _WIDTH))
    padded = graph.node("Pad", [first, graph.integers(0, 1, 0, 0, 0, 0)], "first_padded")
    apart = graph.integers(-1, 1, 3 * _WIDTH)
    halves = [graph.node("Reshape", [graph.frames(padded, at, at + 3), apart], f"half{at}") for at in (0, 2)]
    width = kernels[1].shape[2]
    second = layer(1, graph.node("Concat", halves, "rows1", axis=1), kernels[1].reshape(-1, width))
    # From here on a window is so short that part of the kernel sees padding only.
    rows = graph.node("Reshape", [second, graph.integers(-1, 2 * width)], "rows2")
    third = layer(2, rows, kernels[2][1:].reshape(2 * width, -1))
    return layer(3, third, kernels[3][1])


def _spectrum(graph: _Graph, basis: Array) -> str:
    """Add the mirrored padding, the framing and the short Fourier transform's magnitude: [B, 4, 129]."""
    at = np.arange(_FRAMES)[:, None] * _STEP + np.arange(_FRAME)
    if at.max() != _INPUT + _PADDED - 1:
        raise ValueError(at.max())
    mirrored = np.where(at < _INPUT, at, 2 * (_INPUT - 1) - at)
    frames = graph.node("Gather", ["input", graph.constant("samples", mirrored.astype(np.int64))], "frames", axis=1)
    both = graph.node("MatMul", [frames, graph.constant("basis", basis)], "waves")
    graph.split("Split", [both], ["cosine", "sine"], axis=2, num_outputs=2)
    squares = [graph.node("Mul", [part, part], f"{part}_squared") for part in ("cosine", "sine")]
    return graph.node("Sqrt", [graph.node("Add", squares, "power")], "loud")


def _decoder(graph: _Graph, weights: Mapping[str, Array], sound: str) -> None:
    """Add the LSTM cell and the decision."""
    graph.split("Split", ["state"], ["hidden_row", "cell_row"], axis=0, num_outputs=2)
    hidden, cell = (graph.node("Squeeze", [f"{name}_row", graph.integers(0)], name) for name in ("hidden", "cell"))
    rnn = "model.decoder.rnn."
    weight = np.concatenate([weights[rnn + "weight_ih"], weights[rnn + "weight_hh"]], axis=1).T
    both = graph.node("Concat", [sound, hidden], "sound_and_hidden", axis=1)
    gates = graph.dense(both, weight, weights[rnn + "bias_ih"] + weights[rnn + "bias_hh"], "gates", is_signed=True)
    names = ["let_in", "keep", "new", "let_out"]
    graph.split("Split", [gates], [f"{name}_raw" for name in names], axis=1, num_outputs=4)
    kinds = ["Sigmoid", "Sigmoid", "Tanh", "Sigmoid"]
    let_in, keep, new, let_out = (
        graph.node(kind, [f"{name}_raw"], name) for kind, name in zip(kinds, names, strict=True)
    )
    kept, added = graph.node("Mul", [keep, cell], "kept"), graph.node("Mul", [let_in, new], "added")
    cell = graph.node("Add", [kept, added], "cell_after")
    hidden = graph.node("Mul", [let_out, graph.node("Tanh", [cell], "cell_shown")], "hidden_after")
    rows = [graph.node("Unsqueeze", [name, graph.integers(0)], f"{name}_row") for name in (hidden, cell)]
    graph.node("Concat", rows, "stateN", axis=0)
    shown = graph.node("Relu", [hidden], "shown")
    last = "model.decoder.decoder.2."
    decided = graph.dense(shown, weights[last + "weight"][:, :, 0].T, weights[last + "bias"], "decision")
    graph.node("Sigmoid", [decided], "output")


def _type(name: str) -> int:
    from onnx import TensorProto

    return int(TensorProto.DataType.Value(name))
