"""How much a stage takes in at once, found from how long its calls take: refuse early what could only wait.

After the idea of Netflix's concurrency-limits, its gradient limit: while calls take little longer than they do in calm, the limit grows
by the square root of itself; when they take longer, it shrinks by the quotient. There the calm time is a long average, which under
lasting overload creeps up until nothing is refused any more; here only calls that met few others teach it, and when there have been
none for long, the limit is lowered until there are some. ``AdaptiveLimit`` is that arithmetic, ``FixedLimit`` a known count, ``Intake``
counts the calls of one stage against either.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from models.errors import DeadlineError, OverloadedError, VoiceError

_MIN_GRADIENT = 0.5
"""The most that one round shrinks the limit by, before smoothing; Netflix's."""
_BACKOFF = 0.9
"""What is left of the limit after a round with a call that was given up."""
_ROUND_CALLS = 10
"""The fewest calls a judgement rests on."""
_CALM_SHARE = 8
"""A call is calm when no more than this part of the limit was in flight: nobody waits then unless the limit is 8 times too high."""
_CALM_CALLS = 8
"""Calm calls that make the calm time known again, or twice as many as may be calm at once: the first to end are the short ones."""
_CALM_WEIGHT = 1 / 16
"""What one calm call weighs in the calm time. A guess: sixteen sentences are of all lengths."""
_FASTER = 2.0
"""A calm time so many times the mean of a round is out of date; Netflix's."""
_PROBE_CALLS = 600
_PROBE_LIMITS = 30
"""Calls without calm ones before the limit is lowered for them: so many, or so many times the limit; costs about 4 % while overloaded."""
_PROBE_FIRST = 5
"""As many times the limit while the calm time is not known at all: a stage that met its first calls all at once."""


class Limit(Protocol):
    """Says how many calls may be in flight."""

    @property
    def limit(self) -> int:
        """Calls that may be under way or in line, at least 1."""
        ...

    def observe(self, seconds: float, inflight: int, *, dropped: bool = False) -> None:
        """Learn from a call that took ``seconds`` and began as one of ``inflight``; ``dropped`` when it was given up for lateness."""
        ...


@dataclass(frozen=True, slots=True)
class FixedLimit:
    """A known count."""

    limit: int

    def observe(self, seconds: float, inflight: int, *, dropped: bool = False) -> None:
        """Learn nothing."""


