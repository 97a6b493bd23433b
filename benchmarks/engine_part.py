"""One engine in a process of its own, so that neither threads nor memory of one are another's.

``python -m benchmarks.engine_part NAME FILE [quick]``
"""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import msgspec

from models.errors import VoiceError


def main(arguments: list[str]) -> int:
    """Measure the part, tell progress on standard output, write its results as JSON; return the exit status."""
    name, path, *rest = arguments

    def tell(line: str) -> None:
        print(line, flush=True)  # noqa: T201 - progress for people

    try:
        results = import_module(f"benchmarks.engine_{name}").measure(tell, quick=bool(rest))
    except VoiceError as error:
        print(f"{name}: {error}", file=sys.stderr)  # noqa: T201 - the one line
        return 1
    Path(path).write_bytes(msgspec.json.encode(results))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
