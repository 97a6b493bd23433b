"""Child processes that are always taken down with us: by order when we end, by the kernel when we are killed."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from models.errors import ConfigError

STOP_S = 8.0
"""How long a role may take to end its turns before it is killed; longer than its own drain on one machine."""
_PR_SET_PDEATHSIG = 1
"""prctl(2): the signal the kernel sends to a child when its parent dies."""


@dataclass(frozen=True, slots=True)
class Child:
    """One running child process."""

    name: str
    process: asyncio.subprocess.Process
    log: Path
    stop_signal: signal.Signals

    @property
    def pid(self) -> int:
        """Process id."""
        return self.process.pid

    def has_ended(self) -> bool:
        """Whether the process is gone."""
        return self.process.returncode is not None

    def tail(self, lines: int = 12) -> str:
        """Return the last lines it wrote."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


@dataclass(slots=True)
class Children:
    """The children of one site, in the order they were started."""

    directory: Path
    """Where their logs lie."""
    running: list[Child] = field(default_factory=list)

    async def start(
        self,
        name: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> Child:
        """Start ``command`` with its output in NAME.log; raise ConfigError when there is no such program."""
        log = self.directory / f"{name}.log"
        with log.open("ab") as output:
            try:
                process = await asyncio.create_subprocess_exec(
                    *command,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=output,
                    env={**os.environ, **(env or {})},
                    start_new_session=True,
                    preexec_fn=_die_with_parent,
                )
            except OSError as error:
                raise ConfigError(f"{name}: cannot start {command[0]}: {error.strerror}") from error
        child = Child(name, process, log, stop_signal)
        self.running.append(child)
        return child

    async def wait_ready(self, child: Child, is_ready: Callable[[], Awaitable[bool]], within_s: float) -> float:
        """Poll until ``is_ready``; return the seconds it took; raise ConfigError with the log's end when it died or is late."""
        began = time.monotonic()
        while time.monotonic() - began < within_s:
            if child.has_ended():
                raise ConfigError(f"{child.name} ended with status {child.process.returncode}:\n{child.tail()}")
            if await is_ready():
                return time.monotonic() - began
            await asyncio.sleep(0.05)
        raise ConfigError(f"{child.name} was not ready after {within_s:g} s; its log {child.log} ends:\n{child.tail()}")

    async def stop(self) -> None:
        """Stop all, the last started first; kill what does not end in time."""
        for child in reversed(self.running):
            await stop_child(child)
        self.running.clear()


async def stop_child(child: Child, within_s: float = STOP_S) -> None:
    """Ask the child's process group to end, and kill it when it does not."""
    if not child.has_ended():
        _signal_group(child, child.stop_signal)
        try:
            async with asyncio.timeout(within_s):
                await child.process.wait()
        except TimeoutError:
            pass
    _signal_group(child, signal.SIGKILL)
    await child.process.wait()


@asynccontextmanager
async def children(directory: Path) -> AsyncGenerator[Children, None]:
    """Give a place to start children, with their logs in an existing ``directory``; all are stopped when it is left, however it is left."""
    group = Children(directory)
    try:
        yield group
    finally:
        stopping = asyncio.ensure_future(group.stop())
        while not stopping.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.shield(stopping)


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback address that were free a moment ago."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


async def accepts_connections(port: int) -> bool:
    """Whether something listens on this loopback port."""
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
    return True


async def answers(url: str) -> bool:
    """Whether a GET of this loopback address is answered with 200."""
    async with httpx.AsyncClient(timeout=2.0, trust_env=False) as client:
        try:
            return (await client.get(url)).status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False


def _signal_group(child: Child, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)


def _die_with_parent() -> None:
    """Run in the child between fork and exec."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
