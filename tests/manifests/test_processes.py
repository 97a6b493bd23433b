from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from manifests import processes
from manifests.processes import (
    Child,
    Children,
    accepts_connections,
    answers,
    children,
    free_ports,
    stop_child,
    together,
)
from models.errors import ConfigError
from tests.real_time import run

ROOT = Path(__file__).parents[2]
FOREVER = "import time; print('ready', flush=True); time.sleep(600)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {FOREVER}"
LAST_WORDS = """
import signal, sys, time
def end(*_):
    with open(sys.argv[1], "a") as out:
        out.write(sys.argv[2] + " ")
    sys.exit(0)
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
time.sleep(600)
"""


async def started(group: Children, name: str, code: str, *arguments: str) -> Child:
    """Start a Python child that says "ready" and wait until it did."""
    child = await group.start(name, [sys.executable, "-c", code, *arguments])

    async def has_said_ready() -> bool:
        return "ready" in child.tail()

    await group.wait_ready(child, has_said_ready, 20)
    return child


async def never() -> bool:
    return False


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_children_are_stopped_in_reverse_order(tmp_path: Path) -> None:
    words = tmp_path / "words"

    async def scenario() -> list[Child]:
        async with children(tmp_path) as group:
            for name in ("one", "two", "three"):
                await started(group, name, LAST_WORDS, str(words), name)
            return list(group.running)

    ended = run(scenario())
    assert words.read_text().split() == ["three", "two", "one"]
    assert [child.process.returncode for child in ended] == [0, 0, 0]
    assert all(child.has_ended() for child in ended)


def test_a_child_that_ignores_sigterm_is_killed_after_the_limit(tmp_path: Path) -> None:
    async def scenario() -> int | None:
        async with children(tmp_path) as group:
            child = await started(group, "stubborn", STUBBORN)
            await stop_child(child, within_s=0.2)
            return child.process.returncode

    assert run(scenario()) == -signal.SIGKILL


def test_a_childs_own_children_end_with_it(tmp_path: Path) -> None:
    code = f"import subprocess, sys; print(subprocess.Popen([sys.executable, '-c', {STUBBORN!r}]).pid, flush=True); {FOREVER}"

    async def scenario() -> int:
        async with children(tmp_path) as group:
            child = await started(group, "family", code)
            return int(child.tail().split()[0])

    with_pid = run(scenario())
    descriptor = _pidfd(with_pid)
    assert descriptor is None or _ends(descriptor)


@pytest.mark.parametrize("failure", [RuntimeError, ConfigError, KeyboardInterrupt])
def test_a_failing_body_still_stops_them(tmp_path: Path, failure: type[BaseException]) -> None:
    pids: list[int] = []

    async def scenario() -> None:
        async with children(tmp_path) as group:
            pids.append((await started(group, "one", FOREVER)).pid)
            raise failure

    with pytest.raises(failure):
        run(scenario())
    assert is_gone(pids[0])


def test_a_cancelled_body_still_stops_them_even_when_cancelled_twice(tmp_path: Path) -> None:
    words = tmp_path / "words"

    async def scenario() -> None:
        up: asyncio.Future[Child] = asyncio.get_running_loop().create_future()

        async def body() -> None:
            async with children(tmp_path) as group:
                await started(group, "first", LAST_WORDS, str(words), "first")
                up.set_result(await started(group, "second", LAST_WORDS, str(words), "second"))
                await asyncio.sleep(600)

        task = asyncio.create_task(body())
        await up
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(scenario())
    assert words.read_text().split() == ["second", "first"]


def test_a_cancel_while_stopping_is_not_lost(tmp_path: Path) -> None:
    async def scenario() -> None:
        leaving: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def body() -> str:
            async with children(tmp_path) as group:
                await started(group, "one", FOREVER)
                leaving.set_result(None)
            return "went on"

        task = asyncio.create_task(body())
        await leaving
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run(scenario())


def test_a_child_that_dies_early_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with children(tmp_path) as group:
            child = await group.start("fragile", [sys.executable, "-c", "import sys; sys.exit('no such port: 99999')"])
            await group.wait_ready(child, never, 20)

    with pytest.raises(ConfigError, match=r"fragile ended with status 1:\nno such port: 99999"):
        run(scenario())


