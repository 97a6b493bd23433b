"""The language model with many dialogues at once, against llama.cpp's own server on the same file with as many threads.

Each engine runs in a process of its own and they take turns, in the reverse order every other time, so that whatever else the machine does
falls on both. A round is n requests at one moment: 48 tokens each, prompts of about 206 tokens of which 176 are a
common system prompt, which ours is told ahead as the product tells it.
The wheel of xllamacpp is compiled for AVX2 only. With a directory of llama.cpp libraries in XIAOZHI_FLEET_LLAMA_AVX2 in which
libggml-cpu.so is compiled alike, a third engine gives the figure for equal kernels; see ``MATCHED``.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import msgspec
from rich.console import Console
from rich.table import Table

from benchmarks.engine_llm_worker import SYSTEM, Request, Round, Times
from benchmarks.report import ROOT, table_of
from models.errors import CompletionError
from models.store import locate

MODEL = "qwen2.5-coder-0.5b-instruct-q4_k_m"
LEVELS = (1, 4, 8, 16)
"""Dialogues at once."""
SLOTS = 16
ANSWER_TOKENS, COLD_ANSWER_TOKENS = 48, 8
REPETITIONS, QUICK_REPETITIONS = 5, 1
MATCHED = "XIAOZHI_FLEET_LLAMA_AVX2"
"""Directory with all of llama_cpp/lib, libggml-cpu.so compiled with -DGGML_NATIVE=OFF and AVX2, FMA, F16C, BMI2 on.

