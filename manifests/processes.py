"""Child processes that are always taken down with us: by order when we end, by the kernel when we are killed."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import os
import random
import signal
import socket
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from models.errors import ConfigError

STOP_S = 8.0
"""How long a role may take to end its turns before it is killed; longer than its own drain on one machine."""
_PR_SET_PDEATHSIG = 1
"""prctl(2): the signal the kernel sends to a child when its parent dies."""
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
"""Loaded here because between fork and exec nothing may be loaded."""
_PORTS = range(20_000, 32_000)
"""Below what Linux (from 32768) and macOS (from 49152) give to outgoing connections: one of those could take a port before its
server does, or meet itself while it asks whether the server listens."""
_CANDIDATES = itertools.cycle(random.SystemRandom().sample(_PORTS, len(_PORTS)))


@dataclass(frozen=True, slots=True)
class Child:
    """One running child process."""

    name: str
    process: asyncio.subprocess.Process
    log: Path
    stop_signal: signal.Signals
    remains: tuple[Path, ...] = ()
    """Files it leaves outside its directory when killed; removed once it has ended."""

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
        remains: Sequence[Path] = (),
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
                    preexec_fn=_death_with(os.getpid()),
                )
            except OSError as error:
                raise ConfigError(f"{name}: cannot start {command[0]}: {error.strerror}") from error
        child = Child(name, process, log, stop_signal, tuple(remains))
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
    for path in child.remains:
        path.unlink(missing_ok=True)


@asynccontextmanager
async def children(directory: Path) -> AsyncGenerator[Children, None]:
    """Give a place to start children, with their logs in an existing ``directory``; all are stopped when it is left, however it is left."""
    group = Children(directory)
    try:
        yield group
    finally:
        await _to_the_end(group.stop())


@asynccontextmanager
async def together() -> AsyncGenerator[asyncio.TaskGroup, None]:
    """Give a TaskGroup whose first failure, after the other tasks were stopped, is raised bare instead of in a group."""
    try:
        async with asyncio.TaskGroup() as tasks:
            yield tasks
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None


def free_ports(count: int) -> list[int]:
    """Return ports of the loopback address that are free now; none is given out twice soon."""
    return list(itertools.islice(filter(_is_free, _CANDIDATES), count))


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


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


async def _to_the_end(work: Coroutine[Any, Any, None]) -> None:
    """Finish ``work`` even while cancelled, then let the cancelling go on."""
    task = asyncio.ensure_future(work)
    cancelled = False
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            cancelled = True
    task.result()
    if cancelled:
        raise asyncio.CancelledError


def _death_with(parent: int) -> Callable[[], None]:
    """Return what runs in the child between fork and exec: SIGKILL when the parent dies, for nobody is left to wait for more."""

    def prepare() -> None:
        if _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() != parent:
                os._exit(1)

    return prepare
