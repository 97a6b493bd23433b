"""The one-machine stand-in for a vLLM pool: llama.cpp's own OpenAI-compatible server in front of a small real model.

python -m manifests.llama_server --model FILE.gguf --alias NAME --port PORT
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path


def main() -> None:
    """Serve until SIGTERM or SIGINT."""
    options = _options()
    if not options.model.is_file():
        sys.exit(f"{options.model} does not exist: give --model a GGUF file, see xiaozhi-fleet models list")
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = str(options.model)
    params.model_alias = {options.alias}
    params.hostnames = ["127.0.0.1"]
    params.port = options.port
    params.n_ctx = options.context_tokens * options.slots
    params.n_parallel = options.slots
    for cpu in (params.cpuparams, params.cpuparams_batch):
        cpu.n_threads = options.threads
        cpu.poll = 0  # threads that spin between steps starve the edge's engines on the same cores
    params.endpoint_metrics = True
    params.endpoint_slots = True
    params.ui = False
    params.cache_ram_mib = 0
    try:
        server = xllamacpp.Server(params)
    except RuntimeError as error:
        sys.exit(f"llama.cpp cannot serve {options.model} on port {options.port}: {error}")
    ended = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ended.set())
    ended.wait()
    del server


def _options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m manifests.llama_server", description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, required=True, help="GGUF file")
    parser.add_argument("--alias", required=True, help="name under which the API knows the model")
    parser.add_argument("--port", type=int, required=True, help="loopback port to listen on")
    parser.add_argument("--threads", type=int, default=1, help="more only on cores that nobody else uses")
    parser.add_argument("--slots", type=int, default=2, help="answers at once")
    parser.add_argument("--context-tokens", type=int, default=2048, help="context of one answer")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
