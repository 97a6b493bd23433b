"""A twin of Qwen1.5-1.8B-Chat: its architecture and Q4_K_M's tensor types with random weights; true in time and memory, nonsense in text.

The vocabulary is copied from a real Qwen GGUF: Qwen1.5 and Qwen2.5 share it. The sizes are those of Qwen1.5-1.8B-Chat's config.json;
which tensor has which type is llama.cpp's Q4_K_M (llama_tensor_get_type), with its way out for rows of 5504 weights, which do not divide
into blocks of 256. 1.2 GB, written tensor by tensor.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from models.errors import CatalogError, ConfigError
from models.store import locate

SOURCE_MODEL = "qwen2.5-coder-0.5b-instruct-q4_k_m"
"""Whose vocabulary is copied unless another file is given."""

_BLOCKS: dict[str, tuple[int, int, dict[int, float]]] = {
    "Q4_K": (256, 144, {0: 1.0, 2: 7.5}),
    "Q6_K": (256, 210, {208: 1.0}),
    "Q5_0": (32, 22, {0: 1.0}),
    "Q8_0": (32, 34, {0: 1.0}),
}
"""Weights and bytes of a block, and where in it its half-precision scales lie (ggml-common.h). Q4_K's second scale is for the minima:
7.5 times the first puts the mean of random quants at 0."""
_QUANT_SPREAD = {"Q4_K": 150.0, "Q6_K": 1200.0, "Q5_0": 9.0, "Q8_0": 74.0}
"""Rough standard deviation of a block of random bits whose scale is 1."""
_SCALE = 0.02
"""Standard deviation of the weights: what transformers begins to train with (initializer_range)."""
VOCABULARY = 151_936
"""Words of every Qwen up to 2.5 that is this small."""
_MOSTLY_Q4_K_M, _QUANTIZATION_VERSION = 15, 2
"""What llama.cpp writes into files of this type."""
_ROPE_BASE = 1_000_000.0
_NORM_EPSILON = 1e-6

Progress = Callable[[int, int], None]
"""Gets the bytes written and the bytes in all."""


@dataclass(frozen=True, slots=True)
class TwinSize:
    """Dimensions of a Qwen1.5 model; ``hidden`` is a multiple of 256, ``feed_forward`` one of 32."""

    layers: int = 24
    hidden: int = 2048
    heads: int = 16
    feed_forward: int = 5504
    context: int = 32_768


FULL = TwinSize()


def tensor_kinds(size: TwinSize) -> dict[str, tuple[tuple[int, ...], str]]:
    """Return shape (rows first) and type of every tensor by name, in the file's order."""
    hidden, wide, words = size.hidden, size.feed_forward, VOCABULARY
    kinds: dict[str, tuple[tuple[int, ...], str]] = {
        "token_embd.weight": ((words, hidden), "Q4_K"),
        "output_norm.weight": ((hidden,), "F32"),
        "output.weight": ((words, hidden), "Q6_K"),
    }
    for layer in range(size.layers):
        finer = _has_more_bits(layer, size.layers)
        block = {
            "attn_norm.weight": ((hidden,), "F32"),
            "attn_q.weight": ((hidden, hidden), "Q4_K"),
            "attn_q.bias": ((hidden,), "F32"),
            "attn_k.weight": ((hidden, hidden), "Q4_K"),
            "attn_k.bias": ((hidden,), "F32"),
            "attn_v.weight": ((hidden, hidden), "Q6_K" if finer else "Q4_K"),
            "attn_v.bias": ((hidden,), "F32"),
            "attn_output.weight": ((hidden, hidden), "Q4_K"),
            "ffn_norm.weight": ((hidden,), "F32"),
            "ffn_gate.weight": ((wide, hidden), "Q4_K"),
            "ffn_up.weight": ((wide, hidden), "Q4_K"),
            "ffn_down.weight": ((hidden, wide), "Q6_K" if finer else "Q4_K"),
        }
        kinds |= {f"blk.{layer}.{name}": (shape, _fitting(kind, shape)) for name, (shape, kind) in block.items()}
    return kinds


