"""Start a real vLLM on a CPU, out of its own environment, and read what its ``/metrics`` say."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from manifests.processes import STOP_S, Children, answers, free_ports
from manifests.servers import Report
from manifests.vllm_environment import Environment
from models.errors import CloudUnreachableError

READY_S = 400.0
"""Three processes import vLLM one after the other: a minute in all on two idle cores, two minutes and more beside others."""
CONTEXT_TOKENS = 2048
SLOTS = 8
"""Answers at once; more only make each slower on two cores."""
_KV_GIB = 1
"""87,296 tokens of the 0.5B model."""
_SHARED = "/dev/shm/"  # noqa: S108  # where Linux has it
_BLOCK_TOKENS = 32
"""The smallest block its CPU kernels like. A prefix is reused in whole blocks, and the default of 128 is longer than most dialogues of a device."""


@dataclass(frozen=True, slots=True)
class Readings:
    """What one look at ``/metrics`` says of a server."""

    running: int = 0
    """Requests the scheduler runs."""
    waiting: int = 0
    prefix_hits_tokens: int = 0
    """Tokens of prompts that were found in the cache, since the start."""
    prefix_queries_tokens: int = 0
    """Tokens of prompts that were looked for, since the start."""


@asynccontextmanager
async def vllm(group: Children, environment: Environment, name: str, report: Report) -> AsyncGenerator[str, None]:
    """Start vLLM on a free loopback port, serving the environment's model as ``name``, and give its base address.

    Left, it is asked to end and given time to clear its shared memory away; what still stands then ends with its group.
    """
    (port,) = free_ports(1)
    child = await group.start("vllm", command(environment, name, port), env=variables(environment, group.directory))
    url = f"http://127.0.0.1:{port}"
    try:
        took_s = await group.wait_ready(child, lambda: answers(f"{url}/health"), READY_S)
        report(f"vllm ({environment.model.name}) ready after {took_s:.1f} s")
        yield url
    finally:
        place = group.running.index(child)
        group.running[place] = replace(child, remains=shared_memory(child.pid))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGTERM)
        await _ended(child.pid)


def shared_memory(group_id: int) -> tuple[Path, ...]:
    """Return the files of shared memory that processes of a group have open; they stay when the group is killed."""
    found: set[Path] = set()
    for process in _members(group_id):
        with contextlib.suppress(OSError):
            found |= _mapped((process / "maps").read_text(errors="replace"))
    return tuple(sorted(found))


async def _ended(group_id: int) -> None:
    """Wait until no process of a group lives, Python's tracker of shared memory among them, or ``STOP_S`` are over."""
    deadline_s = time.monotonic() + STOP_S
    while time.monotonic() < deadline_s:
        if not any(_members(group_id)):
            return
        await asyncio.sleep(0.05)


def _members(group_id: int) -> Iterator[Path]:
    """Yield the folders in /proc of a group's processes; those that are dead and not waited for are none."""
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            state, _parent, group = (process / "stat").read_text(errors="replace").rpartition(")")[2].split()[:3]
            if int(group) == group_id and state != "Z":
                yield process


def _mapped(maps: str) -> set[Path]:
    """Return what lies in /dev/shm of the files in a process' memory map; pure."""
    names = (line.split(maxsplit=5)[-1] for line in maps.splitlines())
    return {Path(name) for name in names if name.startswith(_SHARED) and not name.endswith("(deleted)")}


def command(environment: Environment, name: str, port: int) -> list[str]:
    """Return the command line; pure."""
    return [
        *(
            str(environment.python),
            "-m",
            "vllm.entrypoints.openai.api_server",
        ),  # its program ``vllm`` fails as packaged
        *("--model", str(environment.model), "--served-model-name", name, "--host", "127.0.0.1", "--port", str(port)),
        *("--max-model-len", str(CONTEXT_TOKENS), "--max-num-seqs", str(SLOTS), "--block-size", str(_BLOCK_TOKENS)),
        *("--dtype", "bfloat16", "--enforce-eager"),
        *("--override-generation-config", '{"temperature": 0}'),  # else it is 1, and a model this small says anything
    ]


def variables(environment: Environment, directory: Path) -> Mapping[str, str]:
    """Return its environment variables: nothing is fetched or sent, and what it leaves behind lies in ``directory``; pure."""
    return {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "VLLM_HOST_IP": "127.0.0.1",
        "VLLM_CPU_KVCACHE_SPACE": str(_KV_GIB),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",  # else it takes one core for itself, whoever else works there
        "OMP_NUM_THREADS": str(
            max(1, (os.cpu_count() or 1) - 1)
        ),  # threads that wait for each other need cores of their own
        "VLLM_CACHE_ROOT": str(environment.directory / "cache"),
        "TMPDIR": str(directory),
    }


async def readings(client: httpx.AsyncClient, url: str) -> Readings:
    """Return what the server's counters say now; raise CloudUnreachableError when it does not tell."""
    try:
        response = await client.get(f"{url}/metrics")
        response.raise_for_status()
    except httpx.HTTPError as error:
        raise CloudUnreachableError(f"vLLM's /metrics: {type(error).__name__}") from error
    return parse(response.text)


def parse(text: str) -> Readings:
    """Return the readings in Prometheus' text; pure; a counter that is not there reads 0."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            found[sample.name] = found.get(sample.name, 0.0) + sample.value
    return Readings(
        running=round(found.get("vllm:num_requests_running", 0)),
        waiting=round(found.get("vllm:num_requests_waiting", 0)),
        prefix_hits_tokens=round(found.get("vllm:prefix_cache_hits_total", 0)),
        prefix_queries_tokens=round(found.get("vllm:prefix_cache_queries_total", 0)),
    )
