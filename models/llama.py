"""Answers prompts with a GGUF model through llama.cpp's C interface, one dialogue at a time.

Everything that touches llama.cpp runs on the one thread of the slot: a second calling thread would get a second OpenMP team, and
both would be slow. Each call there is one bounded step (at most ``PREFILL_TOKENS`` of prompt, or one token), so closing an answer
frees the engine within a step. What the last dialogue and the warmed system prompts share with a new prompt is not computed again.
"""

from __future__ import annotations

import asyncio
import codecs
import ctypes
import logging
import time
import weakref
import zlib
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import AsyncExitStack
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from models.errors import CatalogError, CompletionError, ConfigError, DeadlineError, OverloadedError
from models.prompts import CompletionDelta, Message, Prompt, Usage
from models.slots import Slots

PREFILL_TOKENS = 64
"""Prompt tokens per step: 0.1-0.2 s on two cores with a 0.5B model, which bounds how long closing waits."""
WARM_PROMPTS = 3
"""System prompts whose state is kept; the oldest makes room."""
WARM_TOKENS = 512
"""Longest system prompt that can be kept warm."""

_TEMPERATURE, _TOP_K, _TOP_P = 0.3, 20, 0.8
_REPEAT_PENALTY, _REPEAT_WINDOW_TOKENS = 1.05, 64
"""top_k, top_p and the penalty are Qwen2.5's own generation_config.json; its temperature 0.7 wanders in a 0.5B model."""

_LONGEST_PIECE_BYTES = 256
"""Longer than any token of Qwen's vocabulary; a longer one would be left out of the answer."""
_LOOP_TOKENS, _LOOP_TIMES = 12, 3
"""An answer that says the same 12 tokens for the third time will not end by itself."""


class Engine(Protocol):
    """A language model with one dialogue in its memory; every call blocks and comes from the same thread."""

    def tokenize(self, text: str) -> list[int]:
        """Return the tokens of plain ``text``; markup of the chat template in it stays text."""
        ...

    def mark(self, name: str) -> int:
        """Return the control token ``name``; raise CatalogError when the model has none."""
        ...

    def recall(self, tokens: Sequence[int]) -> int:
        """Begin ``tokens`` as the dialogue and return how many of them need no ``feed``; at least the last one does."""
        ...

    def feed(self, tokens: Sequence[int]) -> None:
        """Read the dialogue's next tokens, at most ``PREFILL_TOKENS``; raise CompletionError."""
        ...

    def keep(self) -> None:
        """Remember the dialogue as it is now, so that ``recall`` finds it after others."""
        ...

    def sample(self) -> int | None:
        """Return the next token of the answer, None at its end."""
        ...

    def piece(self, token: int) -> bytes:
        """Return the bytes a token stands for; a character may need several tokens."""
        ...


def kept_messages(lengths: Sequence[int], messages: Sequence[Message], room_tokens: int) -> list[int] | None:
    """Return the indices of ``messages`` to keep within ``room_tokens``: all system ones, the last, the latest of the others.

    What follows the system prompt begins with a user's message. None when even that is too long.
    """
    fixed = [index for index, message in enumerate(messages) if message.role == "system" or index == len(messages) - 1]
    left = room_tokens - sum(lengths[index] for index in fixed)
    if left < 0:
        return None
    recent: deque[int] = deque()
    for index in range(len(messages) - 2, -1, -1):
        if index in fixed:
            continue
        left -= lengths[index]
        if left < 0:
            break
        recent.appendleft(index)
    dropped = len(recent) + len(fixed) < len(messages)
    while dropped and recent and messages[recent[0]].role == "assistant":
        recent.popleft()
    return sorted([*fixed, *recent])


