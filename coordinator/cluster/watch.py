"""Follows one Service's endpoints: list, watch, list anew; what was last known stays while the API is away."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing, suppress
from typing import Literal, Protocol, Self, cast

import structlog

from coordinator.cluster.api import KubernetesApi, check_installed, slice_of, status_of
from coordinator.cluster.endpoints import Endpoint, ServicePort, Slice, Slices, WatchEvent
from models.errors import CloudUnreachableError, VoiceError

_log = structlog.get_logger()

RESYNC_S = 300.0
"""A list is asked for so often all the same: what a watch lost is made good then. A guess; client-go's informers take minutes to hours."""
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 30.0
"""Waits between tries double from the one to the other, each with jitter; client-go's reflector goes from 0.8 s to 30 s."""
STEADY_S = 5.0
"""A watch that lasted so long, or said something, was a good one: the next failure waits little again."""
_GONE = 410

State = Literal["listed", "expired", "refused", "failed"]
"""What an attempt came to: a list was read, the watch's version was too old, the API refused us, it was away or talked nonsense."""
Wait = Callable[[float], bool]
"""Waits so many seconds, less when it is to end; returns whether it is to end."""


class SliceApi(Protocol):
    """What is asked of the API; ``KubernetesApi`` does it."""

    def list_slices(self, where: ServicePort) -> tuple[list[Slice], str]:
        """Return the slices and their version; raise VoiceError."""
        ...

    def watch_slices(self, where: ServicePort, version: str) -> Generator[WatchEvent, None, None]:
        """Yield changes until the server ends it; raise VoiceError."""
        ...

    def close(self) -> None:
        """End what is under way in another thread."""
        ...


class Follower:
    """The loop that runs in the thread: blocks, and tells ``found`` after every change and ``state`` after every attempt."""

    def __init__(
        self,
        where: ServicePort,
        *,
        found: Callable[[frozenset[Endpoint]], None],
        state: Callable[[State, str], None],
        wait: Wait,
        resync_s: float = RESYNC_S,
        now: Callable[[], float] = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self._where = where
        self._found = found
        self._state = state
        self._wait = wait
        self._resync_s = resync_s
        self._now = now
        self._rng = rng or random.Random()  # noqa: S311 - jitter
        self._slices = Slices()
        self._failures = 0

    def follow(self, connect: Callable[[], SliceApi], opened: Callable[[SliceApi], None]) -> None:
        """Follow until ``wait`` says to end; ``opened`` hears of the API so that somebody can close it."""
        api: SliceApi | None = None
        while not self._wait(self._pause_s()):
            self._failures += 1
            try:
                if api is None:
                    api = connect()
                    opened(api)
                self._list_and_watch(api)
            except VoiceError as error:
                self._failures = max(self._failures, 1)
                self._state("failed" if isinstance(error, CloudUnreachableError) else "refused", str(error))

    def _list_and_watch(self, api: SliceApi) -> None:
        """List, then watch until it is time to list again."""
        slices, version = api.list_slices(self._where)
        self._slices.replace(slices)
        self._tell()
        self._state("listed", "")
        until_s = self._now() + self._resync_s * self._rng.uniform(0.8, 1.2)
        while version and self._now() < until_s:
            began_s, before = self._now(), version
            version = self._watch(api, version)
            if not version:
                return
            if version == before and self._now() - began_s < STEADY_S:
                raise CloudUnreachableError("kubernetes: a watch ended as soon as it began")
            self._failures = 0
            if self._wait(0):
                return

    def _watch(self, api: SliceApi, version: str) -> str:
        """Watch until the server ends it; return the version to go on from, "" when a list is due."""
        until_s = self._now() + self._resync_s
        with closing(api.watch_slices(self._where, version)) as events:
            for event in events:
                if event.type == "ERROR":
                    return self._refused(event)
                changed = slice_of(event)
                version = changed.metadata.resource_version or version
                if event.type in {"ADDED", "MODIFIED", "DELETED"}:
                    self._slices.apply(cast("Literal['ADDED', 'MODIFIED', 'DELETED']", event.type), changed)
                    self._tell()
                self._failures = 0
                if self._now() > until_s or self._wait(0):
                    return ""
        return version

    def _refused(self, event: WatchEvent) -> str:
        status = status_of(event)
        if status.code != _GONE:
            raise CloudUnreachableError(f"kubernetes: the watch ended with {status.code}")
        self._failures = max(self._failures, 1)
        self._state("expired", "")
        return ""

    def _tell(self) -> None:
        self._found(self._slices.endpoints(self._where.port))

    def _pause_s(self) -> float:
        """Return how long to wait before the next list: nothing at first, then longer with every failure."""
        if not self._failures:
            return 0.0
        longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2.0 ** min(self._failures - 1, 16))
        return self._rng.uniform(longest / 2, longest)


