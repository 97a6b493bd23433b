from __future__ import annotations

import asyncio
import os
import re
import shlex
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
import pytest
import typer
from typer.testing import CliRunner, Result

import manifests.demo
import xiaozhi_fleet
from models.errors import CatalogError, ConfigError

ROOT = Path(__file__).parents[1]


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(xiaozhi_fleet.app, list(arguments))


def commands(group: click.Group | None = None, *path: str) -> list[tuple[str, ...]]:
    found: list[tuple[str, ...]] = []
    tree: Any = group or typer.main.get_command(xiaozhi_fleet.app)
    for name, command in tree.commands.items():
        found += commands(command, *path, name) if hasattr(command, "commands") else [(*path, name)]
    return found


def stand_in(monkeypatch: pytest.MonkeyPatch, name: str, outcome: object) -> list[tuple[Any, ...]]:
    """Put a coroutine in place of a job; return what it was called with."""
    calls: list[tuple[Any, ...]] = []

    async def job(*arguments: Any, **named: Any) -> object:
        calls.append((*arguments, *named.values()))
        await asyncio.sleep(0)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    monkeypatch.setattr(manifests.demo, name, job)
    return calls


def test_every_command_is_known() -> None:
    assert set(commands()) >= {
        ("say",),
        ("demo",),
        ("up",),
        ("version",),
        ("models", "list"),
        ("models", "pull"),
        ("models", "verify"),
        ("explain",),
        ("replay",),
        ("policy", "show"),
        ("policy", "check"),
        ("policy", "set"),
        ("policy", "history"),
        ("policy", "rollback"),
        ("policy", "arms"),
        ("keys", "new"),
        ("keys", "list"),
        ("keys", "revoke"),
    }


@pytest.mark.parametrize("command", commands(), ids=" ".join)
def test_help_of_every_command_shows_examples_and_each_of_them_parses(command: tuple[str, ...]) -> None:
    shown = invoke(*command, "--help")
    assert shown.exit_code == 0
    leaf: Any = typer.main.get_command(xiaozhi_fleet.app)
    for name in command:
        leaf = leaf.commands[name]
    called = " ".join(("xiaozhi-fleet", *command))
    examples = [line.partition(called)[2] for line in shown.output.splitlines() if f"  {called}" in line]
    assert examples
    for example in examples:
        with leaf.make_context(called, shlex.split(re.split(r"\s+[(|>]", example)[0])):
            pass


@pytest.mark.parametrize("group", [(), ("models",), ("policy",), ("keys",)])
def test_a_group_alone_lists_its_commands(group: tuple[str, ...]) -> None:
    lines = invoke(*group).output.splitlines()
    for command in commands():
        if command[:-1] == group:
            assert any(line.split()[:1] == [command[-1]] for line in lines)


def test_no_summary_of_the_front_door_is_cut_off() -> None:
    assert not [line for line in invoke().output.splitlines() if line.endswith("...") and line.startswith("  ")]


def test_help_names_the_first_steps() -> None:
    shown = " ".join(invoke("--help").output.split())
    assert "xiaozhi-fleet models pull --set starter" in shown
    assert "xiaozhi-fleet demo" in shown
    assert "python -m edge" in shown


def test_version_is_the_installed_one() -> None:
    shown = invoke("version")
    assert (shown.exit_code, shown.output.strip()) == (0, version("xiaozhi-fleet"))


@pytest.mark.parametrize("arguments", [("nonsense",), ("demo", "--nonsense"), ("up", "--engines", "fake"), ("say",)])
def test_wrong_usage_is_refused_with_status_2(arguments: tuple[str, ...]) -> None:
    shown = invoke(*arguments)
    assert shown.exit_code == 2
    assert "Traceback" not in shown.output


@pytest.mark.parametrize(("good", "status"), [(True, 0), (False, 1)])
def test_demo_ends_with_0_only_when_every_turn_went_as_said(
    good: bool, status: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = stand_in(monkeypatch, "demo", good)
    shown = invoke("demo", "--out", str(tmp_path / "new" / "speech"), "--stay")
    assert shown.exit_code == status
    assert calls[0][1:] == (tmp_path / "new" / "speech", True)
    assert (tmp_path / "new" / "speech").is_dir()


@pytest.mark.parametrize("job", ["demo", "up"])
@pytest.mark.parametrize(
    "error", [CatalogError("model.onnx is missing; run: it"), ConfigError("redis-server is not installed here")]
)
def test_an_expected_error_is_one_line_and_status_1(
    job: str, error: Exception, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    stand_in(monkeypatch, job, error)
    shown = invoke(job)
    assert shown.exit_code == 1
    assert shown.output.splitlines() == [f"error: {error}"]


@pytest.mark.parametrize("job", ["demo", "up"])
def test_ctrl_c_ends_with_130_and_no_traceback(job: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    stand_in(monkeypatch, job, KeyboardInterrupt())
    shown = invoke(job)
    assert shown.exit_code == 130
    assert not shown.output


def test_up_hands_on_which_engines(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = stand_in(monkeypatch, "up", None)
    assert invoke("up", "--engines", "scripted").exit_code == 0
    assert invoke("up").exit_code == 0
    assert [call[1] for call in calls] == ["scripted", "real"]


def test_a_place_that_cannot_be_written_is_named_and_nothing_started(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls = stand_in(monkeypatch, "demo", True)
    (tmp_path / "file").touch()
    shown = invoke("demo", "--out", str(tmp_path / "file" / "speech"))
    assert shown.exit_code == 1
    (line,) = shown.output.splitlines()
    assert str(tmp_path / "file" / "speech") in line
    assert "--out" in line
    assert not calls


def test_the_front_door_loads_no_engine() -> None:
    code = "import sys, xiaozhi_fleet; print(*{'llama_cpp', 'onnxruntime', 'faster_whisper', 'nats', 'websockets'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert not done.stdout.split()


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "edge", "--check-config"],
        ["-m", "coordinator", "--check-config"],
        ["-m", "cloud", "--check-config"],
        ["-c", "import xiaozhi_fleet; xiaozhi_fleet.main()", "models", "list"],
    ],
)
def test_a_reader_that_has_seen_enough_is_no_error(command: list[str]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, *command], cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True, check=False
        )
    finally:
        os.close(writing)
    assert not done.stderr
    assert done.returncode in {0, 1}


@pytest.mark.parametrize("process", ["edge", "coordinator", "cloud"])
def test_a_wrong_setting_is_one_line_and_status_2(process: str) -> None:
    wrong = {f"{process.upper()}_HTTP_PROT": "1", "PATH": os.environ["PATH"]}
    done = subprocess.run(
        [sys.executable, "-m", process, "--check-config"],
        cwd=ROOT,
        env=wrong,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert f"{process.upper()}_HTTP_PROT: no such setting; did you mean {process.upper()}_HTTP_PORT?" in line
