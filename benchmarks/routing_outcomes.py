"""Asks both real models every checkable request and keeps who was right: the food of the gain model.

``python -m benchmarks.routing_outcomes --edge MODEL --cloud MODEL --out FILE``. First one model answers everything, then the other,
so that they do not share cores. Each answer is one line in ``FILE.part`` the moment it is graded; ``--resume`` goes on from there.
"""

from __future__ import annotations

import asyncio
import hashlib
import random
import shlex
import sys
from collections import defaultdict
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, aclosing, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from itertools import chain, zip_longest
from pathlib import Path
from typing import IO, Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks.report import ROOT, commit_of, table_of
from benchmarks.requests_zh.grading import is_right
from benchmarks.requests_zh.request import Gold, Request, dump_requests, load_requests
from benchmarks.routing_journal import About, Graded, Journal, Line, Side, line_of, lines_of, write_lines
from edge.brain.conversation import SYSTEM_PROMPTS, Conversation, Limits
from models.catalog import load_catalog
from models.engines import Completer
from models.errors import ConfigError, VoiceError
from models.store import locate

EDGE, CLOUD = "qwen2.5-coder-0.5b-instruct-q4_k_m", "qwen2.5-coder-1.5b-instruct-q4_k_m"
EDGE_TOKENS, CLOUD_TOKENS = 96, 256
"""A spoken answer of two sentences, and the product's own limit."""
DOUBT_TOKENS = 8
"""First tokens whose mean log-probability is kept: about what is written before the first word could be spoken."""
SLOTS = 16
BUDGET_MS = 600_000
_CONTEXT_TOKENS = 1024
_CELLS_A_SLOT = 512
"""The longest request with the system prompt has about 150 tokens."""
_INTERRUPTED = 130

Model = Callable[[], AbstractAsyncContextManager[Completer]]
"""Opens a completer for as long as the context lasts."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """One answer with its verdict, to look at."""

    graded: Graded
    text: str
    gold: Gold
    answer: str


def spread(requests: Sequence[Request]) -> list[Request]:
    """Return the checkable requests, one of each group in turn and groups shuffled, so that any beginning of them is mixed."""
    groups: defaultdict[str, list[Request]] = defaultdict(list)
    for request in requests:
        if request.gold is not None:
            groups[request.group].append(request)
    mixed = list(groups.values())
    random.Random(1).shuffle(mixed)
    return [request for request in chain.from_iterable(zip_longest(*mixed)) if request is not None]


async def ask(completer: Completer, request: Request, max_tokens: int) -> tuple[str, int, float | None]:
    """Return the answer, how many tokens it took, and the mean log-probability of the first ones; raise CompletionError."""
    prompt = Conversation(request.id, limits=Limits(max_tokens=max_tokens)).prompt(
        request.id, request.text, budget_ms=BUDGET_MS
    )
    text, tokens = "", 0
    logprobs: list[float] = []
    async with aclosing(completer.complete(prompt)) as deltas:
        async for delta in deltas:
            text += delta.text
            logprobs += delta.logprobs
            tokens = delta.usage.completion_tokens if delta.usage else tokens
    first = logprobs[:DOUBT_TOKENS]
    return text, tokens, round(sum(first) / len(first), 4) if first else None


async def run_side(
    completer: Completer,
    side: Side,
    requests: Iterable[Request],
    *,
    max_tokens: int,
    slots: int,
    keep: Callable[[Request, Graded, str], None],
) -> None:
    """Ask all requests, ``slots`` at a time, and hand each graded answer to ``keep``; cancelling stops the model. Raises CompletionError."""
    waiting = iter(requests)

    async def work() -> None:
        for request in waiting:
            answer, tokens, logprob = await ask(completer, request, max_tokens)
            right = int(is_right(request, answer))
            keep(request, Graded(id=request.id, side=side, right=right, tokens=tokens, logprob=logprob), answer)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(slots):
                group.create_task(work())
    except ExceptionGroup as failures:
        if isinstance(failures.exceptions[0], VoiceError):
            raise failures.exceptions[0] from None
        raise


def about_of(edge: str, cloud: str, edge_tokens: int, cloud_tokens: int, requests: Sequence[Request]) -> About:
    """Return how this run is made; raise CatalogError for a model unknown or not on disk."""
    sums = {}
    for name in (edge, cloud):
        locate(name)
        sums[name] = next(file.sha256 for file in load_catalog().entry(name).files if file.role == "model")
    return About(
        command=shlex.join(["python", "-m", "benchmarks.routing_outcomes", *sys.argv[1:]]),
        commit=commit_of(ROOT),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        edge=edge,
        edge_sha256=sums[edge],
        cloud=cloud,
        cloud_sha256=sums[cloud],
        edge_tokens=edge_tokens,
        cloud_tokens=cloud_tokens,
        requests_sha256=hashlib.sha256(dump_requests(requests)).hexdigest(),
    )


@asynccontextmanager
async def local_model(name: str, *, slots: int, threads: int) -> AsyncGenerator[Completer, None]:
    """Yield the model, warm and with log-probabilities; raises CatalogError when it is not on disk."""
    from models.llama import LlamaCompleter

    completer = LlamaCompleter(
        locate(name)["model"],
        slots=slots,
        threads=threads,
        context_tokens=_CONTEXT_TOKENS,
        cache_tokens=max(_CELLS_A_SLOT * (slots + 1), _CONTEXT_TOKENS),
        max_waiting=slots,
        logprobs=True,
        name=name,
    )
    try:
        await completer.warm(SYSTEM_PROMPTS["zh"])
        yield completer
    finally:
        completer.close()


async def answer_all(
    journal: Journal,
    requests: Sequence[Request],
    about: About,
    models: Mapping[Side, Model],
    *,
    slots: int,
    answers: IO[bytes] | None,
) -> None:
    """Let first the edge's, then the cloud's model answer what the journal does not hold yet; cancelling closes the model."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    sides: tuple[tuple[Side, str, int], ...] = (
        ("edge", about.edge, about.edge_tokens),
        ("cloud", about.cloud, about.cloud_tokens),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        for side, name, max_tokens in sides:
            left = [request for request in requests if (side, request.id) not in journal.graded]
            bar = progress.add_task(f"{side} {name}", total=len(requests), completed=len(requests) - len(left))
            keep = partial(_keep, journal, answers, partial(progress.advance, bar))
            if left:
                async with models[side]() as completer:
                    await run_side(completer, side, left, max_tokens=max_tokens, slots=slots, keep=keep)


