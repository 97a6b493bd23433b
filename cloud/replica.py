"""One server of a pool: where it is, and what the pool knows of it while it has it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Callable
from enum import StrEnum
from typing import Protocol, Self

import httpx
import msgspec

from cloud import choice, ejection
from cloud.vllm_metrics import Figures, queue_ms
from models.engines import Completer
from models.errors import CloudUnreachableError, CompletionError, ConfigError, DeadlineError, OverloadedError
from models.prompts import CompletionDelta, Prompt

FRESH_S = 3.0
"""Figures older than three probes are not trusted."""
MISSES = 2
"""Probes in a row without an answer that make a replica away; a connection refused or cut does at once."""
PACE_GAIN = 0.25
"""Weight of the newest time to the first token in the average. A guess."""
FORGET_PACE_S = 10.0
"""A replica that was left alone for being slow is tried again after so long. A guess."""
AVOID_S = 1.0
"""How long a failure makes its replica look busier, so that one that refuses at once is not taken for an idle one. A guess."""
HEARD_S = 1.0
"""A silent probe means nothing when a request heard something within so long: the server is busy, not away."""
FULL_S = 1.0
"""A replica that said it is full is not asked again for so long, as its next figures will tell. A guess."""


class Replica(msgspec.Struct, frozen=True, kw_only=True):
    """A server: equal ones are the same one."""

    name: str
    """What metrics and logs call it; the same name is the same favourite for a device's prefixes."""
    url: str
    """Base address, with or without /v1."""

    @classmethod
    def at(cls, url: str) -> Self:
        """Return the replica at this address, named host:port; raise ConfigError when that is none."""
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise ConfigError("a replica's address is none: write http://host:port") from error
        if parsed.scheme not in {"http", "https"} or not parsed.host:
            raise ConfigError("a replica's address is none: write http://host:port")
        return cls(name=parsed.netloc.decode("ascii"), url=url)


class State(StrEnum):
    """Whether a replica gets work, and if not, why."""

    NEW = "new"
    """It has not answered yet: it may be loading its model."""
    READY = "ready"
    AWAY = "away"
    """It does not answer its probes."""
    EJECTED = "ejected"
    """It answers its probes but failed too often."""
    DRAINING = "draining"
    """It was removed; answers under way end."""


class ReplicaLoad(msgspec.Struct, frozen=True, kw_only=True):
    """What a pool knows of one replica, for metrics and scaling; None is not known or too old to trust."""

    name: str
    state: State
    outstanding: int
    """Requests this process has there."""
    limit: int
    """Requests it may have at once."""
    failures: int
    """In a row."""
    ejections: int
    """Since the pool has it."""
    running: int | None = None
    waiting: int | None = None
    kv_usage: float | None = None
    """In [0, 1]."""
    queue_ms: float | None = None
    """Mean time in its queue of the requests that left it between the last two readings."""


class Upstream(Completer, Protocol):
    """A replica's API."""

    async def probe(self) -> Figures | None:
        """Return its figures, None when it lives but tells none.

        Raises DeadlineError when nothing came in time and CloudUnreachableError when it refused or answered with an error.
        """
        ...


class _Unconnected:
    """What stands for the API of a replica before it is opened, or for ever when its address is wrong."""

    async def probe(self) -> Figures | None:
        raise CloudUnreachableError("this replica is not connected")

    async def complete(self, prompt: Prompt) -> AsyncGenerator[CompletionDelta, None]:  # noqa: ARG002
        nothing: tuple[CompletionDelta, ...] = ()
        for delta in nothing:
            yield delta
        raise CloudUnreachableError("this replica is not connected")


class Pace:
    """What a pool's members are measured against."""

    def __init__(self) -> None:
        self.usual_s: float | None = None
        """The middle of their times to the first token, None when none is known."""


