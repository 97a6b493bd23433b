from __future__ import annotations

import itertools
import os
import sys
from multiprocessing.shared_memory import SharedMemory
from pathlib import Path

import httpx
import pytest

from manifests import vllm_server
from manifests.processes import children
from manifests.vllm_environment import Environment
from manifests.vllm_server import Readings, _members, command, parse, readings, shared_memory, variables, vllm
from models.errors import CloudUnreachableError
from tests.real_time import run

METRICS = """\
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="qwen-14b"} 2.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="qwen-14b"} 1.0
# TYPE vllm:num_requests_waiting_by_reason gauge
vllm:num_requests_waiting_by_reason{engine="0",model_name="qwen-14b",reason="capacity"} 7.0
# TYPE vllm:prefix_cache_queries_total counter
vllm:prefix_cache_queries_total{engine="0",model_name="qwen-14b"} 2344.0
# TYPE vllm:prefix_cache_queries_created gauge
vllm:prefix_cache_queries_created{engine="0",model_name="qwen-14b"} 1.795431142001136e+09
# TYPE vllm:prefix_cache_hits_total counter
vllm:prefix_cache_hits_total{engine="0",model_name="qwen-14b"} 96.0
"""
PLACE = Environment(Path("/somewhere"))


def test_counters_are_read_by_name() -> None:
    wanted = Readings(running=2, waiting=1, prefix_hits_tokens=96, prefix_queries_tokens=2344)
    assert parse(METRICS) == wanted


def test_counters_that_are_not_there_read_nothing() -> None:
    assert parse("") == Readings()


@pytest.mark.parametrize("answer", [httpx.Response(500), httpx.Response(404), None])
def test_a_server_that_does_not_tell_is_one_of_our_errors(answer: httpx.Response | None) -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        if answer is None:
            raise httpx.ConnectError("no", request=request)
        return answer

    async def scenario() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(handle)) as client:
            with pytest.raises(CloudUnreachableError, match="/metrics"):
                await readings(client, "http://vllm")

    run(scenario())


def test_the_command_serves_the_model_under_the_pools_name_on_loopback_only() -> None:
    words = command(PLACE, "qwen-14b", 2020)
    pairs = dict(itertools.pairwise(words))
    assert words[0] == "/somewhere/packages/bin/python"
    assert pairs["--model"] == str(PLACE.model)
    assert (pairs["--served-model-name"], pairs["--host"], pairs["--port"]) == ("qwen-14b", "127.0.0.1", "2020")


def test_nothing_is_fetched_or_sent_and_remains_lie_with_us() -> None:
    told = variables(PLACE, Path("/run-dir"))
    assert (told["HF_HUB_OFFLINE"], told["VLLM_NO_USAGE_STATS"], told["TMPDIR"]) == ("1", "1", "/run-dir")
    assert int(told["OMP_NUM_THREADS"]) >= 1


@pytest.mark.skipif(sys.platform != "linux", reason="/proc and /dev/shm")
def test_shared_memory_of_a_group_is_found() -> None:
    memory = SharedMemory(create=True, size=4096)
    try:
        path = Path("/dev/shm") / memory.name
        assert path in shared_memory(os.getpgid(0))
        assert shared_memory(2**22 + 1) == ()
    finally:
        memory.close()
        memory.unlink()
    assert path not in shared_memory(os.getpgid(0))


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_leaving_waits_until_the_whole_group_has_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = "import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)']); time.sleep(60)"

    async def ready(_url: str) -> bool:
        return True

    async def scenario() -> None:
        async with children(tmp_path) as group:
            async with vllm(group, PLACE, "qwen-14b", lambda _line: None) as url:
                assert url.startswith("http://127.0.0.1:")
                (child,) = group.running
            assert not list(_members(child.pid))

    monkeypatch.setattr(vllm_server, "command", lambda *_: [sys.executable, "-c", script])
    monkeypatch.setattr(vllm_server, "answers", ready)
    run(scenario())
