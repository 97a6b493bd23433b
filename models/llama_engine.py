"""Many dialogues in one llama.cpp context, as the scheduler wants to see it; the only module that knows the C interface.

``decode`` must always be called from the same thread: a second calling thread gets a second OpenMP team, and both are slow.
"""

from __future__ import annotations

import ctypes
import logging
import weakref
from collections.abc import Sequence
from functools import lru_cache, partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from models.errors import CatalogError, ConfigError
from models.llama_jobs import Feed, Outcome

_TEMPERATURE, _TOP_K, _TOP_P = 0.3, 20, 0.8
_REPEAT_PENALTY, _REPEAT_WINDOW_TOKENS = 1.05, 64
"""top_k, top_p and the penalty are Qwen2.5's own generation_config.json; its temperature 0.7 wanders in a 0.5B model."""

_LONGEST_PIECE_BYTES = 256
"""Longer than any token of Qwen's vocabulary; a longer one would be left out of the answer."""
_PIECES_KEPT = 8192
_DECODED, _NO_CELLS, _ABORTED = 0, 1, 2
"""llama_decode's status: 1 leaves the state as it was; 2 and what is below -1 may have computed a part."""


class LlamaEngine:
    """An Engine on llama.cpp: ``sequences`` dialogues share ``cells`` tokens of memory."""

    def __init__(
        self,
        path: Path,
        *,
        threads: int,
        context_tokens: int,
        cells: int,
        sequences: int,
        batch_tokens: int,
        logprobs: bool = False,
    ) -> None:
        """Load the model; raise CatalogError for a missing or damaged file, ConfigError. Blocks.

        ``context_tokens`` is the longest dialogue, ``batch_tokens`` the most tokens of one step.
        """
        if find_spec("llama_cpp") is None:
            raise ConfigError("the edge language model needs llama-cpp-python; install xiaozhi-fleet[engines]")
        if not path.is_file():
            raise CatalogError(f"{path}: no such model file; pull it with: xiaozhi-fleet models pull")
        self._lib: Any = import_module("llama_cpp")
        logging.getLogger("llama-cpp-python").setLevel(logging.CRITICAL + 1)
        self._lib.llama_backend_init()
        self._model = self._lib.llama_model_load_from_file(bytes(path), self._lib.llama_model_default_params())
        if not self._model:
            raise CatalogError(
                f"{path}: not a readable GGUF model; delete it and pull it again with: xiaozhi-fleet models pull"
            )
        weakref.finalize(self, self._lib.llama_model_free, self._model).atexit = False
        self._name = path.name
        self._vocabulary = self._lib.llama_model_get_vocab(self._model)
        self._vocabulary_size = self._lib.llama_vocab_n_tokens(self._vocabulary)
        self._logprobs = logprobs
        self._check_trained(context_tokens)
        self._context = self._open_context(threads, cells, sequences, batch_tokens)
        weakref.finalize(self, self._lib.llama_free, self._context).atexit = False
        self._memory = self._lib.llama_get_memory(self._context)
        self._batch = _Batch(self._lib, batch_tokens)
        self._stop = ctypes.create_string_buffer(2)
        self._watch_stop()
        # Not over a method: a cache that refers to its owner keeps the model's memory until the collector comes by.
        self._piece = lru_cache(_PIECES_KEPT)(partial(_piece, self._lib, self._vocabulary))

    def tokenize(self, text: str) -> list[int]:
        """Return the tokens of plain ``text``; markup of the chat template in it stays text. Any thread."""
        return self._tokens(text, special=False)

    def mark(self, name: str) -> int:
        """Return the control token ``name``; raise CatalogError when the model has none."""
        tokens = self._tokens(name, special=True)
        if len(tokens) != 1:
            raise CatalogError(f"{self._name}: has no token {name}; only models that speak ChatML are supported")
        return tokens[0]

    def piece(self, token: int) -> bytes:
        """Return the bytes a token stands for; a character may need several tokens. Any thread."""
        return self._piece(token)

    def sampler(self, seed: int) -> LlamaSampler:
        """Return the dice and the memory for repetitions of one answer."""
        return LlamaSampler(self._lib, self._vocabulary_size, seed)

    def decode(self, feeds: Sequence[Feed]) -> Outcome:
        """Compute the feeds in one step; anything but DONE and FULL may have left a part of them in memory."""
        self._batch.fill(feeds)
        status = self._lib.llama_decode(self._context, self._batch.struct)
        if status == _DECODED:
            return Outcome.DONE
        return {_NO_CELLS: Outcome.FULL, _ABORTED: Outcome.STOPPED}.get(status, Outcome.BROKEN)

    def sample(self, feed: int, sampler: LlamaSampler) -> tuple[int | None, float | None]:
        """Return the token after the ``feed``-th feed of the last step, None at the answer's end, and its log-probability."""
        row = self._batch.ends[feed]
        token = int(self._lib.llama_sampler_sample(sampler.chain, self._context, row))
        if self._lib.llama_vocab_is_eog(self._vocabulary, token):
            return None, None
        return token, self._logprob(row, token) if self._logprobs else None

    def forget(self, sequence: int, start: int) -> bool:
        """Drop a dialogue's tokens from position ``start`` on; False when this kind of model can only forget all of it."""
        return bool(self._lib.llama_memory_seq_rm(self._memory, sequence, start, -1))

    def share(self, source: int, target: int, count: int) -> None:
        """Make the first ``count`` tokens of ``source`` those of the empty ``target`` too; takes no memory and no time."""
        self._lib.llama_memory_seq_cp(self._memory, source, target, 0, count)

    def stop(self) -> None:
        """End the running step, and all to come until ``resume``, with STOPPED. Any thread."""
        self._stop[0] = b"x"

    def resume(self) -> None:
        """Take ``stop`` back."""
        self._stop[0] = b"\0"

    def _logprob(self, row: int, token: int) -> float:
        pointer = self._lib.llama_get_logits_ith(self._context, row)
        logits = np.ctypeslib.as_array(pointer, (self._vocabulary_size,))
        top = logits.max()
        return min(0.0, float(logits[token] - top - np.log(np.exp(logits - top).sum())))

    def _tokens(self, text: str, *, special: bool) -> list[int]:
        data = text.encode("utf-8", "ignore")
        array = (self._lib.llama_token * (len(data) + 1))()
        count = self._lib.llama_tokenize(self._vocabulary, data, len(data), array, len(array), False, special)  # noqa: FBT003 - C
        return list(array[: max(count, 0)])

    def _check_trained(self, context_tokens: int) -> None:
        trained = self._lib.llama_model_n_ctx_train(self._model)
        if context_tokens > trained:
            raise ConfigError(f"{self._name}: trained for {trained} tokens of context, {context_tokens} were asked for")

    def _open_context(self, threads: int, cells: int, sequences: int, batch_tokens: int) -> Any:
        parameters = self._lib.llama_context_default_params()
        parameters.n_ctx = cells
        parameters.n_batch = parameters.n_ubatch = batch_tokens
        parameters.n_seq_max = parameters.n_outputs_max = (
            sequences  # one logits row each, not one per token of the batch
        )
        parameters.n_threads = parameters.n_threads_batch = threads
        # Copying part of a sequence aborts the process unless all share one cache.
        parameters.kv_unified = True
        context = self._lib.llama_init_from_model(self._model, parameters)
        if not context:
            raise ConfigError(f"{self._name}: no memory for {cells} tokens of context; ask for fewer")
        return context

    def _watch_stop(self) -> None:
        """Let llama.cpp ask before every operation whether to stop, without ever waiting for Python.

        A callback written in Python would take the interpreter's lock a thousand times a step. C's ``strlen`` has the right shape: of
        an empty buffer it is 0, no; of one letter it is 1, yes.
        """
        asks = ctypes.cast(ctypes.CDLL(None).strlen, self._lib.ggml_abort_callback)
        self._lib.llama_set_abort_callback(self._context, asks, ctypes.addressof(self._stop))
        self._asks = asks


