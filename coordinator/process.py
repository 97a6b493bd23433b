"""A process from its first line to its last: options, settings, signals, exit status."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, Literal, NoReturn, TypeVar

from coordinator.settings import ProcessSettings, configure_logging, effective, load
from models.errors import VoiceError

S = TypeVar("S", bound=ProcessSettings)
FAILED_STATUS = 2
"""Exit status of a process that could not start."""
LEAVE_S = 0.5
"""How long a start that is given up may take to close what it opened. A guess: closing sockets takes milliseconds."""

Run = Callable[[S, str, asyncio.Event], Coroutine[Any, Any, None]]
"""Runs the process until the event is set: settings, role (\"\" when there is only one), event; waits for the event once it serves."""


class Stop(asyncio.Event):
    """Set by a signal; knows whether somebody has come so far as to wait for it."""

    is_awaited = False

    async def wait(self) -> Literal[True]:
        """Return once it is set."""
        self.is_awaited = True
        return await super().wait()


def main(cls: type[S], run: Run[S], *, program: str, about: str, roles: Sequence[str] = ()) -> int:
    """Run one process and return its exit status; every expected error is one line on standard error, never a traceback.

    SIGTERM and SIGINT set the event; the process then ends its work and this returns 0. A start that is not over is given
    up: the process is gone after ``LEAVE_S`` at most, whatever a thread of it loads.
    """
    options = _options(program, about, roles)
    try:
        settings = load(cls)
        if options.check_config:
            _show(settings)
            return 0
        configure_logging(settings)
        with asyncio.Runner(loop_factory=_loop_factory()) as runner:
            runner.run(_until_signalled(run, settings, getattr(options, "role", "") or ""))
    except VoiceError as error:
        print(f"{program}: {error}", file=sys.stderr)  # noqa: T201 - the one line
        return FAILED_STATUS
    except BaseExceptionGroup as group:
        known, unknown = group.split(VoiceError)
        if unknown is not None or known is None:
            raise
        print(f"{program}: {_first(known)}", file=sys.stderr)  # noqa: T201 - the one line
        return FAILED_STATUS
    return 0


def _show(settings: ProcessSettings) -> None:
    """Print the settings; a reader that has seen enough, as ``head`` has, is no error."""
    try:
        print(json.dumps(effective(settings), indent=2, default=str, ensure_ascii=False), flush=True)  # noqa: T201 - its purpose
    except BrokenPipeError:
        # Python would try once more at its end, and complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes the quicker loop, None for the standard library's where that cannot be imported."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


async def _until_signalled(run: Run[S], settings: S, role: str) -> None:
    """Run until a signal; leave the process when that came before it served and something of it cannot be stopped."""
    stop, loop = Stop(), asyncio.get_running_loop()
    threads = set(threading.enumerate())
    running = loop.create_task(run(settings, role, stop), name="process")
    late: asyncio.Future[None] = loop.create_future()

    def heed() -> None:
        stop.set()
        if not (stop.is_awaited or running.cancelling()):
            running.cancel()
            loop.call_later(LEAVE_S, late.cancel)

    for number in (signal.SIGTERM, signal.SIGINT):
        with suppress(NotImplementedError):
            loop.add_signal_handler(number, heed)
    await asyncio.wait([running, late], return_when=asyncio.FIRST_COMPLETED)
    if not running.cancelling():
        await running
    elif not running.done() or set(threading.enumerate()) - threads:
        _leave()
    elif not running.cancelled():
        running.result()


def _leave() -> NoReturn:
    """End at once: a thread that loads a model cannot be stopped, and Python would wait for it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _options(program: str, about: str, roles: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=program, description=about)
    if roles:
        parser.add_argument(
            "role", nargs="?", choices=roles, help="run only this role; both in one process when left out"
        )
    parser.add_argument(
        "--check-config", action="store_true", help="print the settings in force, secrets masked, and exit"
    )
    return parser.parse_args()


def _first(group: BaseExceptionGroup[VoiceError]) -> BaseException:
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
