"""Texts at which an answer ends, wherever its pieces are cut; pure."""

from __future__ import annotations

from collections.abc import Sequence


class StopWatch:
    """Gives out an answer up to the first of the texts; keeps back what may be the beginning of one."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.has_stopped = False
        """Whether one of the texts came; nothing more is given out."""
        self._stops = tuple(stops)
        self._kept = ""

    def feed(self, text: str) -> str:
        """Return what may be given out now."""
        if self.has_stopped:
            return ""
        text = self._kept + text
        ends = [end for stop in self._stops if (end := text.find(stop)) >= 0]
        if ends:
            self.has_stopped, self._kept = True, ""
            return text[: min(ends)]
        given = len(text) - self._unsure(text)
        self._kept = text[given:]
        return text[:given]

    def flush(self) -> str:
        """Return what was kept back, at the end of the answer."""
        kept, self._kept = self._kept, ""
        return kept

    def _unsure(self, text: str) -> int:
        """Return how many characters at the end of ``text`` begin one of the texts."""
        longest = max((len(stop) for stop in self._stops), default=1) - 1
        for count in range(min(longest, len(text)), 0, -1):
            if any(stop.startswith(text[-count:]) for stop in self._stops):
                return count
        return 0
