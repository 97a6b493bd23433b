"""``python -m benchmarks.requests_zh [--out FILE]`` writes the requests and counts them."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.report import table_of
from benchmarks.requests_zh.generate import generate
from benchmarks.requests_zh.request import FILE, dump_requests

HERE = Path(__file__).parent


def write(
    out: Annotated[Path, typer.Option(help="Where to write the requests, as JSON lines.")] = HERE / FILE,
) -> None:
    """Write the Chinese requests; the same ones every time."""
    requests = generate()
    out.write_bytes(dump_requests(requests))
    kinds = Counter(request.kind for request in requests)
    checked = Counter(request.kind for request in requests if request.gold is not None)
    rows = [
        (str(kind), count, checked[kind], len({each.group for each in requests if each.kind == kind}))
        for kind, count in kinds.items()
    ]
    rows.append(("all", len(requests), sum(checked.values()), len({each.group for each in requests})))
    Console().print(table_of(str(out), ("class", "requests", "checkable", "groups"), rows))


if __name__ == "__main__":
    typer.run(write)
