"""A twin of SenseVoiceSmall: FunASR's layout and graph, random weights; true in time and memory, nonsense in text.

The graph is FunASR's SenseVoiceEncoderSmall (funasr/models/sense_voice/model.py, export_meta.py) written with ``onnx`` alone: four query
vectors in front, positions added, blocks of self-attention with an FSMN memory beside it, a layer of CTC logits on top. Quantized as
FunASR's export does it (funasr/utils/export_utils.py). The full size has 234 million weights: 937 MB, 239 MB quantized.
"""

from __future__ import annotations

import argparse
import logging
import math
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import yaml

from models.errors import ConfigError
from models.factory.signed_weights import sign_weights
from models.sensevoice import BPE_FILE, SIGNED_FILE, TWIN_FILE
from models.sensevoice_text import BLANK

Floats = npt.NDArray[np.float32]

_OPSET = 17
"""The first with LayerNormalization as one node, what ONNX Runtime makes of FunASR's opset 14 when it loads it."""
_QUERIES = 16
"""Rows of the query table: 7 and what lid_dict and textnorm_dict add in FunASR's SenseVoiceSmall."""
_EPSILON = 1e-5
_MAX_WAVELENGTH = 10_000.0

_TAGS = {
    "zh": 24884,
    "en": 24885,
    "yue": 24888,
    "ja": 24892,
    "ko": 24896,
    "nospeech": 24992,
    "Speech": 24993,
    "HAPPY": 25001,
    "SAD": 25002,
    "ANGRY": 25003,
    "NEUTRAL": 25004,
    "EMO_UNKNOWN": 25009,
    "withitn": 25016,
    "woitn": 25017,
}
"""Where SenseVoice's tags stand (lid_int_dict, emo_dict, textnorm_int_dict there); Speech's place is a guess."""

_BLANK_LEAD = -1.3
"""How far the blank's logit lies above the others' expected highest, in standard deviations. With random weights it hardly changes within
an utterance, but by 1.5 from one to the next: with -1.3 each of nine sounds got some text, and none at all would end a turn early."""


@dataclass(frozen=True, slots=True)
class TwinSize:
    """The shape of the network; the defaults are SenseVoiceSmall's."""

    blocks: int = 50
    tp_blocks: int = 20
    width: int = 512
    heads: int = 4
    linear: int = 2048
    kernel: int = 11
    features: int = 560
    vocabulary: int = 25_055


TINY = TwinSize(blocks=2, tp_blocks=1, width=16, heads=2, linear=32, vocabulary=64)
"""For tests: made and run in milliseconds."""