def _keep(
    journal: Journal,
    answers: IO[bytes] | None,
    advance: Callable[[], None],
    request: Request,
    graded: Graded,
    text: str,
) -> None:
    journal.add(graded)
    advance()
    if answers is not None:
        answers.write(line_of(Answer(graded=graded, text=request.text, gold=request.gold, answer=text)))


def command(
    *,
    out: Annotated[Path, typer.Option(help="Where to write the outcomes, as JSON lines.")],
    edge: Annotated[str, typer.Option(help="Catalogue name of the edge's model.")] = EDGE,
    cloud: Annotated[str, typer.Option(help="Catalogue name of the cloud's model.")] = CLOUD,
    limit: Annotated[int, typer.Option(min=0, help="Ask so many, of all groups in turn; 0 asks all.")] = 0,
    resume: Annotated[bool, typer.Option(help="Go on with an interrupted run.")] = False,
    answers: Annotated[Path | None, typer.Option(help="Also append the answers there, to look at.")] = None,
    slots: Annotated[int, typer.Option(min=1, max=64, help="Answers written at once.")] = SLOTS,
    threads: Annotated[
        int, typer.Option(min=1, max=64, help="Threads of the engine; no more than cores nobody else uses.")
    ] = 2,
) -> None:
    """Ask both models every checkable request, grade, and write who was right."""
    everything = load_requests()
    requests = spread(everything)[: limit or None]
    about = about_of(edge, cloud, EDGE_TOKENS, CLOUD_TOKENS, everything)
    models: dict[Side, Model] = {
        "edge": partial(local_model, edge, slots=slots, threads=threads),
        "cloud": partial(local_model, cloud, slots=slots, threads=threads),
    }
    with ExitStack() as stack:
        journal = stack.enter_context(Journal(out.with_name(f"{out.name}.part"), about, resume=resume))
        kept = stack.enter_context(_opened(answers)) if answers else None
        try:
            asyncio.run(answer_all(journal, requests, about, models, slots=slots, answers=kept))
        except KeyboardInterrupt:
            print("stopped; go on with the same command and --resume", file=sys.stderr)  # noqa: T201 - a command's output
            raise typer.Exit(_INTERRUPTED) from None
    lines = list(lines_of(requests, journal, about))
    write_lines(out, about, lines)
    journal.path.unlink()
    Console().print(
        table_of(
            str(out), ("class", "requests", "edge right", "cloud right", "both wrong", "edge only"), rows_of(lines)
        )
    )


def _opened(path: Path) -> IO[bytes]:
    try:
        return path.open("ab")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error


def rows_of(lines: Sequence[Line]) -> list[tuple[object, ...]]:
    """Return per class and for all how many there were and the percentages of each outcome."""
    kinds = sorted({line.kind for line in lines})
    parts = [(kind, [line for line in lines if line.kind == kind]) for kind in kinds]
    return [_row(name, part) for name, part in [*parts, ("all", list(lines))] if part]


def _row(name: str, lines: Sequence[Line]) -> tuple[object, ...]:
    def share(counts: Iterable[bool | int]) -> str:
        return f"{100 * sum(counts) / len(lines):.1f} %"

    return (
        name,
        len(lines),
        share(line.edge for line in lines),
        share(line.cloud for line in lines),
        share(not (line.edge or line.cloud) for line in lines),
        share(line.edge > line.cloud for line in lines),
    )


def main() -> int:
    """Run the command: leaves with its own status by SystemExit, returns 1 when it failed."""
    app = typer.Typer(add_completion=False)
    app.command()(command)
    try:
        app(prog_name="python -m benchmarks.routing_outcomes")
    except VoiceError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - a command's output
    return 1


if __name__ == "__main__":
    sys.exit(main())
