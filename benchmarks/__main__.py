"""The benchmarks' front door: ``python -m benchmarks NAME [options]``; each is imported only when asked for."""

from __future__ import annotations

import logging
import sys
from importlib import import_module

import structlog
import typer

from models.errors import VoiceError

NAMES = {
    "bus": "the road from an edge to a worker's upstream and back: requests, first token, cancel, over NATS",
    "cache": "look-ups in memory, Redis and S3, spoken answers from the cache, a herd, and broken servers",
    "capacity": "how many devices one edge node carries: first audio, gaps, errors, cores and memory under load",
    "endpoint": "when a sentence is over: false cut-offs and waits, by silence and by a model",
    "engines": "each engine by itself: voice detection, recognition, language model, sound",
    "opus": "what each Opus bitrate and complexity costs and sounds like",
    "routing": "which prompts deserve the cloud: random, length, complexity, expected gain and the oracle on recorded outcomes",
    "scaling": "how the number of replicas follows a pool's day",
    "soak": "garbage, thousands of turns and barge-ins at random moments: crashes, leaks, stuck sessions",
    "turns": "spoken turns from the device's side: time to first audio on the edge, from the cloud and from the cache",
}
"""Name of the module in this package, and what it measures."""

USAGE_STATUS = 2


def main(arguments: list[str]) -> int:
    """Run the benchmark that the first argument names and return the exit status."""
    if not arguments or arguments[0] in {"-h", "--help"}:
        print(usage())  # noqa: T201 - a command's output
        return 0 if arguments else USAGE_STATUS
    name, *options = arguments
    if name not in NAMES:
        print(f"no benchmark is called {name!r}\n\n{usage()}", file=sys.stderr)  # noqa: T201 - a command's output
        return USAGE_STATUS
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR)
    )  # the report speaks for itself
    app = typer.Typer(add_completion=False)
    try:
        app.command(name)(import_module(f"benchmarks.{name}").command)
        app(options, prog_name=f"python -m benchmarks {name}", standalone_mode=True)
    except VoiceError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - a command's output
        return 1
    return 0


def usage() -> str:
    """Return the help text."""
    width = max(map(len, NAMES))
    listing = "\n".join(f"  {name:<{width}}  {what}" for name, what in NAMES.items())
    return f"usage: python -m benchmarks NAME [--json FILE] [--help]\n\n{listing}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
