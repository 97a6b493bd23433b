"""Whether the edge may speak first: how often its first clause turns the cloud's answer wrong, contradicts it, or mends it.

``python -m benchmarks.routing_first_clause [--limit N] [--json FILE]``. Both real models; the edge drafts a clause for each checkable
request as `coordinator.first_clause` does, the cloud goes on from it, and the whole is graded beside the cloud's answer alone.
"""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table as RichTable

from benchmarks.report import percentile, report_of, show, table_of, write_json
from benchmarks.requests_zh.grading import is_right
from benchmarks.requests_zh.request import Request, load_requests
from benchmarks.routing_outcomes import BUDGET_MS, CLOUD, CLOUD_TOKENS, EDGE, SLOTS, local_model, spread
from coordinator.continuation import continued
from coordinator.first_clause import draft
from edge.brain.conversation import Conversation, Limits
from models.engines import Completer
from models.errors import VoiceError
from models.prompts import Prompt


@dataclass(frozen=True, slots=True)
class Tried:
    """One request both ways."""

    clause: str
    """"" when none was safe or in time."""
    draft_ms: float
    alone: bool
    """Whether the cloud by itself was right."""
    begun: bool
    """Whether the answer that the edge began was."""


def command(
    *,
    limit: Annotated[int, typer.Option(min=1, help="Ask so many, of all groups in turn.")] = 300,
    threads: Annotated[int, typer.Option(min=1, max=64, help="Threads of each engine.")] = 2,
    json: Annotated[Path | None, typer.Option(help="Write the report there.")] = None,
) -> None:
    """Let the edge begin answers that the cloud ends, and grade them beside the cloud's own."""
    started_at = datetime.now(UTC)
    tried = asyncio.run(try_all(spread(load_requests())[:limit], threads))
    line = shlex.join(["python", "-m", "benchmarks.routing_first_clause", *sys.argv[1:]])
    results = results_of(tried)
    report = report_of("first-clause", line, engines="real", results=results, started_at=started_at)
    show(Console(), report, tables(results))
    if json is not None:
        write_json(report, json)


async def try_all(requests: Sequence[Request], threads: int) -> list[Tried]:
    """Return what came of each request; the two models do not work at the same time."""
    with Progress(console=Console(stderr=True)) as progress:
        async with local_model(EDGE, slots=1, threads=threads) as edge:
            drafts = [await drafted(edge, request) for request in progress.track(requests, description="drafts")]
        bar = progress.add_task("answers", total=len(requests))
        async with local_model(CLOUD, slots=SLOTS, threads=threads) as cloud:
            room = asyncio.Semaphore(SLOTS)

            async def one(request: Request, clause: str, draft_ms: float) -> Tried:
                async with room:
                    alone = await answer(cloud, prompt_of(request))
                    begun = clause + await answer(cloud, continued(prompt_of(request), clause, BUDGET_MS / 1000))
                progress.advance(bar)
                return Tried(clause, draft_ms, is_right(request, alone), is_right(request, begun if clause else alone))

            async with asyncio.TaskGroup() as tasks:
                running = [
                    tasks.create_task(one(request, *found)) for request, found in zip(requests, drafts, strict=True)
                ]
        return [task.result() for task in running]


async def drafted(edge: Completer, request: Request) -> tuple[str, float]:
    """Return the edge's first clause and how many milliseconds it took."""
    began_s = asyncio.get_running_loop().time()
    clause = await draft(edge, prompt_of(request))
    return clause, (asyncio.get_running_loop().time() - began_s) * 1000


async def answer(completer: Completer, prompt: Prompt) -> str:
    """Return the whole answer; raise CompletionError."""
    async with aclosing(completer.complete(prompt)) as deltas:
        return "".join([delta.text async for delta in deltas])


def prompt_of(request: Request) -> Prompt:
    """Return the prompt a device's question becomes."""
    dialogue = Conversation(request.id, limits=Limits(max_tokens=CLOUD_TOKENS))
    return dialogue.prompt(request.id, request.text, budget_ms=BUDGET_MS)


def results_of(tried: Sequence[Tried]) -> dict[str, Any]:
    """Return the shares, of the requests for which the edge spoke first; pure."""
    spoken = [one for one in tried if one.clause]
    count = len(spoken) or 1
    return {
        "requests": len(tried),
        "spoke_first": round(len(spoken) / len(tried), 4),
        "alone_right": round(sum(one.alone for one in spoken) / count, 4),
        "begun_right": round(sum(one.begun for one in spoken) / count, 4),
        "turned_wrong": round(sum(one.alone and not one.begun for one in spoken) / count, 4),
        "turned_right": round(sum(one.begun and not one.alone for one in spoken) / count, 4),
        "draft_ms": {
            "p50": percentile([one.draft_ms for one in spoken], 50),
            "p95": percentile([one.draft_ms for one in spoken], 95),
        },
        "clauses": sorted({one.clause for one in spoken})[:20],
    }


def tables(results: dict[str, Any]) -> list[RichTable]:
    """Return the results as a table."""
    rows = [
        ("edge spoke first", f"{100 * results['spoke_first']:.1f} % of {results['requests']}"),
        ("cloud alone right", f"{100 * results['alone_right']:.1f} %"),
        ("begun by the edge, right", f"{100 * results['begun_right']:.1f} %"),
        ("turned wrong", f"{100 * results['turned_wrong']:.1f} %"),
        ("turned right", f"{100 * results['turned_right']:.1f} %"),
        ("first clause after, p50 / p95", _span(results["draft_ms"])),
    ]
    return [table_of("the edge speaks first, of requests for which it did", ("what", "measured"), rows)]


def _span(found: dict[str, float | None]) -> str:
    return " / ".join("-" if value is None else f"{value:.0f}" for value in found.values()) + " ms"


def main() -> int:
    """Run the command: leaves with its own status by SystemExit, returns 1 when it failed."""
    app = typer.Typer(add_completion=False)
    app.command()(command)
    try:
        app(prog_name="python -m benchmarks.routing_first_clause")
    except VoiceError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - a command's output
    return 1


if __name__ == "__main__":
    sys.exit(main())