class AdaptiveLimit:
    """A limit in [``minimum``, ``maximum``] under which calls take about ``tolerance`` times as long as they do in calm.

    It has no clock: a round is as many calls as may be in flight, and one judgement. ``smoothing`` in (0, 1] is what a judgement weighs.
    Without ``probes`` the limit is never lowered to find the calm time: for stages that have calm moments by themselves.
    """

    def __init__(
        self,
        *,
        initial: int = 20,
        minimum: int = 1,
        maximum: int = 200,
        tolerance: float = 1.5,
        smoothing: float = 0.5,
        probes: bool = True,
    ) -> None:
        self._minimum = max(1, minimum)
        self._maximum = max(self._minimum, maximum)
        self._tolerance = tolerance
        self._smoothing = smoothing
        self._probes = probes
        self._estimate = float(min(self._maximum, max(self._minimum, initial)))
        self._calm_s = 0.0
        self._calm_seen = 0
        self._calm_calls = 0
        self._unsure_calls = 0
        self._is_probing = False
        self._round_s = 0.0
        self._round_calls = 0
        self._round_inflight = 0
        self._has_dropped = False

    @property
    def limit(self) -> int:
        """Calls that may be under way or in line."""
        return self._calm_inflight if self._is_probing else int(self._estimate)

    @property
    def calm_s(self) -> float:
        """Seconds a call takes when few others are under way, 0.0 before the first."""
        return self._calm_s

    def observe(self, seconds: float, inflight: int, *, dropped: bool = False) -> None:
        """Learn from a call that took ``seconds`` and began as one of ``inflight``; ``dropped`` when it was given up for lateness."""
        if not dropped and inflight <= self._calm_inflight:
            self._learn_calm(seconds)
        if self._is_probing:
            return
        self._round_s += seconds
        self._round_calls += 1
        self._round_inflight = max(self._round_inflight, inflight)
        self._has_dropped = self._has_dropped or dropped
        if self._round_calls >= max(_ROUND_CALLS, self._estimate):
            self._judge()
            self._round_s, self._round_calls, self._round_inflight, self._has_dropped = 0.0, 0, 0, False

    @property
    def _calm_inflight(self) -> int:
        return max(self._minimum, int(self._estimate) // _CALM_SHARE)

    def _learn_calm(self, seconds: float) -> None:
        self._calm_seen += 1
        self._calm_s += (seconds - self._calm_s) * max(_CALM_WEIGHT, 1 / self._calm_seen)
        self._calm_calls += 1
        if self._calm_calls >= max(_CALM_CALLS, 2 * self._calm_inflight):
            self._calm_calls = self._unsure_calls = 0
            self._is_probing = False

    def _judge(self) -> None:
        """Move the limit after a round; one that did not make use of it says nothing."""
        mean_s = self._round_s / self._round_calls
        if self._calm_s > _FASTER * mean_s:
            self._calm_s *= _BACKOFF
        if self._has_dropped:
            self._move_to(self._estimate * _BACKOFF)
        elif self._round_inflight >= self._estimate / 2:
            self._adapt(mean_s)

    def _adapt(self, mean_s: float) -> None:
        """Move the limit by what a round in which it mattered took, and have the calm time measured anew now and then."""
        is_known = self._calm_seen >= _CALM_CALLS
        gradient = self._gradient(mean_s)
        if gradient < 1 or not is_known:
            self._unsure_calls += self._round_calls
        if is_known:
            aim = self._estimate * gradient + math.sqrt(self._estimate)
            self._move_to(self._estimate + (aim - self._estimate) * self._smoothing)
        patience = max(_PROBE_CALLS, _PROBE_LIMITS * self._estimate) if is_known else _PROBE_FIRST * self._estimate
        if self._probes and self._unsure_calls >= patience:
            self._is_probing = True
            self._calm_calls = 0

    def _gradient(self, mean_s: float) -> float:
        """Return what part of the limit would make calls take ``tolerance`` times the calm time."""
        return max(_MIN_GRADIENT, min(1.0, self._tolerance * self._calm_s / mean_s)) if mean_s > 0 else 1.0

    def _move_to(self, estimate: float) -> None:
        self._estimate = min(float(self._maximum), max(float(self._minimum), estimate))


class Intake:
    """The calls of one stage: counts those in flight, refuses at once what is over ``limit``, and lets the limit learn.

    With a ``leeway`` above 1 calls are refused only from so many times the limit on, and ``is_full`` says from the limit on that nobody
    new should be let in: who was let in is served.
    """

    def __init__(
        self,
        name: str,
        limit: Limit,
        *,
        leeway: int = 1,
        refusal: type[VoiceError] = OverloadedError,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self.inflight = 0
        """Calls under way or in line now."""
        self.refused = 0
        """Calls turned away so far."""
        self._name = name
        self._limit = limit
        self._leeway = leeway
        self._refusal = refusal
        self._now = now

    @property
    def limit(self) -> int:
        """Calls that may be in flight now."""
        return self._limit.limit

    @property
    def is_full(self) -> bool:
        """Whether the calls in flight have reached the limit."""
        return self.inflight >= self._limit.limit

    @contextmanager
    def call(self, *, background: bool = False) -> Generator[Callable[[], None], None, None]:
        """Count one call while the body runs; raise ``refusal`` at once when there is no room, for ``background`` work at half the limit.

        The call took as long as the body, or until it called what this yields: at the first word, when the rest depends on the question.
        A body that raises OverloadedError or DeadlineError before teaches that the limit is too high, any other error nothing.
        """
        limit = self._limit.limit
        room = max(1, limit // 2) if background else limit * self._leeway
        if self.inflight >= room:
            self.refused += 1
            raise self._refusal(f"{self._name}: {self.inflight} calls are in flight, {room} are taken in")
        self.inflight += 1
        one = _Call(self._limit, self.inflight, self._now)
        try:
            yield one.end
            one.end()
        except (OverloadedError, DeadlineError):
            one.end(dropped=True)
            raise
        finally:
            self.inflight -= 1


class _Call:
    """One call that teaches its limit once."""

    def __init__(self, limit: Limit, inflight: int, now: Callable[[], float]) -> None:
        self._limit = limit
        self._inflight = inflight
        self._now = now
        self._began_s = now()
        self._is_over = False

    def end(self, *, dropped: bool = False) -> None:
        if not self._is_over:
            self._is_over = True
            self._limit.observe(self._now() - self._began_s, self._inflight, dropped=dropped)