def build(
    out: Path,
    *,
    size: TwinSize = TwinSize(),
    seed: int = 1,
    quantize: bool = True,
    keep_fp32: bool = True,
    say: Callable[[str], None] = lambda _line: None,
) -> Path:
    """Write a twin into the directory ``out``, which appears whole or not at all, and return it; ``say`` hears of the progress.

    ``model.onnx`` goes when it is quantized unless ``keep_fp32``. An old twin there is replaced; raises ConfigError when ``out`` holds
    anything else or a library is missing. Blocks, at full size for about a minute.
    """
    missing = [name for name in ("onnx", "onnxruntime", "sentencepiece") if find_spec(name) is None]
    if missing:
        raise ConfigError(f"{', '.join(missing)} missing; install xiaozhi-fleet[engines,build]")
    if out.exists() and not (out / TWIN_FILE).exists():
        raise ConfigError(f"{out} holds something that is not a twin; name another directory")
    part = out.with_name(f"{out.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    say(f"{out.name}: {size.blocks} + {size.tp_blocks} blocks of random weights")
    (part / "model.onnx").write_bytes(_Graph(size, seed).model())
    if quantize:
        say(f"{out.name}: quantizing {(part / 'model.onnx').stat().st_size >> 20} MiB to 8 bits")
        _quantize(part)
        sign_weights(part / "model_quant.onnx", part / SIGNED_FILE)
        if not keep_fp32:
            (part / "model.onnx").unlink()
    (part / "am.mvn").write_text(normalization_text(size.features), "utf-8")
    (part / "config.yaml").write_text(yaml.safe_dump(_config(size), sort_keys=False), "utf-8")
    (part / BPE_FILE).write_bytes(_bpe_model(pieces(size.vocabulary)))
    (part / TWIN_FILE).write_text(f"Random weights, seed {seed}: {asdict(size)}\n", "utf-8")
    shutil.rmtree(out, ignore_errors=True)
    part.rename(out)
    say(f"{out.name}: done")
    return out


def pieces(count: int) -> list[str]:
    """Return ``count`` pieces: unknown, begin, end, Chinese characters, and the tags in their places, or at the end of a small list."""
    small = min(_TAGS.values()) >= count or max(_TAGS.values()) >= count
    places = {count - len(_TAGS) + index: tag for index, tag in enumerate(_TAGS)} if small else {}
    places = places or {place: tag for tag, place in _TAGS.items()}
    characters = (chr(point) for point in (*range(0x4E00, 0xA000), *range(0x3400, 0x4DC0)))
    return [f"<|{places[token]}|>" if token in places else next(characters) for token in range(3, count)]


def normalization_text(features: int) -> str:
    """Return an ``am.mvn`` like SenseVoice's: log mel energies of int16 speech lie near 13 and vary by 7 or so."""
    shift = " ".join(f"{-8.3 - 5 * min(1.0, index % 80 / 20):.6f}" for index in range(features))
    scale = " ".join(["0.145000"] * features)
    return (
        f"<Nnet>\n<Splice> {features} {features}\n[ 0 ]\n<AddShift> {features} {features}\n<LearnRateCoef> 0 [ {shift} ]\n"
        f"<Rescale> {features} {features}\n<LearnRateCoef> 0 [ {scale} ]\n</Nnet>\n"
    )


def _highest(count: int) -> float:
    """Return the expected highest of ``count`` standard normal numbers (extreme value theory)."""
    peak = math.sqrt(2 * math.log(count))
    return peak - (math.log(math.log(count)) + math.log(4 * math.pi)) / (2 * peak)


def _config(size: TwinSize) -> dict[str, Any]:
    """Return what of FunASR's config.yaml says something about running the model; dither 0 so that FunASR's results can be compared."""
    return {
        "encoder": "SenseVoiceEncoderSmall",
        "encoder_conf": {
            "output_size": size.width,
            "attention_heads": size.heads,
            "linear_units": size.linear,
            "num_blocks": size.blocks,
            "tp_blocks": size.tp_blocks,
            "kernel_size": size.kernel,
        },
        "model": "SenseVoiceSmall",
        "tokenizer": "SentencepiecesTokenizer",
        "frontend": "WavFrontend",
        "frontend_conf": {
            "fs": 16_000,
            "window": "hamming",
            "n_mels": 80,
            "frame_length": 25,
            "frame_shift": 10,
            "lfr_m": 7,
            "lfr_n": 6,
            "dither": 0.0,
        },
        "twin": True,
    }


def _bpe_model(words: Sequence[str]) -> bytes:
    """Return a sentencepiece model that decodes ids into ``words``, after unknown, begin and end."""
    from sentencepiece import sentencepiece_model_pb2

    proto: Any = sentencepiece_model_pb2
    model = proto.ModelProto()
    kind = proto.ModelProto.SentencePiece
    named = [("<unk>", kind.UNKNOWN), ("<s>", kind.CONTROL), ("</s>", kind.CONTROL)]
    named += [(word, kind.USER_DEFINED if word.startswith("<|") else kind.NORMAL) for word in words]
    for rank, (word, its_kind) in enumerate(named):
        model.pieces.add(piece=word, type=its_kind, score=-float(rank))
    model.trainer_spec.model_type = proto.TrainerSpec.BPE
    model.trainer_spec.vocab_size = len(named)
    model.normalizer_spec.name = "identity"
    serialized: bytes = model.SerializeToString()
    return serialized


def _quantize(folder: Path) -> None:
    """Write ``model_quant.onnx`` with FunASR's own settings."""
    from onnxruntime.quantization import QuantType, quantize_dynamic

    logging.disable(logging.WARNING)  # its advice to optimize the graph first is not what FunASR does
    try:
        quantize_dynamic(
            folder / "model.onnx",
            folder / "model_quant.onnx",
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=False,
            weight_type=QuantType.QUInt8,
        )
    finally:
        logging.disable(logging.NOTSET)


class _Graph:
    """Collects nodes and weights; every method returns the name of the tensor it adds."""

    def __init__(self, size: TwinSize, seed: int) -> None:
        import onnx

        self._onnx = onnx
        self._size = size
        self._random = np.random.default_rng(seed)
        self._nodes: list[Any] = []
        self._weights: list[Any] = []
        self._count = 0

    def model(self) -> bytes:
        """Return the whole model, serialized."""
        size, helper, kinds = self._size, self._onnx.helper, self._onnx.TensorProto
        x, mask = self._with_queries(), self._mask()
        x = self._add(self._mul(x, self._constant(size.width**0.5)), self._positions(x))
        for block in range(size.blocks):
            x = self._block(x, mask, size.width if block else size.features)
        x = self._norm(x, size.width)
        for _ in range(size.tp_blocks):
            x = self._block(x, mask, size.width)
        x = self._norm(x, size.width)
        bias = np.zeros(size.vocabulary, np.float32)
        bias[BLANK] = _highest(size.vocabulary) + _BLANK_LEAD
        self._linear(x, size.width, size.vocabulary, bias=bias, output="ctc_logits")
        self._node("Identity", self._lengths, output="encoder_out_lens")
        inputs = [
            helper.make_tensor_value_info("speech", kinds.FLOAT, ["batch_size", "feats_length", size.features]),
            *(
                helper.make_tensor_value_info(name, kinds.INT32, ["batch_size"])
                for name in ("speech_lengths", "language", "textnorm")
            ),
        ]
        outputs = [
            helper.make_tensor_value_info("ctc_logits", kinds.FLOAT, ["batch_size", "logits_length", size.vocabulary]),
            helper.make_tensor_value_info("encoder_out_lens", kinds.INT32, ["batch_size"]),
        ]
        graph = helper.make_graph(self._nodes, "sensevoice-twin", inputs, outputs, self._weights)
        made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], producer_name="xiaozhi-fleet")
        made.ir_version = 8  # what onnxruntime 1.18 reads
        serialized: bytes = made.SerializeToString()
        return serialized

    def _with_queries(self) -> str:
        """Put language, event, emotion and text normalization in front of the speech: [B, T + 4, features]."""
        table = self._weight(_QUERIES, self._size.features, deviation=1.0)
        axis = self._constant([1])
        language, textnorm = (
            self._node("Unsqueeze", self._node("Gather", table, name), axis) for name in ("language", "textnorm")
        )
        both = self._node("Gather", table, self._constant([[1, 2]]))
        batch = self._node("Shape", "speech", start=0, end=1)
        repeats = self._node("Concat", batch, self._constant([1]), self._constant([1]), axis=0)
        return self._node("Concat", language, self._node("Tile", both, repeats), textnorm, "speech", axis=1)

    def _mask(self) -> str:
        """Return 1 where there is speech and 0 in the padding: [B, 1, T + 4]; remember the lengths."""
        self._lengths = self._node("Add", "speech_lengths", self._constant(np.array(4, np.int32)))
        frames = self._node("Add", self._node("Shape", "speech", start=1, end=2), self._constant([4]))
        steps = self._node("Range", self._constant(np.array(0)), self._scalar(frames), self._constant(np.array(1)))
        lengths = self._cast(self._node("Unsqueeze", self._lengths, self._constant([1])), self._onnx.TensorProto.INT64)
        here = self._cast(self._node("Less", steps, lengths), self._onnx.TensorProto.FLOAT)
        return self._node("Unsqueeze", here, self._constant([1]))

    def _positions(self, x: str) -> str:
        """Return sines and cosines of the place, from 1 on: [1, T + 4, features]."""
        half = self._size.features // 2
        rates = np.exp(np.arange(half) * -(np.log(_MAX_WAVELENGTH) / (half - 1))).astype(np.float32)
        frames = self._scalar(self._node("Shape", x, start=1, end=2))
        last = self._node("Add", frames, self._constant(np.array(1)))
        places = self._node("Range", self._constant(np.array(1)), last, self._constant(np.array(1)))
        column = self._node("Reshape", self._cast(places, self._onnx.TensorProto.FLOAT), self._constant([1, -1, 1]))
        angles = self._mul(column, self._constant(rates.reshape(1, 1, half)))
        return self._node("Concat", self._node("Sin", angles), self._node("Cos", angles), axis=2)

    def _block(self, x: str, mask: str, width: int) -> str:
        """Add one encoder block; the first, from features to ``width``, has no way round its attention."""
        size = self._size
        heard = self._attention(self._norm(x, width), mask, width)
        x = self._add(x, heard) if width == size.width else heard
        inner = self._node("Relu", self._linear(self._norm(x, size.width), size.width, size.linear))
        return self._add(x, self._linear(inner, size.linear, size.width))

    def _attention(self, x: str, mask: str, width: int) -> str:
        """Return self-attention plus the FSMN memory of the values, as MultiHeadedAttentionSANM."""
        size = self._size
        parts = self._constant([size.width] * 3)
        outputs = [self._name() for _ in range(3)]
        self._nodes.append(
            self._onnx.helper.make_node("Split", [self._linear(x, width, 3 * size.width), parts], outputs, axis=-1)
        )
        query, key, value = (self._heads(part) for part in outputs)
        query = self._mul(query, self._constant((size.width // size.heads) ** -0.5))
        scores = self._node("MatMul", query, self._node("Transpose", key, perm=[0, 1, 3, 2]))
        hidden = self._node("Equal", self._node("Unsqueeze", mask, self._constant([1])), self._constant(0.0))
        shut = self._node("Where", hidden, self._constant(-np.inf), scores)
        weights = self._node("Where", hidden, self._constant(0.0), self._node("Softmax", shut, axis=-1))
        mixed = self._node("Transpose", self._node("MatMul", weights, value), perm=[0, 2, 1, 3])
        joined = self._node("Reshape", mixed, self._constant([0, 0, size.width]))
        return self._add(self._linear(joined, size.width, size.width), self._memory(outputs[2], mask))

    def _heads(self, x: str) -> str:
        size = self._size
        split = self._node("Reshape", x, self._constant([0, 0, size.heads, size.width // size.heads]))
        return self._node("Transpose", split, perm=[0, 2, 1, 3])

    def _memory(self, value: str, mask: str) -> str:
        """Return the values mixed with their neighbours', channel by channel, the padding left out."""
        size = self._size
        shown = self._node("Transpose", mask, perm=[0, 2, 1])
        value = self._mul(value, shown)
        before = (size.kernel - 1) // 2
        kernel = self._weight(size.width, 1, size.kernel, deviation=size.kernel**-0.5)
        around = self._node(
            "Conv",
            self._node("Transpose", value, perm=[0, 2, 1]),
            kernel,
            group=size.width,
            kernel_shape=[size.kernel],
            pads=[before, size.kernel - 1 - before],
        )
        return self._mul(self._add(self._node("Transpose", around, perm=[0, 2, 1]), value), shown)

    def _norm(self, x: str, width: int) -> str:
        scale, shift = self._constant(np.ones(width, np.float32)), self._constant(np.zeros(width, np.float32))
        return self._node("LayerNormalization", x, scale, shift, axis=-1, epsilon=_EPSILON)

    def _linear(self, x: str, wide: int, out: int, *, bias: Floats | None = None, output: str = "") -> str:
        weight = self._weight(wide, out, deviation=wide**-0.5)
        shift = self._constant(np.zeros(out, np.float32) if bias is None else bias)
        return self._node("Add", shift, self._node("MatMul", x, weight), output=output)

    def _add(self, one: str, other: str) -> str:
        return self._node("Add", one, other)

    def _mul(self, one: str, other: str) -> str:
        return self._node("Mul", one, other)

    def _cast(self, x: str, kind: int) -> str:
        return self._node("Cast", x, to=kind)

    def _scalar(self, x: str) -> str:
        return self._node("Squeeze", x, self._constant([0]))

    def _weight(self, *shape: int, deviation: float) -> str:
        drawn = self._random.standard_normal(shape, np.float32) * np.float32(deviation)
        return self._constant(drawn)

    def _constant(self, value: Any) -> str:
        array = np.asarray(value)
        array = array.astype(np.float32) if array.dtype == np.float64 else array
        name = self._name()
        self._weights.append(self._onnx.numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name

    def _node(self, operation: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or self._name()
        self._nodes.append(
            self._onnx.helper.make_node(operation, inputs, [output], name=f"{operation}-{output}", **attributes)
        )
        return output

    def _name(self) -> str:
        self._count += 1
        return f"t{self._count}"


def main(arguments: Sequence[str]) -> int:
    """Build a twin as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m models.factory.sensevoice_twin", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="directory to write, made whole or not at all")
    parser.add_argument("--tiny", action="store_true", help="a few kilobytes, for tests")
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args(arguments)
    build(chosen.out, size=TINY if chosen.tiny else TwinSize(), seed=chosen.seed, say=_say)
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
