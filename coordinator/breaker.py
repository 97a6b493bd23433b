"""A breaker for one cloud pool: too many failures in a row and it is left alone for a while, then tried with one call.

What ends a call counts once: an answer that came to its end closes the breaker, a failure counts, and a call that nobody waited for
to the end (barge-in, a faster answer elsewhere) is neither. A pool that refuses because it is full counts too, but it lives and may
have room in a moment: it is never left alone for longer than the shortest time.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from enum import StrEnum

FAILURES = 5
"""In a row; this many open a breaker."""
OPEN_S = 1.0
"""How long a breaker stays open at first; twice as long after each probe that fails. A guess, as the next two."""
MAX_OPEN_S = 30.0
_JITTER = 0.2
"""Part by which each time is longer or shorter, so that edges do not come back all at once."""


class State(StrEnum):
    """Whether a pool may be asked."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half-open"
    """One call may try."""


class Outcome(StrEnum):
    """How a call ended for its pool."""

    GOOD = "good"
    BAD = "bad"
    FULL = "full"
    """Refused for want of room."""
    NEITHER = "neither"


class Breaker:
    """Counts failures in a row and says whether to ask. Not thread-safe."""

    def __init__(
        self,
        *,
        failures: int = FAILURES,
        open_s: float = OPEN_S,
        max_open_s: float = MAX_OPEN_S,
        now: Callable[[], float] = time.monotonic,
        dice: random.Random | None = None,
    ) -> None:
        self.opened = 0
        """How many times it went from closed to open."""
        self._failures = failures
        self._open_s = open_s
        self._max_open_s = max_open_s
        self._now = now
        self._dice = dice or random.Random()  # noqa: S311 - jitter is no secret
        self._in_row = 0
        self._until_s: float | None = None
        self._failed_probes = 0
        self._probe: Call | None = None
        self._era = 0

    @property
    def state(self) -> State:
        """Closed, open, or half-open once the time is over."""
        if self._until_s is None:
            return State.CLOSED
        return State.OPEN if self._now() < self._until_s else State.HALF_OPEN

    @property
    def failures_in_row(self) -> int:
        """Failures since the last answer that came to its end."""
        return self._in_row

    @property
    def takes_calls(self) -> bool:
        """Whether ``begin`` would return a call now."""
        return self.state is State.CLOSED or (self.state is State.HALF_OPEN and self._probe is None)

    def begin(self) -> Call | None:
        """Return the call to report on, None when the pool is not to be asked; whoever has it must end it."""
        if not self.takes_calls:
            return None
        call = Call(self, self._era, is_probe=self.state is State.HALF_OPEN)
        if call.is_probe:
            self._probe = call
        return call

    def end(self, call: Call, outcome: Outcome) -> None:
        """Take the outcome of a call; one begun before the last change of state says nothing new."""
        if self._probe is call:
            self._probe = None
        if call.era != self._era or outcome is Outcome.NEITHER:
            return
        if outcome is Outcome.GOOD:
            self._in_row = self._failed_probes = 0
            if self._until_s is not None:
                self._until_s = None
                self._era += 1
            return
        self._in_row += 1
        if call.is_probe or self._in_row >= self._failures:
            self._open(was_open=call.is_probe, is_full=outcome is Outcome.FULL)

    def _open(self, *, was_open: bool, is_full: bool) -> None:
        self.opened += not was_open
        self._failed_probes += was_open and not is_full
        doublings = 0 if is_full else self._failed_probes
        open_s = min(self._open_s * 2**doublings, self._max_open_s)
        self._until_s = self._now() + open_s * self._dice.uniform(1 - _JITTER, 1 + _JITTER)
        self._era += 1


class Call:
    """One call to a pool; the first outcome counts, later ones are ignored."""

    def __init__(self, breaker: Breaker, era: int, *, is_probe: bool) -> None:
        self.era = era
        self.is_probe = is_probe
        """Whether this one finds out if the pool is back."""
        self._breaker: Breaker | None = breaker

    def ended(self, outcome: Outcome) -> None:
        """Report the outcome; GOOD is an answer that came to its end, NEITHER one that nobody waited for."""
        breaker, self._breaker = self._breaker, None
        if breaker is not None:
            breaker.end(self, outcome)