class EndpointWatch:
    """Runs a Follower in a thread while open and tells ``changed`` on the event loop; after closing, nothing of it runs.

    ``changed`` hears only sets that differ from the one before, and only the latest when the loop is busy. It hears nothing at all
    until the API answered once. Closing ends a call that is under way; only a connect or an import may hold it up, for about 2 s.
    """

    def __init__(
        self,
        where: ServicePort,
        changed: Callable[[frozenset[Endpoint]], None],
        *,
        connect: Callable[[], SliceApi] = KubernetesApi,
        observe: Callable[[State], None] = lambda _state: None,
        resync_s: float = RESYNC_S,
    ) -> None:
        self._where = where
        self._changed = changed
        self._connect = connect
        self._observe = observe
        self._resync_s = resync_s
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._api: SliceApi | None = None
        self._latest: frozenset[Endpoint] | None = None
        self._is_due = False
        self.problem = "Kubernetes has not answered yet"
        """Why the endpoints known may be old, "" while they are kept up."""

    @property
    def is_current(self) -> bool:
        """Whether what was told last is what Kubernetes says now."""
        return not self.problem

    async def __aenter__(self) -> Self:
        """Start; raise ConfigError when the library is missing. Does not wait for the API."""
        if self._connect is KubernetesApi:
            check_installed()
        self._loop = asyncio.get_running_loop()
        self._ended = asyncio.Event()
        self._thread = threading.Thread(target=self._follow, name=f"watch-{self._where.service}", daemon=True)
        self._thread.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        """End the thread and wait for it, even when cancelled meanwhile."""
        with self._lock:
            self._stop.set()
            api = self._api
        if api is not None:
            api.close()
        ended = asyncio.ensure_future(self._ended.wait())
        try:
            await asyncio.shield(ended)
        except asyncio.CancelledError:
            await asyncio.wait([ended])
            raise
        finally:
            self._thread.join()

    def _follow(self) -> None:
        follower = Follower(
            self._where, found=self._offer, state=self._note, wait=self._stop.wait, resync_s=self._resync_s
        )
        try:
            follower.follow(self._connect, self._opened)
        finally:
            if not self._stop.is_set():
                self.problem = "the watch broke off; restart this process"
                _log.error("endpoints_abandoned", service=str(self._where))
            if self._api is not None:
                self._api.close()
            with suppress(RuntimeError):  # the loop was closed without closing this first
                self._loop.call_soon_threadsafe(self._ended.set)

    def _opened(self, api: SliceApi) -> None:
        with self._lock:
            self._api = api
            is_over = self._stop.is_set()
        if is_over:
            api.close()

    def _offer(self, endpoints: frozenset[Endpoint]) -> None:
        with self._lock:
            if self._stop.is_set() or endpoints == self._latest:
                return
            self._latest = endpoints
            if self._is_due:
                return
            self._is_due = True
        self._loop.call_soon_threadsafe(self._tell)

    def _tell(self) -> None:
        with self._lock:
            self._is_due = False
            endpoints, is_over = self._latest, self._stop.is_set()
        if endpoints is not None and not is_over:
            self._changed(endpoints)

    def _note(self, state: State, reason: str) -> None:
        if self._stop.is_set():
            return
        self._observe(state)
        if reason != self.problem:
            where = str(self._where)
            if reason:
                _log.warning("endpoints_unknown", service=where, state=state, reason=reason)
            else:
                _log.info("endpoints_followed", service=where)
        self.problem = reason
