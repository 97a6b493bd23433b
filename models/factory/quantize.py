"""Makes variants of Silero VAD beside the pulled file; needs the ``build`` extra.

onnxruntime's own dynamic quantizer does not fit this model: it leaves the published graph as it is, because all layers are inside a
branch, and on the unrolled graph it gives one range to a whole batch, so that what a device hears depends on how loud its neighbours are
(up to 0.99 in probability). ``silero_graph`` quantizes by row instead.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import msgspec

from models.errors import CatalogError, ConfigError
from models.factory.silero_graph import batched
from models.variants import MADE, Variant, made_path

QUANTIZABLE = ("silero-vad",)
"""Models of the catalogue this module knows the layers of."""


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A variant that was made."""

    model: str
    variant: str
    path: str
    size_bytes: int
    source_bytes: int


def make(name: str, source: Path, wanted: str, *, say: Callable[[str], None] = lambda _line: None) -> Made:
    """Write variant ``wanted`` of the pulled ``source`` of model ``name`` beside it in one step, over an older one; blocks seconds.

    Raises CatalogError for a model or file it does not know, ConfigError without the ``build`` extra or when the disk refuses.
    """
    if name not in QUANTIZABLE:
        raise CatalogError(f"{name}: variants can be made of {', '.join(QUANTIZABLE)} only")
    variant: Variant | None = next((one for one in MADE if one == wanted), None)
    if variant is None:
        raise CatalogError(f"{name}: no variant {wanted!r} can be made; there are {', '.join(MADE)}")
    if find_spec("onnx") is None:
        raise ConfigError("onnx is missing; install xiaozhi-fleet[build]")
    say(f"{name}: reading {source}")
    model = _read(source)
    say(f"{name}: laying its layers out as {variant}")
    made = batched(model, is_int8=variant == "int8")
    if variant == "fp16":
        made = _halved(made)
    path = made_path(source, variant)
    _write(made, path)
    say(f"{name}: wrote {path}")
    sizes = {"size_bytes": path.stat().st_size, "source_bytes": source.stat().st_size}
    return Made(model=name, variant=variant, path=str(path), **sizes)


def _read(source: Path) -> Any:
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # it comes with onnx, without stubs

    try:
        return onnx.load(str(source))
    except (OSError, DecodeError) as error:
        raise CatalogError(f"{source}: not a readable ONNX model ({type(error).__name__}); pull it again") from error


def _halved(model: Any) -> Any:
    """Return the model with float16 inside and float32 at its inputs and outputs."""
    # The package prints advice about its other tools while it is imported.
    logging.getLogger("onnxruntime.transformers").setLevel(logging.ERROR)
    from onnxruntime.transformers.float16 import convert_float_to_float16

    with warnings.catch_warnings():
        # It tells of every weight too small for float16; how much that matters is measured, not guessed.
        warnings.simplefilter("ignore", UserWarning)
        return convert_float_to_float16(model, keep_io_types=True)


def _write(model: Any, path: Path) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        part.write_bytes(model.SerializeToString())
        part.replace(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        part.unlink(missing_ok=True)
