"""Answers prompts with a GGUF model that speaks ChatML, many dialogues at once in one llama.cpp context.

Every step of the engine computes one token of each answer being written and a piece of the prompts being read; answers join and
leave between steps. See ``llama_scheduler`` for what is computed when, ``llama_thread`` for where, ``llama_engine`` for how.
"""

from __future__ import annotations

import codecs
import time
import zlib
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Protocol

from models.errors import CompletionError, ConfigError, DeadlineError, OverloadedError
from models.llama_engine import LlamaEngine
from models.llama_jobs import Counts, Ended, Engine, Job, Started, Wrote
from models.llama_scheduler import READ_ALONE_TOKENS, WARM_PROMPTS, Scheduler
from models.llama_thread import Brake, EngineThread
from models.prompts import CompletionDelta, Message, Prompt, Usage
from models.slots import Slots

WARM_TOKENS = 512
"""Longest system prompt that can be kept warm."""

_MESSAGES_KEPT = 256
"""Messages whose tokens are remembered: a dialogue's earlier ones come again with every turn."""
_LOOP_TOKENS, _LOOP_TIMES = 12, 3
"""An answer that says the same 12 tokens for the third time will not end by itself."""


class Model(Engine, Brake, Protocol):
    """An engine with its vocabulary."""

    def tokenize(self, text: str) -> list[int]:
        """Return the tokens of plain ``text``; markup of the chat template in it stays text. Any thread."""
        ...

    def mark(self, name: str) -> int:
        """Return the control token ``name``; raise CatalogError when the model has none."""
        ...

    def piece(self, token: int) -> bytes:
        """Return the bytes a token stands for; a character may need several tokens. Any thread."""
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
    """A Completer on llama.cpp for models that speak ChatML (all of Qwen): ``slots`` answers at once, others wait in line."""

    def __init__(
        self,
        model_path: Path,
        *,
        slots: int = 8,
        threads: int = 1,
        context_tokens: int = 4096,
        cache_tokens: int = 8192,
        max_waiting: int = 16,
        logprobs: bool = False,
        name: str = "",
        seed: int = 1,
        observe_wait: Callable[[float], None] = lambda _seconds: None,
        now: Callable[[], float] = time.monotonic,
        engine: Model | None = None,
    ) -> None:
        """Load the model; ``engine`` stands in for it. Raises CatalogError for a missing or damaged file, ConfigError. Blocks.

        Give ``threads`` only cores no other engine uses: llama.cpp's threads wait for each other by spinning, and two of them beside
        a busy synthesizer on two cores wrote 2 tokens a second where one wrote 27.
        ``context_tokens`` is the most of one dialogue with its answer, ``cache_tokens`` the memory that all dialogues share, running
        and idle; a token of it takes 12 KiB with Qwen2.5-0.5B and 192 KiB with Qwen1.5-1.8B.
        """
        if cache_tokens < context_tokens:
            raise ConfigError(f"{cache_tokens} tokens of cache cannot hold one dialogue of {context_tokens} tokens")
        self.name = name or model_path.stem
        self._context_tokens = context_tokens
        self._seed = seed
        self._now = now
        self._observe_wait = observe_wait
        self._engine = engine or LlamaEngine(
            model_path,
            threads=threads,
            context_tokens=context_tokens,
            cells=cache_tokens,
            sequences=slots + WARM_PROMPTS,
            batch_tokens=slots + READ_ALONE_TOKENS,
            logprobs=logprobs,
        )
        self._begin, end = self._engine.mark("<|im_start|>"), self._engine.mark("<|im_end|>")
        self._message = lru_cache(_MESSAGES_KEPT)(partial(_chatml, self._engine, self._begin, end))
        self._scheduler = Scheduler(self._engine, slots=slots, name=self.name)
        self._thread = EngineThread(
            self._scheduler, self._engine, name=self.name, slots=slots, max_waiting=max_waiting, now=now
        )
        self._reading = Slots(f"tokens-{self.name}", 1, max_waiting=slots + max_waiting, refusal=OverloadedError)

    @property
    def waiting(self) -> int:
        """Calls in line for a slot now."""
        return self._thread.waiting

    @property
    def wait_s(self) -> float:
        """Seconds a new call would wait for a slot, by how long the latest answers held theirs."""
        return self._thread.wait_s

    @property
    def counts(self) -> Counts:
        """What was computed since the start."""
        return self._scheduler.counts

    async def complete(self, prompt: Prompt) -> AsyncGenerator[CompletionDelta, None]:
        """Yield the answer as it is written, the count of tokens last. Closing frees the slot within one step.

        Raises OverloadedError when the line is full or too long for the budget, DeadlineError when the budget runs out,
        CompletionError otherwise.
        """
        deadline_s = self._now() + prompt.budget_ms / 1000
        self._thread.check(prompt.budget_ms / 1000)
        async with self._reading.hold():
            tokens = await self._reading.run(self._tokens_of, prompt)
        if self._now() > deadline_s:
            raise DeadlineError(f"{self.name}: the budget ran out before the model began")
        job = Job(
            tokens=list(tokens),
            max_tokens=prompt.max_tokens,
            deadline_s=deadline_s,
            device_id=prompt.device_id,
            seed=self._seed ^ zlib.crc32(bytes(str(tokens), "ascii")),
            loops=LoopGuard().loops,
        )
        answer = self._thread.submit(job)
        try:
            model, spelling = self.name, _Spelling(self._engine.piece)
            while not isinstance(event := await answer.next(), Ended):
                if isinstance(event, Started):
                    self._observe_wait(event.waited_s)
                elif text := spelling.add(event):
                    yield CompletionDelta(text=text, model=model, logprobs=spelling.take_logprobs())
                    model = ""
            usage = Usage(prompt_tokens=len(tokens), completion_tokens=job.written)
            yield CompletionDelta(text="", model=model, usage=usage, logprobs=spelling.take_logprobs())
        finally:
            await answer.close()

    async def warm(self, system: str) -> None:
        """Read ``system`` ahead, so that the first prompt that begins with it need not; raise ConfigError when it is too long."""
        async with self._reading.hold():
            tokens = await self._reading.run(self._message, Message(role="system", text=system))
        if len(tokens) > WARM_TOKENS:
            raise ConfigError(f"the system prompt has {len(tokens)} tokens; at most {WARM_TOKENS} can be kept warm")
        answer = self._thread.submit(Job(tokens=list(tokens), keeps=True))
        try:
            while not isinstance(await answer.next(), Ended):
                pass
        finally:
            await answer.close()

    def close(self) -> None:
        """Let the running step end and refuse new prompts; memory is given back with the object. Does not block."""
        self._thread.close()
        self._reading.close()

    def _tokens_of(self, prompt: Prompt) -> list[int]:
        room = self._context_tokens - prompt.max_tokens
        asked, begun = prompt.messages, ""
        if asked and asked[-1].role == "assistant":  # the beginning of the answer, to go on from
            asked, begun = asked[:-1], asked[-1].text
        opening = [self._begin, *self._engine.tokenize("assistant\n" + begun)]
        messages = [self._message(message) for message in asked]
        lengths = [len(message) for message in messages]
        kept = kept_messages(lengths, asked, room - len(opening)) if messages else None
        if kept is None:
            raise CompletionError(
                f"{self.name}: {len(messages)} messages of {sum(lengths)} tokens and {prompt.max_tokens} to answer "
                f"do not fit {self._context_tokens} tokens of context"
            )
        return [*(token for index in kept for token in messages[index]), *opening]


class _Spelling:
    """Turns tokens into whole characters, and gathers the log-probabilities behind them."""

    def __init__(self, piece: Callable[[int], bytes]) -> None:
        self._piece = piece
        self._decoder = codecs.getincrementaldecoder("utf-8")("ignore")
        self._logprobs: list[float] = []

    def add(self, wrote: Wrote) -> str:
        if wrote.logprob is not None:
            self._logprobs.append(wrote.logprob)
        return self._decoder.decode(self._piece(wrote.token))

    def take_logprobs(self) -> tuple[float, ...]:
        taken, self._logprobs = tuple(self._logprobs), []
        return taken


def _chatml(model: Model, begin: int, end: int, message: Message) -> list[int]:
    """Return one message in ChatML; its text cannot forge the marks around it."""
    head, body = model.tokenize(f"{message.role}\n"), model.tokenize(message.text.strip())
    return [begin, *head, *body, end, *model.tokenize("\n")]