def build(
    out: Path,
    source: Path,
    seed: int = 1,
    *,
    size: TwinSize = FULL,
    progress: Progress = lambda _done, _total: None,
) -> None:
    """Write the twin to ``out`` with the vocabulary of ``source``; raise ConfigError, CatalogError. Blocks for about half a minute."""
    if find_spec("gguf") is None:
        raise ConfigError("building a twin needs gguf; install xiaozhi-fleet[build]")
    if not source.is_file():
        raise CatalogError(f"{source}: no such model file to take the vocabulary from")
    import gguf

    part = out.with_name(out.name + ".part")
    writer = gguf.GGUFWriter(part, "qwen2")
    _describe(writer, size)
    _copy_vocabulary(gguf.GGUFReader(source), writer)
    kinds = tensor_kinds(size)
    for name, (shape, kind) in kinds.items():
        raw = None if kind == "F32" else gguf.GGMLQuantizationType[kind]
        stored = shape if raw is None else _stored_shape(shape, kind)
        dtype = np.dtype(np.float32 if raw is None else np.uint8)
        writer.add_tensor_info(name, stored, dtype, int(np.prod(stored)) * dtype.itemsize, raw_dtype=raw)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    total = sum(_bytes_of(shape, kind) for shape, kind in kinds.values())
    dice = np.random.default_rng(seed)
    done = 0
    for name, (shape, kind) in kinds.items():
        writer.write_tensor_data(_weights(name, shape, kind, dice))
        done += _bytes_of(shape, kind)
        progress(done, total)
    writer.close()
    part.replace(out)


def main(arguments: Sequence[str] | None = None) -> None:
    """Build the twin that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m models.factory.qwen_twin", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="GGUF file to write, 1.2 GB")
    parser.add_argument("--source", type=Path, help=f"GGUF file with Qwen's vocabulary; {SOURCE_MODEL} by default")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    try:
        source = options.source or locate(SOURCE_MODEL)["model"]
        build(options.out, source, options.seed, progress=_show)
    except (CatalogError, ConfigError) as error:
        sys.exit(f"error: {error}")
    print(f"\n{options.out}: {options.out.stat().st_size} bytes")  # noqa: T201 - a command's output


def _has_more_bits(layer: int, layers: int) -> bool:
    """Tell whether Q4_K_M spends more bits on this layer (llama.cpp's use_more_bits)."""
    eighth = layers // 8
    return layer < eighth or layer >= 7 * layers // 8 or (layer - eighth) % 3 == 2  # noqa: PLR2004 - every third


def _fitting(kind: str, shape: tuple[int, ...]) -> str:
    """Return the type llama.cpp takes instead when a row does not divide into blocks of 256."""
    if kind == "F32" or shape[-1] % _BLOCKS[kind][0] == 0:
        return kind
    return {"Q4_K": "Q5_0", "Q6_K": "Q8_0"}[kind]


def _stored_shape(shape: tuple[int, ...], kind: str) -> tuple[int, ...]:
    weights, size_bytes, _ = _BLOCKS[kind]
    return (*shape[:-1], shape[-1] // weights * size_bytes)


def _bytes_of(shape: tuple[int, ...], kind: str) -> int:
    return int(np.prod(shape)) * 4 if kind == "F32" else int(np.prod(_stored_shape(shape, kind)))


def _weights(name: str, shape: tuple[int, ...], kind: str, dice: np.random.Generator) -> npt.NDArray[Any]:
    """Return random weights as they lie in the file: norms are 1, biases 0, blocks hold random bits behind small scales."""
    if kind == "F32":
        return np.full(shape, 1.0 if "norm" in name else 0.0, np.float32)
    weights, size_bytes, scales = _BLOCKS[kind]
    blocks = dice.integers(0, 256, (int(np.prod(shape)) // weights, size_bytes), dtype=np.uint8)
    for place, factor in scales.items():
        blocks[:, place : place + 2] = np.array([factor * _SCALE / _QUANT_SPREAD[kind]], np.float16).view(np.uint8)
    return blocks.reshape(_stored_shape(shape, kind))


def _describe(writer: Any, size: TwinSize) -> None:
    writer.add_name("Qwen1.5 1.8B Chat twin with random weights")
    writer.add_block_count(size.layers)
    writer.add_context_length(size.context)
    writer.add_embedding_length(size.hidden)
    writer.add_feed_forward_length(size.feed_forward)
    writer.add_head_count(size.heads)
    writer.add_head_count_kv(size.heads)
    writer.add_rope_freq_base(_ROPE_BASE)
    writer.add_layer_norm_rms_eps(_NORM_EPSILON)
    writer.add_file_type(_MOSTLY_Q4_K_M)
    writer.add_quantization_version(_QUANTIZATION_VERSION)


def _copy_vocabulary(reader: Any, writer: Any) -> None:
    fields = {name: field for name, field in reader.fields.items() if name.startswith("tokenizer.")}
    words = fields.get("tokenizer.ggml.tokens")
    if words is None or len(words.data) != VOCABULARY:
        raise CatalogError(f"the source has no vocabulary of {VOCABULARY} words; give a GGUF file of a Qwen model")
    for name, field in fields.items():
        kind, *inner = field.types
        writer.add_key_value(name, field.contents(), kind, *inner)


def _show(done: int, total: int) -> None:
    print(f"\r{done / total:4.0%}", end="", file=sys.stderr)  # noqa: T201 - a command's output


if __name__ == "__main__":
    main()