class LoopGuard:
    """Notices an answer that repeats itself without end."""

    def __init__(self) -> None:
        self._latest: deque[int] = deque(maxlen=_LOOP_TOKENS)
        self._seen: Counter[tuple[int, ...]] = Counter()

    def loops(self, token: int) -> bool:
        """Return whether ``token`` completes a run of tokens for the third time."""
        self._latest.append(token)
        if len(self._latest) < _LOOP_TOKENS:
            return False
        run = tuple(self._latest)
        self._seen[run] += 1
        return self._seen[run] >= _LOOP_TIMES


class LlamaCompleter:
    """A Completer on llama.cpp for models that speak ChatML (all of Qwen); others wait in line for the one slot."""

    def __init__(
        self,
        model_path: Path,
        *,
        threads: int = 1,
        context_tokens: int = 4096,
        max_waiting: int = 8,
        name: str = "",
        seed: int = 1,
        observe_wait: Callable[[float], None] = lambda _seconds: None,
        now: Callable[[], float] = time.monotonic,
        engine: Engine | None = None,
    ) -> None:
        """Load the model; ``engine`` stands in for it. Raises CatalogError for a missing or damaged file, ConfigError. Blocks.

        Give ``threads`` only cores no other engine uses: llama.cpp's threads wait for each other by spinning, and two of them beside
        a busy synthesizer on two cores wrote 2 tokens a second where one wrote 27.
        """
        self.name = name or model_path.stem
        self._context_tokens = context_tokens
        self._now = now
        self._engine = engine or _LlamaCpp(model_path, threads=threads, context_tokens=context_tokens, seed=seed)
        self._begin, self._end = self._engine.mark("<|im_start|>"), self._engine.mark("<|im_end|>")
        self._slots = Slots(
            f"llama-{self.name}", 1, max_waiting=max_waiting, refusal=OverloadedError, observe_wait=observe_wait
        )

    @property
    def waiting(self) -> int:
        """Calls in line for the engine now."""
        return self._slots.waiting

    async def complete(self, prompt: Prompt) -> AsyncGenerator[CompletionDelta, None]:
        """Yield the answer as it is written, the count of tokens last. Closing frees the slot within one step.

        Raises OverloadedError when the line is full, DeadlineError when the budget runs out, CompletionError otherwise.
        """
        deadline_s = self._now() + prompt.budget_ms / 1000
        async with AsyncExitStack() as holding:
            try:
                async with asyncio.timeout(prompt.budget_ms / 1000):
                    await holding.enter_async_context(self._slots.hold())
            except TimeoutError as error:
                raise DeadlineError(f"{self.name}: no slot within {prompt.budget_ms} ms") from error
            tokens = await self._slots.run(self._tokens_of, prompt)
            await self._read(tokens, deadline_s)
            written = 0
            decoder = codecs.getincrementaldecoder("utf-8")("ignore")
            guard = LoopGuard()
            model = self.name
            token = await self._slots.run(self._engine.sample)
            while token is not None:
                written += 1
                text = decoder.decode(self._engine.piece(token))
                if text:
                    yield CompletionDelta(text=text, model=model)
                    model = ""
                if written >= prompt.max_tokens or guard.loops(token):
                    break
                self._check(deadline_s)
                token = await self._slots.run(self._step, token)
            yield CompletionDelta(
                text="", model=model, usage=Usage(prompt_tokens=len(tokens), completion_tokens=written)
            )

    async def warm(self, system: str) -> None:
        """Read ``system`` ahead, so that the first prompt that begins with it need not; raise ConfigError when it is too long."""
        async with self._slots.hold():
            tokens = await self._slots.run(self._message, Message(role="system", text=system))
            if len(tokens) > WARM_TOKENS:
                raise ConfigError(f"the system prompt has {len(tokens)} tokens; at most {WARM_TOKENS} can be kept warm")
            await self._read(tokens, float("inf"))
            await self._slots.run(self._engine.keep)

    def close(self) -> None:
        """Let the running step end and refuse new prompts; memory is given back with the object. Does not block."""
        self._slots.close()

    async def _read(self, tokens: list[int], deadline_s: float) -> None:
        done = await self._slots.run(self._engine.recall, tokens)
        for start in range(done, len(tokens), PREFILL_TOKENS):
            self._check(deadline_s)
            await self._slots.run(self._engine.feed, tokens[start : start + PREFILL_TOKENS])
        self._check(deadline_s)

    def _check(self, deadline_s: float) -> None:
        if self._now() > deadline_s:
            raise DeadlineError(f"{self.name}: the budget ran out")

    def _step(self, token: int) -> int | None:
        self._engine.feed([token])
        return self._engine.sample()

    def _tokens_of(self, prompt: Prompt) -> list[int]:
        room = self._context_tokens - prompt.max_tokens
        opening = [self._begin, *self._engine.tokenize("assistant\n")]
        messages = [self._message(message) for message in prompt.messages]
        lengths = [len(message) for message in messages]
        kept = kept_messages(lengths, prompt.messages, room - len(opening)) if messages else None
        if kept is None:
            raise CompletionError(
                f"{self.name}: {len(messages)} messages of {sum(lengths)} tokens and {prompt.max_tokens} to answer "
                f"do not fit {self._context_tokens} tokens of context"
            )
        return [*(token for index in kept for token in messages[index]), *opening]

    def _message(self, message: Message) -> list[int]:
        """Return one message in ChatML; its text cannot forge the marks around it."""
        head, body = self._engine.tokenize(f"{message.role}\n"), self._engine.tokenize(message.text.strip())
        return [self._begin, *head, *body, self._end, *self._engine.tokenize("\n")]