class LlamaSampler:
    """How one answer picks its tokens; freed with the object."""

    def __init__(self, lib: Any, vocabulary_size: int, seed: int) -> None:
        self.chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        # Temperature before top_p, as in Qwen's own code: llama.cpp's usual order lets a 0.5B model say its third guess.
        for sampler in (
            lib.llama_sampler_init_top_k(_TOP_K),
            lib.llama_sampler_init_penalties(vocabulary_size, _REPEAT_WINDOW_TOKENS, _REPEAT_PENALTY, 0.0, 0.0),
            lib.llama_sampler_init_temp(_TEMPERATURE),
            lib.llama_sampler_init_top_p(_TOP_P, 1),
            lib.llama_sampler_init_dist(seed & 0xFFFF_FFFF),
        ):
            lib.llama_sampler_chain_add(self.chain, sampler)
        weakref.finalize(self, lib.llama_sampler_free, self.chain).atexit = False


class _Batch:
    """A llama_batch over arrays of our own: filled by slices, and never given to llama_batch_free."""

    def __init__(self, lib: Any, size: int) -> None:
        self._token = np.zeros(size, np.int32)
        self._position = np.zeros(size, np.int32)
        self._sequence = np.zeros(size, np.int32)
        self._wanted = np.zeros(size, np.int8)
        self._one = np.ones(size, np.int32)
        first = self._sequence.ctypes.data
        self._sequences = np.arange(first, first + 4 * size, 4, dtype=np.uintp)
        self.ends: list[int] = []
        """Row of each feed's last token."""
        columns: dict[str, Any] = {
            "token": self._token,
            "pos": self._position,
            "n_seq_id": self._one,
            "seq_id": self._sequences,
            "logits": self._wanted,
        }
        kinds = dict(field[:2] for field in lib.llama_batch._fields_)
        self.struct = lib.llama_batch(
            n_tokens=0, embd=None, **{name: array.ctypes.data_as(kinds[name]) for name, array in columns.items()}
        )

    def fill(self, feeds: Sequence[Feed]) -> None:
        row = 0
        self.ends = []
        for feed in feeds:
            end = row + len(feed.tokens)
            self._token[row:end] = feed.tokens
            self._position[row:end] = np.arange(feed.start, feed.start + len(feed.tokens))
            self._sequence[row:end] = feed.sequence
            self._wanted[row:end] = 0
            self._wanted[end - 1] = feed.wants_token
            self.ends.append(end - 1)
            row = end
        self.struct.n_tokens = row


def _piece(lib: Any, vocabulary: Any, token: int) -> bytes:
    buffer = ctypes.create_string_buffer(_LONGEST_PIECE_BYTES)
    length = lib.llama_token_to_piece(vocabulary, token, buffer, len(buffer), 0, False)  # noqa: FBT003 - C
    return buffer.raw[: max(length, 0)]
