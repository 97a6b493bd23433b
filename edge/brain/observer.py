"""What the brain tells whoever counts: durations, failures, finished turns."""

from __future__ import annotations

from typing import Protocol

from coordinator.turns import TurnRecord


class BrainObserver(Protocol):
    """Hears what metrics are made of; every method is called on the loop and must be quick and not raise."""

    def turn_ended(self, record: TurnRecord) -> None:
        """Take the record of a finished turn."""
        ...

    def stage_seconds(self, stage: str, seconds: float) -> None:
        """Take how long "vad" (a frame), "asr", "text" (from the last speech), "llm" (first token) or "tts" (first sound) took."""
        ...

    def error(self, stage: str, code: str) -> None:
        """Take a failure: of "vad", a "turn", a "session" or the "bus"."""
        ...

    def sessions(self, count: int) -> None:
        """Take the number of open sessions."""
        ...


class DeafObserver:
    """Observes nothing."""

    def turn_ended(self, record: TurnRecord) -> None:
        """Ignore it."""

    def stage_seconds(self, stage: str, seconds: float) -> None:
        """Ignore it."""

    def error(self, stage: str, code: str) -> None:
        """Ignore it."""

    def sessions(self, count: int) -> None:
        """Ignore it."""