How: pip download --no-binary :all: --no-deps llama-cpp-python, unpack, then in vendor/llama.cpp
cmake -B build -DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON -DGGML_F16C=ON -DGGML_BMI2=ON -DBUILD_SHARED_LIBS=ON -DCMAKE_BUILD_TYPE=Release
cmake --build build --target ggml-cpu; then copy llama_cpp/lib and lay the new libggml-cpu.so over its own, under all three of its names.
"""
OURS, MATCHED_OURS, SERVER = "ours", "ours with AVX2 only", "llama.cpp's server"

_THINGS = ("大海", "森林", "月亮", "火车", "面条", "熊猫", "长城", "雨伞", "钢琴", "茶叶", "足球", "地图")
_FRESH = count(1)
"""Makes every question, and every system prompt that must not be known, one that was never asked before."""

Told = Callable[[str], None]


class Engine(Protocol):
    """A worker process."""

    def ask(self, requests: Sequence[Request], tokens: int) -> Times:
        """Answer the requests at once."""
        ...


class Worker:
    """A worker process and its two pipes."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def ask(self, requests: Sequence[Request], tokens: int) -> Times:
        """Answer the requests at once; raise CompletionError when the process is gone."""
        if self._process.stdin is None or self._process.stdout is None:
            raise CompletionError("the worker has no pipes")
        self._process.stdin.write(msgspec.json.encode(Round(tuple(requests), tokens)) + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise CompletionError("the worker ended in the middle of a round")
        return msgspec.json.decode(line, type=Times)


def measure(report: Told, *, quick: bool = False, model: Path | None = None, threads: int = 2) -> dict[str, Any]:
    """Return ``results.llm``; ``report`` hears of the progress. Blocks for about ten minutes, two when ``quick``."""
    path = model or locate(MODEL)["model"]
    levels = (1, 8, 16) if quick else LEVELS
    repetitions = QUICK_REPETITIONS if quick else REPETITIONS
    matched = os.environ.get(MATCHED, "")
    with ExitStack() as running:
        engines: dict[str, Engine] = {OURS: running.enter_context(worker("ours", path, threads, SLOTS))}
        if matched:
            engines[MATCHED_OURS] = running.enter_context(worker("ours", path, threads, SLOTS, libraries=matched))
        engines[SERVER] = running.enter_context(worker("llama-server", path, threads, SLOTS))
        for name, engine in engines.items():
            report(f"language model: {name} warms up")
            engine.ask(_round(4), ANSWER_TOKENS)
        paces: dict[str, dict[int, list[float]]] = {name: {level: [] for level in levels} for name in engines}
        firsts: dict[str, dict[int, list[float]]] = {name: {level: [] for level in levels} for name in engines}
        cold: dict[str, list[float]] = {name: [] for name in engines}
        for repetition in range(repetitions):
            order = list(engines.items())[:: 1 if repetition % 2 == 0 else -1]
            for level in levels:
                report(f"language model: {level} at once, {repetition + 1} of {repetitions}")
                for name, engine in order:
                    times = engine.ask(_round(level), ANSWER_TOKENS)
                    paces[name][level].append(sum(answer.tokens for answer in times.answers) / times.seconds)
                    firsts[name][level].append(_first_s(times))
            report(f"language model: {SLOTS} at once from cold, {repetition + 1} of {repetitions}")
            for name, engine in order:
                cold[name].append(_first_s(engine.ask(_round(SLOTS, _unknown_system()), COLD_ANSWER_TOKENS)))
        report("language model: follow-up turns")
        follow_up = _follow_up(engines[OURS], repetitions)
    return _results(paces, firsts, cold) | follow_up | {"threads": threads, "repetitions": repetitions}


def pace(path: Path, report: Told = lambda _line: None, *, threads: int = 2, repetitions: int = 3) -> dict[str, Any]:
    """Return how fast a model is with its system prompt kept: seconds to the first token, and a token at 1, 4 and 8 at once."""
    results: dict[str, Any] = {"first_token_s": {}, "token_s": {}, "tokens_per_s": {}}
    with worker("ours", path, threads, 8) as engine:
        engine.ask(_round(1), ANSWER_TOKENS)
        for level in (1, 4, 8):
            report(f"language model: {level} at once")
            rounds = [engine.ask(_round(level), ANSWER_TOKENS) for _ in range(repetitions)]
            each_s = [
                (times.seconds - answer.first_s) / (answer.tokens - 1) for times in rounds for answer in times.answers
            ]
            results["first_token_s"][str(level)] = round(statistics.median(map(_first_s, rounds)), 3)
            results["token_s"][str(level)] = round(statistics.median(each_s), 4)
            results["tokens_per_s"][str(level)] = round(
                statistics.median(sum(answer.tokens for answer in times.answers) / times.seconds for times in rounds), 1
            )
        results["prompt_tokens"] = rounds[0].answers[0].prompt_tokens
    return results


def tables(results: Mapping[str, Any]) -> list[Table]:
    """Return the results for people."""
    rows = [
        [
            name,
            *(f"{pace:.1f}" for pace in found["tokens_per_s"].values()),
            *(f"{first:.2f}" for first in found["first_token_s"].values()),
            f"{found['cold_first_token_s']:.2f}",
        ]
        for name, found in results["engines"].items()
    ]
    levels = list(results["tokens_per_s"])
    columns = [
        "engine",
        *(f"tok/s at {level}" for level in levels),
        *(f"first token s at {level}" for level in levels),
        "from cold",
    ]
    ratios = {
        "over llama.cpp's server, the lower of 8 and 16": "over_llama_server",
        "the same with equal kernels": "over_llama_server_matched",
        "first token of 16 from cold, share of the server's": "cold_first_token_over_llama_server",
        "16 at once over one": "over_single_at_16",
        "follow-up turn's first token, times sooner with kept memory": "follow_up_speedup",
    }
    lines = [[what, None if results[key] is None else f"{results[key]:.2f}"] for what, key in ratios.items()]
    return [table_of("language model", columns, rows), table_of("ratios", ["", "times"], lines)]


@contextmanager
def worker(engine: str, model: Path, threads: int, slots: int, *, libraries: str = "") -> Iterator[Worker]:
    """Yield a process with the model loaded; it is gone afterwards. Raises CompletionError when it does not come up."""
    command = [sys.executable, "-m", "benchmarks.engine_llm_worker", engine, "--model", str(model)]
    command += ["--threads", str(threads), "--slots", str(slots)]
    environment = os.environ | ({"LLAMA_CPP_LIB_PATH": libraries} if libraries else {})
    process = subprocess.Popen(  # noqa: S603 - our own module
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    try:
        if process.stdout is None or not process.stdout.readline():
            raise CompletionError(f"{engine} did not start; run this to see why: {' '.join(command)}")
        yield Worker(process)
    finally:
        process.kill()
        process.communicate()


def _results(
    paces: Mapping[str, Mapping[int, list[float]]],
    firsts: Mapping[str, Mapping[int, list[float]]],
    cold: Mapping[str, list[float]],
) -> dict[str, Any]:
    engines = {
        name: {
            "tokens_per_s": {str(level): round(statistics.median(found), 1) for level, found in paces[name].items()},
            "first_token_s": {str(level): round(statistics.median(found), 3) for level, found in firsts[name].items()},
            "cold_first_token_s": round(statistics.median(cold[name]), 3),
            "runs": {str(level): [round(value, 1) for value in found] for level, found in paces[name].items()},
        }
        for name in paces
    }
    ours: dict[str, Any] = engines[OURS]
    server: dict[str, Any] = engines[SERVER]
    return {
        "tokens_per_s": ours["tokens_per_s"],
        "over_llama_server": _over(ours, server),
        "over_llama_server_matched": _over(engines[MATCHED_OURS], server) if MATCHED_OURS in engines else None,
        "cold_first_token_over_llama_server": round(ours["cold_first_token_s"] / server["cold_first_token_s"], 3),
        "over_single_at_16": round(ours["tokens_per_s"]["16"] / ours["tokens_per_s"]["1"], 2),
        "engines": engines,
    }


def _over(ours: Mapping[str, Any], server: Mapping[str, Any]) -> float:
    """Return the lower of the two ratios at 8 and at 16 at once."""
    ratios: list[float] = [ours["tokens_per_s"][level] / server["tokens_per_s"][level] for level in ("8", "16")]
    return round(min(ratios), 3)


def _follow_up(engine: Engine, repetitions: int) -> dict[str, Any]:
    """Compare a dialogue's second turn with the same turn in front of a model that knows nothing of it."""
    kept_s, unknown_s = [], []
    for _ in range(max(repetitions, 3)):
        device_id = f"device-{next(_FRESH)}"
        system, fresh = _unknown_system(), _unknown_system()
        question, second = _question(), _question()
        (first,) = engine.ask([Request((("system", system), ("user", question)), device_id)], ANSWER_TOKENS).answers
        turn = (("user", question), ("assistant", first.text), ("user", second))
        kept_s.append(_first_s(engine.ask([Request((("system", system), *turn), device_id)], COLD_ANSWER_TOKENS)))
        unknown_s.append(_first_s(engine.ask([Request((("system", fresh), *turn), "other")], COLD_ANSWER_TOKENS)))
    kept, unknown = statistics.median(kept_s), statistics.median(unknown_s)
    return {
        "follow_up_speedup": round(unknown / kept, 2),
        "follow_up_first_token_s": {"kept": round(kept, 3), "unknown": round(unknown, 3)},
    }


def _round(level: int, system: str = SYSTEM) -> list[Request]:
    return [Request((("system", system), ("user", _question()))) for _ in range(level)]


def _question() -> str:
    number = next(_FRESH)
    return f"第{number}个问题：请给我讲一个关于{_THINGS[number % len(_THINGS)]}的小故事，可以吗？"


def _unknown_system() -> str:
    return f"{next(_FRESH)}号。{SYSTEM}"


def _first_s(times: Times) -> float:
    return statistics.median(answer.first_s for answer in times.answers)


def main(arguments: Sequence[str] | None = None) -> None:
    """Show the comparison, or with --pace the pace of one model."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engine_llm", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one repetition")
    parser.add_argument("--model", type=Path, help=f"GGUF file; {MODEL} by default")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pace", action="store_true", help="only how fast this model is with 1, 4 and 8 at once")
    options = parser.parse_args(arguments)
    console = Console()
    if options.pace:
        path = options.model or locate(MODEL)["model"]
        console.print_json(data=pace(path, console.print, threads=options.threads))
        return
    results = measure(console.print, quick=options.quick, model=options.model, threads=options.threads)
    for table in tables(results):
        console.print(table)


if __name__ == "__main__":
    main()
