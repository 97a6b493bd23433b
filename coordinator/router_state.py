"""What a router must remember over a restart, in a file: today's spending above all, or a restart would buy the day anew."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import structlog

from coordinator.policy_watch import replace_file
from coordinator.routing.router import Router, RouterState

_log = structlog.get_logger()

ROUTER_FILE = "router.json"
"""Name in the state directory."""
SAVE_S = 30.0
"""Pause between two writes: what a power cut may buy twice. A guess."""

_states = msgspec.json.Decoder(RouterState)


def read_state(directory: Path | None) -> RouterState:
    """Return what was kept, nothing when there is none or it cannot be read, which is logged. Blocks."""
    if directory is None:
        return {}
    path = directory / ROUTER_FILE
    try:
        return _states.decode(path.read_bytes())
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        _log.warning("router_state_unreadable", file=str(path), reason=type(error).__name__)
        return {}


@asynccontextmanager
async def kept_state(router: Router, directory: Path | None, *, save_s: float = SAVE_S) -> AsyncGenerator[None, None]:
    """Write the router's state every ``save_s`` while the body runs and once more at its end; a disk that fails is logged once."""
    if directory is None:
        yield
        return
    keeper = _Keeper(router, directory / ROUTER_FILE)
    saving = asyncio.create_task(keeper.run(save_s), name="router-state")
    try:
        yield
    finally:
        saving.cancel()
        await asyncio.wait([saving])
        keeper.save()


class _Keeper:
    def __init__(self, router: Router, path: Path) -> None:
        self._router = router
        self._path = path
        self._written = b""
        self._said = ""

    async def run(self, save_s: float) -> None:
        """Write until cancelled; one write takes a sync of the disk, in a thread that is waited for."""
        while True:
            await asyncio.sleep(save_s)
            writing = asyncio.ensure_future(asyncio.to_thread(self.save))
            try:
                await asyncio.shield(writing)
            except asyncio.CancelledError:
                await asyncio.wait([writing])
                raise

    def save(self) -> None:
        """Write what is new. Blocks."""
        state = msgspec.json.encode(self._router.state)
        if state == self._written:
            return
        try:
            replace_file(self._path, state)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            if reason != self._said:
                self._said = reason
                _log.warning("router_state_unsaved", file=str(self._path), reason=reason)
        else:
            self._written, self._said = state, ""
