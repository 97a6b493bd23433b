"""Measurements into percentiles, a table for people and JSON for machines, with the machine and the commit in it."""

from __future__ import annotations

import math
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
from rich.console import Console
from rich.table import Table

from models.errors import ConfigError

ROOT = Path(__file__).parents[1]
GIT_TIMEOUT_S = 10.0
_GIB = 1 << 30
_CPUINFO = Path("/proc/cpuinfo")

Engines = Literal["real", "scripted"]


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """Where something was measured."""

    cpu: str
    cores: int
    """That this process may use."""
    memory_gib: float
    python: str
    os: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One run of one benchmark; real and scripted engines never share one."""

    name: str
    command: str
    machine: Machine
    commit: str
    """Git's short name of the commit, "+dirty" when files differ from it, "" outside a checkout."""
    started_at: str
    """ISO 8601, UTC."""
    engines: Engines
    results: dict[str, Any]
    errors: tuple[str, ...] = ()


def percentile(values: Sequence[float], percent: float) -> float | None:
    """Return the nearest-rank percentile for ``percent`` in (0, 100]: the smallest value that as many lie at or below.

    Always a value that was measured, never one in between; None when there is none. With few values p95 is simply the largest.
    """
    if not values:
        return None
    rank = math.ceil(percent / 100 * len(values))
    return sorted(values)[max(rank, 1) - 1]


def summary(values: Sequence[float]) -> dict[str, Any]:
    """Return p50, p95, the largest, rounded to 0.1, and how many there were."""
    largest = max(values) if values else None
    marks = {"p50": percentile(values, 50), "p95": percentile(values, 95), "max": largest}
    return {name: None if value is None else round(value, 1) for name, value in marks.items()} | {"n": len(values)}


def report_of(
    name: str,
    command: str,
    *,
    engines: Engines,
    results: Mapping[str, Any],
    started_at: datetime,
    errors: Sequence[str] = (),
) -> Report:
    """Return the results with machine and commit; runs git."""
    return Report(
        name=name,
        command=command,
        machine=this_machine(),
        commit=commit_of(ROOT),
        started_at=started_at.astimezone(UTC).isoformat(timespec="seconds"),
        engines=engines,
        results=dict(results),
        errors=tuple(errors),
    )


def write_json(report: Report, path: Path) -> None:
    """Write the report; raise ConfigError naming the file when it cannot be written."""
    try:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(report), indent=2) + b"\n")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}") from error


def table_of(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    """Return a table for people: text to the left, numbers to the right, "-" for what there is not."""
    table = Table(title=title, title_justify="left", min_width=len(title))
    for index, column in enumerate(columns):
        is_text = any(isinstance(row[index], str) for row in rows)
        table.add_column(column, justify="left" if is_text else "right")
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    return table


def show(console: Console, report: Report, tables: Sequence[Table]) -> None:
    """Print the tables, where and on what they were measured, and every error."""
    for table in tables:
        console.print(table)
    machine = report.machine
    where = f"{machine.cpu}, {machine.cores} cores, {machine.memory_gib:g} GiB, Python {machine.python}, {machine.os}"
    console.print(f"{where}; commit {report.commit or 'unknown'}; {report.engines} engines; {report.started_at}")
    for error in report.errors:
        console.print(f"error: {error}", style="red", markup=False)


def this_machine() -> Machine:
    """Return what this process runs on."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Machine(
        cpu=cpu_name(_CPUINFO.read_text() if _CPUINFO.exists() else ""),
        cores=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_gib=round(memory_bytes / _GIB, 1),
        python=platform.python_version(),
        os=f"{platform.system()} {platform.release()}",
    )


def cpu_name(cpuinfo: str) -> str:
    """Return the processor's name from the text of /proc/cpuinfo, the architecture when it has none."""
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in {"model name", "Model"} and value.strip():
            return value.strip()
    return platform.processor() or platform.machine()


def commit_of(root: Path) -> str:
    """Return the short commit, "+dirty" behind it when files differ, "" where git knows nothing."""
    commit = _git(root, "rev-parse", "--short=12", "HEAD")
    if not commit:
        return ""
    return commit + ("+dirty" if _git(root, "status", "--porcelain") else "")


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(  # noqa: S603 - fixed program and arguments
            ("git", "-C", str(root), *arguments),  # noqa: S607 - git from the PATH
            capture_output=True,
            text=True,
            timeout=GIT_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.0f}" if isinstance(value, float) else str(value)
