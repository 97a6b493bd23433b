from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from pydantic import SecretStr
from pydantic_settings import SettingsConfigDict

from coordinator.process import FAILED_STATUS, Run, main
from coordinator.settings import MASK, ProcessSettings
from models.errors import CloudUnreachableError, ConfigError

ROOT = Path(__file__).parents[2]
SECRET = "correct horse battery staple"


class Settings(ProcessSettings):
    model_config = SettingsConfigDict(env_prefix="THING_", frozen=True, populate_by_name=True)

    name: str = "thing"
    secret: SecretStr = SecretStr("")


class Outcome:
    """What a process returned and printed."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err


@pytest.fixture(autouse=True)
def _restored_logs() -> Iterator[None]:
    before = structlog.get_config()
    yield
    structlog.configure(**before)


class Process:
    """Runs ``main`` as a process would, with these variables and arguments."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, run: Run[Settings], *argv: str, roles: tuple[str, ...] = (), **environ: str) -> Outcome:
        self._monkeypatch.setattr("sys.argv", ["thing", *argv])
        for name, value in environ.items():
            self._monkeypatch.setenv(name, value)
        status = main(Settings, run, program="python -m thing", about="Does a thing.", roles=roles)
        return Outcome(status, *self._capsys.readouterr())


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Process:
    return Process(monkeypatch, capsys)


async def nothing(_settings: Settings, _role: str, _stop: asyncio.Event) -> None:
    pass


async def until_stopped(_settings: Settings, _role: str, stop: asyncio.Event) -> None:
    await stop.wait()


# Ends


def test_a_run_that_returns_is_a_success(process: Process) -> None:
    done = process(nothing)
    assert (done.status, done.out, done.err) == (0, "", "")


STARTING = """
import asyncio, sys, time
from concurrent.futures import ThreadPoolExecutor
from coordinator.process import main
from coordinator.settings import ProcessSettings

async def start(_settings, _role, stop):
    print("starting", flush=True)
    try:
        await asyncio.get_running_loop().run_in_executor(ThreadPoolExecutor(1), time.sleep, 3600)
        await stop.wait()
    finally:
        print("tidied", flush=True)

sys.exit(main(ProcessSettings, start, program="thing", about="Starts for an hour."))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_the_start_gives_it_up_though_a_thread_is_busy(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", STARTING], cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "starting\n"
        child.send_signal(number)
        assert child.stdout.read() == "tidied\n"
        assert child.wait(timeout=30) == 0


HANGING = """
import asyncio, sys
from coordinator.process import main
from coordinator.settings import ProcessSettings

async def start(_settings, _role, stop):
    try:
        print("starting", flush=True)
        await asyncio.sleep(3600)
    finally:
        await asyncio.sleep(3600)

