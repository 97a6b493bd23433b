"""How well speech is encoded: the best there is when the machine has time for it, cheaper when encoding lags or eats a core.

Only numbers in and a level out; who encodes reports what each piece cost. Figures behind the levels: ``python -m benchmarks opus``.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence

import msgspec

_LEAST_SPEECH_S = 0.05
"""Less than a packet says nothing about lag."""


class Quality(msgspec.Struct, frozen=True, kw_only=True):
    """One way to encode."""

    bitrate: int
    """bit/s."""
    complexity: int
    """libopus' effort, 0..10."""

    @property
    def name(self) -> str:
        """Short name for keys and tables, e.g. "32k-c5"."""
        return f"{self.bitrate // 1000}k-c{self.complexity}"


LEVELS = (
    Quality(bitrate=32_000, complexity=5),
    Quality(bitrate=32_000, complexity=1),
    Quality(bitrate=24_000, complexity=1),
    Quality(bitrate=16_000, complexity=1),
)
"""Best first. Less complexity halves the work, then a lower bit rate saves bytes and little work; complexity 0 is left out because it
saves a fifth more and doubles the spectral distance below 32 kbit/s."""


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """When to step; between the two marks of each measure nothing happens. The marks are guesses."""

    lag_high: float = 0.3
    """Seconds a second of speech may take from PCM to packets, waiting included."""
    lag_low: float = 0.1
    share_high: float = 0.15
    """Share of one core that encoding may take."""
    share_low: float = 0.06
    """Below half of ``share_high``, because the next better level may cost twice as much."""
    down_after_s: float = 2.0
    """A step down shows its effect before the next one."""
    up_after_s: float = 15.0
    """Calm for so long before a step up."""
    memory_s: float = 5.0
    """Time after which a measurement weighs 1/e."""


class QualityController:
    """The level in force, moved one step at a time by what encoding cost lately."""

    def __init__(
        self,
        levels: Sequence[Quality] = LEVELS,
        *,
        rules: Rules | None = None,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._levels = tuple(levels)
        self._rules = rules or Rules()
        self._now = now
        self._level = 0
        self._moved_s = self._pressed_s = self._seen_s = now()
        self._speech_s = self._wall_s = self._busy_s = 0.0

    @property
    def levels(self) -> tuple[Quality, ...]:
        """All levels, best first."""
        return self._levels

    @property
    def level(self) -> int:
        """Steps below the best now; looking may step up, because time without work is calm."""
        self._forget()
        self._step()
        return self._level

    @property
    def lag(self) -> float:
        """Seconds that a second of speech took lately, 0.0 when there was none."""
        return self._wall_s / self._speech_s if self._speech_s > _LEAST_SPEECH_S else 0.0

    @property
    def share(self) -> float:
        """Share of one core that encoding took lately."""
        return self._busy_s / self._rules.memory_s

    def took(self, speech_s: float, *, wall_s: float, busy_s: float) -> None:
        """Take what it cost to encode ``speech_s`` of sound: from asking to having, and working."""
        self._forget()
        self._speech_s += speech_s
        self._wall_s += wall_s
        self._busy_s += busy_s
        self._step()

    def _forget(self) -> None:
        now_s = self._now()
        kept = math.exp((self._seen_s - now_s) / self._rules.memory_s)
        self._seen_s = now_s
        self._speech_s, self._wall_s, self._busy_s = self._speech_s * kept, self._wall_s * kept, self._busy_s * kept

    def _step(self) -> None:
        rules, now_s = self._rules, self._seen_s
        if self.lag > rules.lag_low or self.share > rules.share_low:
            self._pressed_s = now_s
        if self.lag > rules.lag_high or self.share > rules.share_high:
            if self._level < len(self._levels) - 1 and now_s - self._moved_s >= rules.down_after_s:
                self._level, self._moved_s = self._level + 1, now_s
        elif self._level and now_s - max(self._pressed_s, self._moved_s) >= rules.up_after_s:
            self._level, self._moved_s = self._level - 1, now_s