class Member:
    """A replica in a pool. Not thread-safe; ``now`` is the pool's clock in seconds."""

    def __init__(self, replica: Replica, limit: int, pace: Pace, now: Callable[[], float]) -> None:
        self.replica = replica
        self.seed = choice.hashed(replica.name)
        self.upstream: Upstream = _Unconnected()
        self.outstanding = 0
        self.ejections = 0
        self.standing = ejection.Standing()
        self.is_draining = False
        self.heard_s = -math.inf
        """When a request last heard anything."""
        self.nudge = asyncio.Event()
        """Set to have it probed, or ended, now rather than in a second."""
        self.silent: dict[asyncio.Timeout, float] = {}
        """Waits for a first token and when they began, the oldest first; they end at once when the replica is away."""
        self._limit = limit
        self._pace = pace
        self._first_s: float | None = None
        self._now = now
        self._has_answered = False
        self._is_away = False
        self._misses = 0
        self._full_until_s = -1.0
        self._avoided_until_s = -1.0
        self._paced_s = -math.inf
        self._figures: Figures | None = None
        self._figures_s = 0.0
        self._others = 0
        self._queue_ms: float | None = None

    @property
    def state(self) -> State:
        """Whether it gets work."""
        if self.is_draining:
            return State.DRAINING
        if self._is_away:
            return State.AWAY
        if not self._has_answered:
            return State.NEW
        is_ejected = self.standing.until_s >= 0 and self.standing.is_ejected(self._now())
        return State.EJECTED if is_ejected else State.READY

    @property
    def has_missed(self) -> bool:
        """Whether the last probe heard nothing, and one more makes it away."""
        return self._misses > 0 and not self._is_away

    @property
    def figures(self) -> Figures | None:
        """What it said of itself last, None when that is too long ago."""
        return self._figures if self._now() - self._figures_s <= FRESH_S else None

    @property
    def is_full(self) -> bool:
        """Whether it takes no more now."""
        now_s = self._now()
        if now_s < self._full_until_s:
            return True
        figures = self._figures if now_s - self._figures_s <= FRESH_S else None
        waiting, others = (figures.waiting, self._others) if figures else (0, 0)
        return choice.is_full(limit=self._limit, own=self.outstanding, others=others, waiting=waiting)

    @property
    def pressure(self) -> float:
        """How busy it is, see ``choice.pressure``."""
        return choice.pressure(self._load())

    def told(self) -> ReplicaLoad:
        """Return what is known of it."""
        figures = self.figures
        return ReplicaLoad(
            name=self.replica.name,
            state=self.state,
            outstanding=self.outstanding,
            limit=self._limit,
            failures=self.standing.failures,
            ejections=self.ejections,
            running=figures.running if figures else None,
            waiting=figures.waiting if figures else None,
            kv_usage=figures.kv_usage if figures else None,
            queue_ms=self._queue_ms if figures else None,
        )

    def answered(self, figures: Figures | None) -> None:
        """Note a probe that was answered."""
        self._has_answered, self._is_away, self._misses = True, False, 0
        if figures is not None:
            self._queue_ms = queue_ms(self._figures, figures)
            self._others = max(0, figures.running + figures.waiting - self.outstanding)
            self._figures, self._figures_s = figures, self._now()

    def missed(self, error: CompletionError) -> None:
        """Note a probe that was not answered; silence counts only when no request heard anything either."""
        if isinstance(error, DeadlineError):
            if self._now() - self.heard_s < HEARD_S:
                return
            self._misses += 1
            if self._misses < MISSES:
                return
        self._is_away = self._has_answered
        self._figures = None

    def give_up(self) -> None:
        """End the waits for a first token, so that others answer."""
        loop_s = asyncio.get_running_loop().time()
        for wait in self.silent:
            wait.reschedule(loop_s)

    @property
    def first_s(self) -> float | None:
        """How long its first tokens take, or the oldest wait for one when that is longer; None when not known of late."""
        now_s = self._now()
        known_s = self._first_s if now_s - self._paced_s <= FORGET_PACE_S else None
        if not self.silent:
            return known_s
        return max(known_s or 0.0, now_s - next(iter(self.silent.values())))

    def began(self, first_s: float) -> None:
        """Note that a request got its first token after so long."""
        self._set_pace(first_s)
        self.spoke()

    def given_up(self, after_s: float) -> None:
        """Note that a request was given up without a first token: it would have come later than that, which may be news."""
        if self._pace.usual_s is not None and after_s > max(self.first_s or 0.0, self._pace.usual_s):
            self._set_pace(after_s)

    def spoke(self) -> None:
        """Note that a request got a first token or its end: real traffic is a probe too."""
        now_s = self.heard_s = self._now()
        self._has_answered, self._is_away, self._misses = True, False, 0
        self.standing = ejection.succeeded(self.standing, now_s)

    def failed(self, error: CompletionError, *, ejected: int, size: int) -> None:
        """Note a request that went wrong by the replica's fault, in a pool of ``size`` of which ``ejected`` others are left out."""
        now_s = self._now()
        if isinstance(error, OverloadedError):
            self._full_until_s = now_s + FULL_S
            return
        self._avoided_until_s = now_s + AVOID_S
        was, self.standing = self.standing, ejection.failed(self.standing, now_s, ejected=ejected, size=size)
        self.ejections += self.standing.until_s != was.until_s
        self.nudge.set()

    def _set_pace(self, first_s: float) -> None:
        now_s = self._now()
        known_s = self._first_s if now_s - self._paced_s <= FORGET_PACE_S else None
        self._first_s = first_s if known_s is None else known_s + PACE_GAIN * (first_s - known_s)
        self._paced_s = now_s

    def _load(self) -> choice.Load:
        figures = self.figures
        return choice.Load(
            limit=self._limit,
            own=self.outstanding,
            others=self._others if figures else 0,
            waiting=figures.waiting if figures else 0,
            kv_usage=figures.kv_usage if figures else 0.0,
            failures=self.standing.failures if self._now() < self._avoided_until_s else 0,
            slowness=choice.slowness(self.first_s, self._pace.usual_s),
        )