def test_a_child_that_is_never_ready_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    pids: list[int] = []

    async def scenario() -> None:
        async with children(tmp_path) as group:
            pids.append((await started(group, "slow", FOREVER)).pid)
            await group.wait_ready(group.running[0], never, 0.1)

    with pytest.raises(ConfigError, match=r"slow was not ready after 0\.1 s; its log .*slow\.log ends:\nready"):
        run(scenario())
    assert is_gone(pids[0])


def test_a_program_that_does_not_exist_is_named(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with children(tmp_path) as group:
            await group.start("nobody", [str(tmp_path / "nothing")])

    with pytest.raises(ConfigError, match=r"nobody: cannot start .*nothing: No such file"):
        run(scenario())


def test_a_child_gets_our_environment_and_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURS", "1")

    async def scenario() -> str:
        async with children(tmp_path) as group:
            code = "import os; print(os.environ['OURS'] + os.environ['ITS'])"
            child = await group.start("reader", [sys.executable, "-c", code], env={"ITS": "2"})
            await child.process.wait()
            return child.tail()

    assert run(scenario()) == "12"


PARENT = """
import asyncio, sys
from pathlib import Path
from manifests.processes import children

async def main():
    async with children(Path(sys.argv[1])) as group:
        child = await group.start("orphan", [sys.executable, "-c", sys.argv[2]])
        while "ready" not in child.tail():
            await asyncio.sleep(0.02)
        print(child.pid, flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_children_die_when_their_parent_is_killed(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path), STUBBORN]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        descriptor = _pidfd(int(parent.stdout.readline()))
        assert descriptor is not None
        parent.kill()
        assert _ends(descriptor)
    assert parent.returncode == -signal.SIGKILL


def _pidfd(pid: int) -> int | None:
    try:
        return os.pidfd_open(pid)
    except ProcessLookupError:
        return None


def _ends(descriptor: int, within_s: float = 20.0) -> bool:
    """Wait for the process behind a pidfd to end."""
    try:
        return bool(select.select([descriptor], [], [], within_s)[0])
    finally:
        os.close(descriptor)


def test_the_first_failure_stops_the_others_and_comes_bare() -> None:
    stopped: list[str] = []

    async def waits() -> None:
        try:
            await asyncio.sleep(600)
        finally:
            stopped.append("waits")

    async def fails() -> None:
        await asyncio.sleep(0)
        raise ConfigError("broken part")

    async def scenario() -> None:
        async with together() as tasks:
            tasks.create_task(waits())
            tasks.create_task(fails())

    with pytest.raises(ConfigError, match="broken part"):
        run(scenario())
    assert stopped == ["waits"]


def test_free_ports_are_distinct_and_below_those_of_outgoing_connections() -> None:
    ports = [port for _ in range(10) for port in free_ports(8)]
    assert len(set(ports)) == 80
    assert all(20_000 <= port < 32_000 for port in ports)


def test_a_port_in_use_is_not_given_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        busy = taken.getsockname()[1]
        (free,) = free_ports(1)
        monkeypatch.setattr(processes, "_CANDIDATES", iter([busy, free]))
        assert free_ports(1) == [free]


@pytest.mark.parametrize(("status", "good"), [("200 OK", True), ("503 Service Unavailable", False)])
def test_only_200_counts_as_an_answer(status: str, good: bool) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        writer.close()

    async def scenario() -> tuple[bool, bool]:
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            return await answers(f"http://127.0.0.1:{port}/readyz"), await answers("http://127.0.0.1:1/readyz")

    assert run(scenario()) == (good, False)


def test_a_port_accepts_connections_while_somebody_listens(unused_tcp_port: int) -> None:
    async def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def scenario() -> tuple[bool, bool]:
        async with await asyncio.start_server(hang_up, "127.0.0.1", unused_tcp_port):
            listening = await accepts_connections(unused_tcp_port)
        return listening, await accepts_connections(unused_tcp_port)

    assert run(scenario()) == (True, False)