sys.exit(main(ProcessSettings, start, program="thing", about="Will not be tidied."))
"""


def test_a_start_given_up_does_not_wait_for_what_cannot_be_closed() -> None:
    with subprocess.Popen([sys.executable, "-c", HANGING], cwd=ROOT, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "starting\n"
        child.send_signal(signal.SIGTERM)
        child.send_signal(signal.SIGTERM)
        assert child.wait(timeout=30) == 0


def test_the_loop_is_the_quick_one_where_it_is_installed(process: Process) -> None:
    uvloop = pytest.importorskip("uvloop")
    loops: list[asyncio.AbstractEventLoop] = []

    async def look(_settings: Settings, _role: str, _stop: asyncio.Event) -> None:
        loops.append(asyncio.get_running_loop())

    assert process(look).status == 0
    assert isinstance(loops[0], uvloop.Loop)


def test_without_the_quick_loop_the_standard_one_does(process: Process, monkeypatch: pytest.MonkeyPatch) -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    async def look(_settings: Settings, _role: str, _stop: asyncio.Event) -> None:
        loops.append(asyncio.get_running_loop())

    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert process(look).status == 0
    assert isinstance(loops[0], asyncio.SelectorEventLoop)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_sets_the_event_and_the_end_is_a_success(process: Process, number: signal.Signals) -> None:
    async def signalled(_settings: Settings, _role: str, stop: asyncio.Event) -> None:
        os.kill(os.getpid(), number)
        await stop.wait()

    assert process(signalled).status == 0


def test_a_second_signal_changes_nothing(process: Process) -> None:
    async def signalled(_settings: Settings, _role: str, stop: asyncio.Event) -> None:
        for _ in range(2):
            os.kill(os.getpid(), signal.SIGTERM)
            await stop.wait()

    assert process(signalled).status == 0


@pytest.mark.parametrize("error", [ConfigError("no such port"), CloudUnreachableError("the bus closed")])
def test_an_expected_error_is_one_line_and_the_status_of_failure(process: Process, error: Exception) -> None:
    async def failing(_settings: Settings, _role: str, _stop: asyncio.Event) -> None:
        raise error

    done = process(failing)
    assert (done.status, done.out, done.err) == (FAILED_STATUS, "", f"python -m thing: {error}\n")


def test_an_expected_error_of_a_task_is_one_line_as_well(process: Process) -> None:
    async def fail() -> None:
        raise ConfigError("no such port")

    async def failing(_settings: Settings, _role: str, _stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as outer, asyncio.TaskGroup() as inner:
            inner.create_task(fail())
            outer.create_task(asyncio.Event().wait())

    done = process(failing)
    assert (done.status, done.err) == (FAILED_STATUS, "python -m thing: no such port\n")


def test_an_error_nobody_expected_is_not_hidden(process: Process) -> None:
    async def broken(_settings: Settings, _role: str, _stop: asyncio.Event) -> None:
        raise ExceptionGroup("tasks", [ConfigError("known"), ZeroDivisionError("a bug")])

    with pytest.raises(ExceptionGroup) as caught:
        process(broken)
    assert caught.value.subgroup(ZeroDivisionError)


def test_a_bare_error_nobody_expected_is_not_hidden(process: Process) -> None:
    async def broken(_settings: Settings, _role: str, _stop: asyncio.Event) -> None:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError):
        process(broken)


# Settings


def test_the_run_gets_the_settings_of_the_environment(process: Process) -> None:
    seen: list[tuple[str, str]] = []

    async def look(settings: Settings, role: str, _stop: asyncio.Event) -> None:
        seen.append((settings.name, role))

    process(look, THING_NAME="other")
    assert seen == [("other", "")]


def test_a_wrong_variable_is_one_line_before_anything_runs(process: Process) -> None:
    async def never(_settings: Settings, _role: str, _stop: asyncio.Event) -> None:
        raise AssertionError("must not run")

    done = process(never, THING_NAMES="x", THING_HTTP_PORT=SECRET)
    assert done.status == FAILED_STATUS
    (line,) = done.err.splitlines()
    assert line.startswith("python -m thing: THING_NAMES: no such setting; did you mean THING_NAME?; THING_HTTP_PORT: ")
    assert SECRET not in line


def test_check_config_shows_what_is_in_force_and_runs_nothing(process: Process) -> None:
    async def never(_settings: Settings, _role: str, _stop: asyncio.Event) -> None:
        raise AssertionError("must not run")

    done = process(never, "--check-config", THING_SECRET=SECRET, THING_NAME="名字", THING_NATS_URL="nats://u:pa55@h:1")
    shown = json.loads(done.out)
    assert (done.status, done.err) == (0, "")
    assert (shown["secret"], shown["name"], shown["nats_url"]) == (MASK, "名字", "nats://***@h:1")
    assert shown.keys() == Settings.model_fields.keys()
    assert SECRET not in done.out


def test_check_config_refuses_what_a_start_would_refuse(process: Process) -> None:
    assert process(nothing, "--check-config", THING_NAMES="x").status == FAILED_STATUS


# Roles


@pytest.mark.parametrize(("argv", "expected"), [([], ""), (["one"], "one"), (["two"], "two")])
def test_a_role_may_be_chosen(process: Process, argv: list[str], expected: str) -> None:
    seen: list[str] = []

    async def look(_settings: Settings, role: str, _stop: asyncio.Event) -> None:
        seen.append(role)

    assert process(look, *argv, roles=("one", "two")).status == 0
    assert seen == [expected]


@pytest.mark.parametrize("argv", [["three"], ["--no-such-option"]])
def test_an_argument_that_is_none_ends_with_the_usage(
    process: Process, argv: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        process(nothing, *argv, roles=("one", "two"))
    assert caught.value.code == FAILED_STATUS
    assert "usage: python -m thing" in capsys.readouterr().err


# As real processes


def started(module: str, *argv: str, **environ: str) -> subprocess.CompletedProcess[str]:
    # With PYTHONASYNCIODEBUG a busy machine adds lines of its own.
    not_for_it = ("COORDINATOR_", "CLOUD_", "EDGE_", "PYTHONASYNCIODEBUG")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(not_for_it)}
    command = [sys.executable, "-m", module, *argv]
    return subprocess.run(
        command, cwd=ROOT, env=clean | environ, capture_output=True, text=True, check=False, timeout=30
    )


def test_a_dead_nats_is_one_line_that_names_it(unused_tcp_port: int) -> None:
    url = f"nats://127.0.0.1:{unused_tcp_port}"
    done = started(
        "coordinator",
        COORDINATOR_NATS_URL=url,
        COORDINATOR_NATS_CONNECT_S="0.3",
        COORDINATOR_DEVICE_TOKEN_SECRET=SECRET,
    )
    assert (done.returncode, done.stdout) == (FAILED_STATUS, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"python -m coordinator: cannot connect to NATS at {url}: ")


@pytest.mark.parametrize("module", ["coordinator", "cloud"])
def test_a_wrong_variable_of_a_real_process_is_one_line(module: str) -> None:
    done = started(module, **{f"{module.upper()}_HTTP_PROT": SECRET})
    assert (done.returncode, done.stdout) == (FAILED_STATUS, "")
    assert done.stderr == (
        f"python -m {module}: {module.upper()}_HTTP_PROT: no such setting; did you mean {module.upper()}_HTTP_PORT?\n"
    )


def test_a_reader_of_the_settings_may_hang_up() -> None:
    command = [sys.executable, "-m", "coordinator", "--check-config"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(timeout=30) == 0
