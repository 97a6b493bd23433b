"""What each engine does by itself on this machine, one after another, each in a process of its own, beside what was promised."""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.report import ROOT, report_of, show, write_json
from benchmarks.targets import Target, judged, table_of_targets
from models.errors import ConfigError

PARTS = ("vad", "asr", "llm", "audio")
"""``benchmarks.engine_NAME`` has ``measure`` and ``tables`` for each."""

TARGETS = (
    Target(key="vad.batched_over_single", at="least", limit=2.5, what="voice detection: batched over single"),
    Target(key="vad.frame_ms.p95", at="most", limit=50, what="voice detection: 150 devices, p95 ms"),
    Target(
        key="llm.over_llama_server", at="least", limit=1.0, what="language model: over llama.cpp's server, 8 and 16"
    ),
    Target(key="llm.over_single_at_16", at="least", limit=2.0, what="language model: 16 at once over one"),
    Target(
        key="llm.cold_first_token_over_llama_server",
        at="most",
        limit=0.3,
        what="language model: 16 from cold, first token over llama.cpp's server",
    ),
    Target(key="llm.follow_up_speedup", at="least", limit=5.0, what="language model: follow-up sooner, kept over not"),
    Target(
        key="audio.x_real_time_per_core", at="least", limit=400, what="sound through decoder and voice detection, x"
    ),
)


def command(
    *,
    json: Annotated[Path | None, typer.Option(help="Write the report there.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Fewer repetitions: a look, not a measurement.")] = False,
    only: Annotated[str, typer.Option(help="Only these, e.g. vad,asr.")] = ",".join(PARTS),
) -> None:
    """Measure the engines with real models (or twins with random weights, which cost the same)."""
    console, started_at = Console(), datetime.now(UTC)
    names = parts_of(only)
    results: dict[str, Any] = {}
    errors: list[str] = []
    for name in names:
        try:
            results[name] = measured(name, quick=quick)
        except ConfigError as error:
            errors.append(str(error))
    tables = [table for name in results for table in tables_of(name, results[name])]
    targets = [target for target in TARGETS if target.key.partition(".")[0] in names]
    results["targets"], results["quick"] = judged(targets, results), quick
    line = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
    report = report_of("engines", line, engines="real", results=results, started_at=started_at, errors=errors)
    show(console, report, [*tables, table_of_targets(results["targets"])])
    if json is not None:
        write_json(report, json)
    if errors:
        raise typer.Exit(1)


def parts_of(only: str) -> tuple[str, ...]:
    """Return the parts named, in our order; raise ConfigError for an unknown one."""
    wanted = {name.strip() for name in only.split(",") if name.strip()}
    if unknown := sorted(wanted - set(PARTS)):
        raise ConfigError(f"no engine is called {unknown[0]!r}: choose from {', '.join(PARTS)}")
    return tuple(name for name in PARTS if name in wanted)


def measured(name: str, *, quick: bool) -> dict[str, Any]:
    """Return what ``benchmarks.engine_NAME`` measures, in a process of its own; raise ConfigError when it fails. Blocks."""
    with tempfile.TemporaryDirectory(prefix="xiaozhi-engines-") as folder:
        path = Path(folder) / "results.json"
        command = [sys.executable, "-m", "benchmarks.engine_part", name, str(path), *(["quick"] if quick else [])]
        done = subprocess.run(command, cwd=ROOT, check=False)  # noqa: S603 - our own program
        if done.returncode or not path.exists():
            raise ConfigError(f"{name} was not measured: its process ended with status {done.returncode}, see above")
        results: dict[str, Any] = msgspec.json.decode(path.read_bytes())
    return results


def tables_of(name: str, results: Mapping[str, Any]) -> list[Table]:
    """Return the part's own tables for people."""
    tables: list[Table] = import_module(f"benchmarks.engine_{name}").tables(results)
    return tables
