"""One language model in a process of its own: reads rounds of requests as JSON lines, answers all of a round at once, tells the times.

python -m benchmarks.engine_llm_worker ours|llama-server --model FILE.gguf --threads N --slots N

Each engine has its own process because the threads of two in one would spin against each other. Every answer has as many tokens as were
asked for: its end is not heeded. Both get the same messages, the same chat template and the same sampling.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import aclosing
from itertools import cycle
from pathlib import Path
from typing import Any, Protocol

import msgspec

from models.llama import LlamaCompleter
from models.llama_engine import LlamaEngine, LlamaSampler
from models.llama_scheduler import READ_ALONE_TOKENS, WARM_PROMPTS
from models.prompts import Message, Prompt

CONTEXT_TOKENS = 512
"""Of one dialogue: twice what the longest here needs."""
BUDGET_MS = 600_000
SYSTEM = (
    "你是小智，一个装在小音箱里的语音助手，和家里的老人孩子说话。请用口语回答，每次只说一两句，不用列表、表情和标题。"
    "不知道的事情就直接说不知道，不要编造。涉及时间、天气和家里的设备时，先说结论，再说一个理由。"
    "对孩子要耐心，用他们听得懂的词；对老人要慢，把数字说清楚。别人打断你的时候，马上停下来听。"
    "如果问题不清楚，就反问一句，不要猜。回答里不要出现网址、代码和英文缩写。说话要亲切自然，像一个熟悉的朋友，"
    "不要重复用户的问题，也不要在结尾问还有什么可以帮忙。"
    "晚上十点以后声音要轻，话要更短；有人说不舒服的时候，先问哪里难受，再建议他告诉家里人或者去看医生。"
)
"""What all requests but the fresh ones begin with: 176 tokens."""


class Request(msgspec.Struct, frozen=True):
    """One dialogue that wants its next answer."""

    messages: tuple[tuple[str, str], ...]
    """Role and text."""
    device_id: str = ""


class Round(msgspec.Struct, frozen=True):
    """Requests that come at the same moment."""

    requests: tuple[Request, ...]
    tokens: int
    """Length of every answer."""


class Answered(msgspec.Struct, frozen=True):
    """What became of one request."""

    text: str
    first_s: float
    prompt_tokens: int
    tokens: int


class Times(msgspec.Struct, frozen=True):
    """What became of a round."""

    seconds: float
    answers: tuple[Answered, ...]


class Answerer(Protocol):
    """An engine that answers a round."""

    def answer(self, asked: Round) -> list[Answered]:
        """Answer all requests at once; blocks."""
        ...


class Ours:
    """The product's completer."""

    def __init__(self, model: Path, threads: int, slots: int) -> None:
        cells = CONTEXT_TOKENS * (slots + 1)
        engine = _Endless(
            model,
            threads=threads,
            context_tokens=CONTEXT_TOKENS,
            cells=cells,
            sequences=slots + WARM_PROMPTS,
            batch_tokens=slots + READ_ALONE_TOKENS,
        )
        self._completer = LlamaCompleter(
            model, slots=slots, context_tokens=CONTEXT_TOKENS, cache_tokens=cells, engine=engine
        )
        asyncio.run(self._completer.warm(SYSTEM))

    def answer(self, asked: Round) -> list[Answered]:
        """Answer all requests at once; blocks."""
        return asyncio.run(self._all(asked))

    async def _all(self, asked: Round) -> list[Answered]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._one(request, asked.tokens)) for request in asked.requests]
        return [task.result() for task in tasks]

    async def _one(self, request: Request, tokens: int) -> Answered:
        prompt = Prompt(
            turn_id="benchmark",
            messages=tuple(msgspec.convert({"role": role, "text": text}, Message) for role, text in request.messages),
            device_id=request.device_id,
            max_tokens=tokens,
            budget_ms=BUDGET_MS,
        )
        began, first_s, text = time.perf_counter(), 0.0, ""
        async with aclosing(self._completer.complete(prompt)) as deltas:
            async for delta in deltas:
                first_s = first_s or time.perf_counter() - began
                text += delta.text
                usage = delta.usage
        if usage is None:
            raise RuntimeError("the completer did not count")
        return Answered(text, first_s, usage.prompt_tokens, usage.completion_tokens)


class LlamaServer:
    """llama.cpp's own server as xllamacpp packs it, asked without HTTP."""

    def __init__(self, model: Path, threads: int, slots: int) -> None:
        import xllamacpp

        params = xllamacpp.CommonParams()
        params.model.path = str(model)
        params.hostnames = ["127.0.0.1"]
        params.port = 0
        params.n_parallel = slots
        params.n_ctx = CONTEXT_TOKENS * slots
        params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
        params.ui = False
        self._server: Any = xllamacpp.Server(params)

    def answer(self, asked: Round) -> list[Answered]:
        """Answer all requests at once; blocks."""
        answers: dict[int, Answered] = {}

        def one(index: int, request: Request) -> None:
            answers[index] = self._one(request, asked.tokens)

        threads = [threading.Thread(target=one, args=(index, request)) for index, request in enumerate(asked.requests)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [answers[index] for index in range(len(asked.requests))]

    def _one(self, request: Request, tokens: int) -> Answered:
        began, first_s, text = time.perf_counter(), 0.0, ""
        usage: dict[str, int] = {}

        def take(chunk: dict[str, Any]) -> bool:
            nonlocal first_s, text, usage
            for choice in chunk.get("choices", ()):
                if piece := choice["delta"].get("content"):
                    first_s = first_s or time.perf_counter() - began
                    text += piece
            usage = chunk.get("usage") or usage
            return False

        self._server.handle_chat_completions(_payload(request, tokens), take)
        return Answered(text, first_s, usage["prompt_tokens"], usage["completion_tokens"])


class _Endless(LlamaEngine):
    """The product's engine that goes on where an answer would end, with words that make no loop."""

    _more = cycle(range(1_000, 3_000))

    def sample(self, feed: int, sampler: LlamaSampler) -> tuple[int | None, float | None]:
        token, logprob = super().sample(feed, sampler)
        return next(self._more) if token is None else token, logprob


def _payload(request: Request, tokens: int) -> dict[str, Any]:
    return {
        "messages": [{"role": role, "content": text} for role, text in request.messages],
        "max_tokens": tokens,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
        "cache_prompt": True,
        "temperature": 0.3,
        "top_k": 20,
        "top_p": 0.8,
        "min_p": 0.0,
        "repeat_penalty": 1.05,
        "repeat_last_n": 64,
        "samplers": ["top_k", "penalties", "temperature", "top_p"],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Answer rounds until the input ends; a first empty line out says that the model is loaded."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine_llm_worker")
    parser.add_argument("engine", choices=("ours", "llama-server"))
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--threads", type=int, required=True)
    parser.add_argument("--slots", type=int, required=True)
    options = parser.parse_args(arguments)
    kind = Ours if options.engine == "ours" else LlamaServer
    engine: Answerer = kind(options.model, options.threads, options.slots)
    print(flush=True)  # noqa: T201 - the other process reads it
    for line in sys.stdin:
        asked = msgspec.json.decode(line, type=Round)
        began = time.perf_counter()
        answers = engine.answer(asked)
        times = Times(time.perf_counter() - began, tuple(answers))
        print(msgspec.json.encode(times).decode(), flush=True)  # noqa: T201 - the other process reads it


if __name__ == "__main__":
    main()
