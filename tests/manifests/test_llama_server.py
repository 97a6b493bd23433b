from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from manifests import servers
from manifests.llama_server import _options
from manifests.processes import children
from models.store import locate
from tests.real_time import run

MODEL = "qwen2.5-coder-0.5b-instruct-q4_k_m"
NEEDED = ["--model", "m.gguf", "--alias", "m", "--port", "8000"]


def test_arguments_have_defaults() -> None:
    options = _options(NEEDED)
    assert (options.model, options.alias, options.port) == (Path("m.gguf"), "m", 8000)
    assert (options.threads, options.slots, options.context_tokens) == (1, 2, 2048)


@pytest.mark.parametrize("missing", [0, 2, 4])
def test_a_missing_argument_is_refused(missing: int, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        _options([*NEEDED[:missing], *NEEDED[missing + 2 :]])
    assert NEEDED[missing] in capsys.readouterr().err


def test_a_missing_model_is_one_line(tmp_path: Path) -> None:
    arguments = ["--model", str(tmp_path / "m.gguf"), "--alias", "m", "--port", "1"]
    command = [sys.executable, "-m", "manifests.llama_server", *arguments]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{tmp_path / 'm.gguf'} does not exist")
    assert done.stderr.count("\n") == 1


async def metric(client: httpx.AsyncClient, name: str) -> float:
    text = (await client.get("/metrics")).text
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"llamacpp:{name} "))


@pytest.mark.engine
def test_it_streams_and_forgets_a_client_that_left(tmp_path: Path) -> None:
    """One request is read to its end, another is left in the middle."""

    def ask(max_tokens: int) -> dict[str, object]:
        messages = [{"role": "user", "content": "Count from one to one hundred in words."}]
        return {"model": MODEL, "stream": True, "max_tokens": max_tokens, "messages": messages}

    async def scenario() -> None:
        async with children(tmp_path) as group:
            url = await servers.llama(group, locate(MODEL)["model"], MODEL, lambda _line: None)
            async with httpx.AsyncClient(base_url=url, timeout=120, trust_env=False) as client:
                async with client.stream("POST", "/v1/chat/completions", json=ask(3)) as answer:
                    lines = [line async for line in answer.aiter_lines() if line]
                assert lines[-1] == "data: [DONE]"
                assert len(lines) >= 4
                async with client.stream("POST", "/v1/chat/completions", json=ask(1000)) as answer:
                    await anext(answer.aiter_lines())
                    assert await metric(client, "requests_processing") == 1
                async with asyncio.timeout(30):
                    while await metric(client, "requests_processing"):  # noqa: ASYNC110  # another process: nothing to wait on
                        await asyncio.sleep(0.05)
                assert await metric(client, "tokens_predicted_total") < 500

    run(scenario(), timeout_s=280)
