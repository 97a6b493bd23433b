"""Opens ONNX models as typed sessions; the one module that imports onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from models.errors import CatalogError, ConfigError, StageError

Array = npt.NDArray[Any]

_FATAL_ONLY = 4
"""onnxruntime's log level: what it would print below "fatal" it also raises."""


class OnnxSession(Protocol):
    """A model ready to run; several threads may run it at once."""

    @property
    def providers(self) -> Sequence[str]:
        """Names of the execution providers in use, most preferred first."""
        ...

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        """Return all outputs in the model's order; blocks, without the GIL. Raises the ``failure`` the session was opened with.

        Inputs the model wants as float16 may be float32.
        """
        ...


def open_session(
    path: Path,
    *,
    threads: int = 1,
    providers: Sequence[str] = ("CPUExecutionProvider",),
    failure: type[StageError] = StageError,
    arena: bool = False,
) -> OnnxSession:
    """Load the model at ``path``; its runs use ``threads`` threads and raise ``failure``.

    ``arena`` keeps activations for the next run: for models whose activations are so large that the C library hoards what is freed.
    ``providers`` is an order of preference: those this machine lacks are passed over. Raises CatalogError for a missing or damaged
    file, ConfigError when onnxruntime is not installed or offers none of ``providers``. Blocks.
    """
    if find_spec("onnxruntime") is None:
        raise ConfigError("onnxruntime is missing; install xiaozhi-fleet[engines]")
    if not path.is_file():
        raise CatalogError(f"{path}: no such model file; pull it with: xiaozhi-fleet models pull")
    import onnxruntime

    available = onnxruntime.get_available_providers()
    usable = [name for name in providers if name in available]
    if not usable:
        raise ConfigError(f"none of {list(providers)} is available here; onnxruntime offers {available}")
    broken = _library_errors()
    try:
        session = onnxruntime.InferenceSession(path, _options(threads, arena=arena), providers=usable)
    except broken as error:
        raise CatalogError(
            f"{path}: not a readable ONNX model ({type(error).__name__}); delete it and pull it again with: "
            "xiaozhi-fleet models pull"
        ) from error
    return _Session(session, path.name, broken, failure)


class _Session:
    """An onnxruntime session that raises errors of ours."""

    def __init__(self, session: Any, name: str, broken: tuple[type[Exception], ...], failure: type[StageError]) -> None:
        self._session = session
        self._name = name
        self._broken = broken
        self._failure = failure
        self._halved = {item.name for item in session.get_inputs() if item.type == "tensor(float16)"}

    @property
    def providers(self) -> Sequence[str]:
        return tuple(self._session.get_providers())

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        taken = {name: array.astype(np.float16) if name in self._halved else array for name, array in inputs.items()}
        try:
            return [np.asarray(output) for output in self._session.run(None, taken)]
        except self._broken as error:
            shapes = {name: array.shape for name, array in inputs.items()}
            raise self._failure(f"{self._name}: {type(error).__name__} for inputs of shape {shapes}") from error


def _options(threads: int, *, arena: bool) -> Any:
    """Return session options for a machine whose cores are shared with other engines."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # Idle threads would otherwise spin on cores the language model needs for its next token.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    # The arena keeps the largest activations ever seen; mostly a node prefers to have that memory back.
    options.enable_cpu_mem_arena = arena
    options.log_severity_level = _FATAL_ONLY
    return options


def _library_errors() -> tuple[type[Exception], ...]:
    """Return everything onnxruntime raises; its classes share no base of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    own = [thing for thing in vars(state).values() if isinstance(thing, type) and issubclass(thing, Exception)]
    return (*own, ValueError, TypeError, RuntimeError)
