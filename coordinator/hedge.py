"""When the edge may be asked beside a cloud that is later than usual, and how often; pure.

A second call is spent only from what first calls have saved up, so there are never more of them than the stated share.
"""

from __future__ import annotations

from collections import deque

KEPT = 128
"""First tokens a pool's p95 is taken from: recent enough to follow the pool, a guess."""
LEAST = 20
"""Fewer say nothing about a p95."""
MOST_SAVED = 3.0
"""Second calls that may follow one another at once after a calm time. A guess."""


class FirstTokens:
    """How long one pool lately took to its first tokens."""

    def __init__(self) -> None:
        self._waited_s: deque[float] = deque(maxlen=KEPT)

    def add(self, waited_s: float) -> None:
        """Note a first token, or how long nobody waited for it any longer: leaving those out would make the pool look fast."""
        self._waited_s.append(waited_s)

    @property
    def p95_s(self) -> float | None:
        """Seconds that 95 % did not exceed; None while too few are known."""
        if len(self._waited_s) < LEAST:
            return None
        ordered = sorted(self._waited_s)
        return ordered[-(-95 * len(ordered) // 100) - 1]


class HedgeBudget:
    """Saves a share of a second call with every first one."""

    def __init__(self) -> None:
        self.firsts = 0
        """First calls so far."""
        self.seconds = 0
        """Second calls so far."""
        self._saved = 0.0

    def earn(self, share: float) -> None:
        """Count a first call; ``share`` in [0, 1] of a second one is saved."""
        self.firsts += 1
        self._saved = min(self._saved + share, MOST_SAVED)

    def spend(self) -> bool:
        """Return whether a second call may be made now, and count it."""
        if self._saved < 1 - 1e-9:  # ten tenths are a little less than one
            return False
        self._saved -= 1
        self.seconds += 1
        return True
