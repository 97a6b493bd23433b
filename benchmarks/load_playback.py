"""When packets arrived, into what a stock device made of them: gaps on the wire, silences in the loudspeaker, packets lost."""

from __future__ import annotations

import math
from dataclasses import dataclass

from edge.simulator.playback import QUEUE_PACKETS

STUTTER_S = 0.12
"""A longer gap between two arrivals is counted; the published comparison of servers under load does so."""
UNDERRUN_S = 0.005
"""Silence between two packets that counts as heard. A guess: what a busy machine's clock is off by lies below."""

_SOON_S = 1e-9
"""Differences of clock readings are not exact."""


@dataclass(slots=True)
class PlaybackClock:
    """One answer in a device's loudspeaker by arithmetic alone: nothing is decoded. Times are seconds on one monotonic clock."""

    frame_s: float = 0.06
    packets: int = 0
    """Packets that were played or will be."""
    lost: int = 0
    """Packets that found the queue full."""
    first_s: float | None = None
    plays_until_s: float = 0.0
    stutters: int = 0
    """Gaps between two arrivals longer than STUTTER_S."""
    longest_gap_s: float = 0.0
    underruns: int = 0
    silence_s: float = 0.0
    """Heard between the first packet and the last, all underruns together."""
    _arrived_s: float | None = None

    def put(self, now_s: float) -> None:
        """Take one packet that arrives now."""
        self._note_gap(now_s)
        if self.first_s is None:
            self.first_s = self.plays_until_s = now_s
        elif self._is_full(now_s):
            self.lost += 1
            return
        elif now_s > self.plays_until_s:
            self._note_silence(now_s - self.plays_until_s)
            self.plays_until_s = now_s
        self.packets += 1
        self.plays_until_s += self.frame_s

    def left_s(self, now_s: float) -> float:
        """Return how long the loudspeaker still sounds."""
        return max(0.0, self.plays_until_s - now_s) if self.first_s is not None else 0.0

    def _is_full(self, now_s: float) -> bool:
        waiting = math.ceil(round((self.plays_until_s - now_s) / self.frame_s, 6)) - 1  # one of them is playing
        return waiting >= QUEUE_PACKETS

    def _note_gap(self, now_s: float) -> None:
        if self._arrived_s is not None:
            gap_s = now_s - self._arrived_s
            self.stutters += gap_s > STUTTER_S
            self.longest_gap_s = max(self.longest_gap_s, gap_s)
        self._arrived_s = now_s

    def _note_silence(self, silence_s: float) -> None:
        if silence_s > UNDERRUN_S + _SOON_S:
            self.underruns += 1
            self.silence_s += silence_s