class _LlamaCpp:
    """An Engine on the C interface: sequence 0 is the dialogue, the others hold what ``keep`` remembered."""

    def __init__(self, path: Path, *, threads: int, context_tokens: int, seed: int) -> None:
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
        self._context = self._open_context(threads, context_tokens)
        weakref.finalize(self, self._lib.llama_free, self._context).atexit = False
        self._memory = self._lib.llama_get_memory(self._context)
        self._seed = seed
        self._sampler, self._free_sampler = self._open_sampler([])
        self._dialogue: list[int] = []
        self._kept: dict[int, list[int]] = {}
        """Sequence to its tokens; the oldest first."""

    def tokenize(self, text: str) -> list[int]:
        return self._tokens(text, special=False)

    def mark(self, name: str) -> int:
        tokens = self._tokens(name, special=True)
        if len(tokens) != 1:
            raise CatalogError(f"{self._name}: has no token {name}; only models that speak ChatML are supported")
        return tokens[0]

    def recall(self, tokens: Sequence[int]) -> int:
        self._free_sampler()
        self._sampler, self._free_sampler = self._open_sampler(tokens)
        shared = {sequence: _shared(kept, tokens) for sequence, kept in ((0, self._dialogue), *self._kept.items())}
        best = max(shared, key=lambda sequence: (shared[sequence], sequence == 0))
        known = min(shared[best], len(tokens) - 1)
        if best:
            self._lib.llama_memory_seq_rm(self._memory, 0, -1, -1)
            self._lib.llama_memory_seq_cp(self._memory, best, 0, 0, known)
        elif not self._lib.llama_memory_seq_rm(self._memory, 0, known, -1):
            self._lib.llama_memory_seq_rm(self._memory, 0, -1, -1)  # this kind of model cannot forget in part
            known = 0
        self._dialogue = list(tokens[:known])
        return known

    def feed(self, tokens: Sequence[int]) -> None:
        array = (self._lib.llama_token * len(tokens))(*tokens)
        status = self._lib.llama_decode(self._context, self._lib.llama_batch_get_one(array, len(tokens)))
        if status:
            self._lib.llama_memory_seq_rm(self._memory, 0, -1, -1)
            self._dialogue = []
            raise CompletionError(f"{self._name}: llama.cpp could not read {len(tokens)} tokens (status {status})")
        self._dialogue.extend(tokens)

    def keep(self) -> None:
        free = [sequence for sequence in range(1, WARM_PROMPTS + 1) if sequence not in self._kept]
        sequence = free[0] if free else next(iter(self._kept))
        self._kept.pop(sequence, None)
        self._lib.llama_memory_seq_rm(self._memory, sequence, -1, -1)
        self._lib.llama_memory_seq_cp(self._memory, 0, sequence, 0, len(self._dialogue))
        self._kept[sequence] = list(self._dialogue)

    def sample(self) -> int | None:
        token = int(self._lib.llama_sampler_sample(self._sampler, self._context, -1))
        return None if self._lib.llama_vocab_is_eog(self._vocabulary, token) else token

    def piece(self, token: int) -> bytes:
        buffer = ctypes.create_string_buffer(_LONGEST_PIECE_BYTES)
        length = self._lib.llama_token_to_piece(self._vocabulary, token, buffer, len(buffer), 0, False)  # noqa: FBT003 - C
        return buffer.raw[: max(length, 0)]

    def _tokens(self, text: str, *, special: bool) -> list[int]:
        data = text.encode("utf-8", "ignore")
        array = (self._lib.llama_token * (len(data) + 1))()
        count = self._lib.llama_tokenize(self._vocabulary, data, len(data), array, len(array), False, special)  # noqa: FBT003 - C
        return list(array[: max(count, 0)])

    def _open_context(self, threads: int, context_tokens: int) -> Any:
        trained = self._lib.llama_model_n_ctx_train(self._model)
        if context_tokens > trained:
            raise ConfigError(f"{self._name}: trained for {trained} tokens of context, {context_tokens} were asked for")
        parameters = self._lib.llama_context_default_params()
        parameters.n_ctx = context_tokens + WARM_PROMPTS * WARM_TOKENS
        parameters.n_batch = parameters.n_ubatch = PREFILL_TOKENS
        parameters.n_seq_max = WARM_PROMPTS + 1
        parameters.n_threads = parameters.n_threads_batch = threads
        # Copying part of a sequence aborts the process unless all share one cache.
        parameters.kv_unified = True
        context = self._lib.llama_init_from_model(self._model, parameters)
        if not context:
            raise ConfigError(f"{self._name}: no memory for {context_tokens} tokens of context; ask for fewer")
        return context

    def _open_sampler(self, tokens: Sequence[int]) -> tuple[Any, Callable[[], object]]:
        """Return a sampler and what frees it; the same prompt gets the same answer, other prompts other dice."""
        lib = self._lib
        chain = lib.llama_sampler_chain_init(lib.llama_sampler_chain_default_params())
        vocabulary_size = lib.llama_vocab_n_tokens(self._vocabulary)
        # Temperature before top_p, as in Qwen's own code: llama.cpp's usual order lets a 0.5B model say its third guess.
        for sampler in (
            lib.llama_sampler_init_top_k(_TOP_K),
            lib.llama_sampler_init_penalties(vocabulary_size, _REPEAT_WINDOW_TOKENS, _REPEAT_PENALTY, 0.0, 0.0),
            lib.llama_sampler_init_temp(_TEMPERATURE),
            lib.llama_sampler_init_top_p(_TOP_P, 1),
            lib.llama_sampler_init_dist(self._seed ^ zlib.crc32(bytes(str(tokens), "ascii"))),
        ):
            lib.llama_sampler_chain_add(chain, sampler)
        free = weakref.finalize(self, lib.llama_sampler_free, chain)
        free.atexit = False
        return chain, free


def _shared(known: Sequence[int], tokens: Sequence[int]) -> int:
    """Return how many tokens both begin with."""
    pairs = zip(known, tokens, strict=False)
    return next((index for index, (left, right) in enumerate(pairs) if left != right), min(len(known), len(tokens)))
