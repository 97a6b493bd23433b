"""What a device went through in one turn: the log it keeps, the result it hands over, and what a stock device would have suffered."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import msgspec

from edge.seam import ListenMode
from edge.simulator.playback import Sound

STUTTER_MS = 120.0
"""A gap longer than this is counted as a stutter. Two frames of 60 ms; a guess at what everybody notices."""

Outcome = Literal["answered", "interrupted", "silent", "failed", "closed", "unanswered"]
"""What became of a turn, as the device can tell:

answered: speech came and ended; interrupted: an abort was obeyed; silent: it ended without speech; failed: an alert, or speech that
never came after a transcript; closed: the socket went; unanswered: nothing ended it in time.
"""


@dataclass(slots=True)
class TurnLog:
    """What happened so far in the turn under way; times are the device's milliseconds."""

    heard: str = ""
    emotion: str = ""
    sentences: list[str] = field(default_factory=list)
    alerts: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    """Messages the firmware refused, each with the reason."""
    transcript_ms: float | None = None
    started_ms: float | None = None
    stopped_ms: float | None = None
    aborted_ms: float | None = None
    obeyed_ms: float | None = None
    """First ``tts/stop`` after the abort."""
    packets_after_abort: int = 0
    packets_after_stop: int = 0
    packets_outside: int = 0
    """Dropped because the device was not in Speaking."""
    packets_hurried: int = 0
    """Came so soon after ``tts/start`` that a busy device would have lost them."""


class Interruption(msgspec.Struct, frozen=True, kw_only=True):
    """How an abort was obeyed."""

    stop_ms: float | None
    """From the abort to ``tts/stop``; None when none came."""
    packets_before_stop: int
    packets_after_stop: int


class TurnResult(msgspec.Struct, frozen=True, kw_only=True):
    """One turn as the device saw it; marks are milliseconds after the last audible sample left the mouth."""

    mode: ListenMode
    outcome: Outcome
    heard: str = ""
    emotion: str = ""
    sentences: tuple[str, ...] = ()
    pcm: bytes = b""
    """What the loudspeaker played, s16le mono at ``rate_hz``, gaps included as silence."""
    rate_hz: int = 24_000
    end_of_speech_ms: float = 0.0
    """The device's clock at the zero of all marks."""
    transcript_ms: float | None = None
    started_ms: float | None = None
    """``tts/start``."""
    first_audio_ms: float | None = None
    stopped_ms: float | None = None
    """Last ``tts/stop``."""
    played_ms: float = 0.0
    """Length of the speech played."""
    gaps_ms: tuple[float, ...] = ()
    unheard_ms: float = 0.0
    """Speech that fell on a closed microphone because the answer came before its end."""
    interruption: Interruption | None = None
    alerts: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    """What a stock device would have suffered; empty when all went well."""

    @property
    def answer(self) -> str:
        """The sentences shown, in one string."""
        return " ".join(self.sentences)

    @property
    def stutters(self) -> int:
        """Gaps longer than STUTTER_MS."""
        return sum(gap > STUTTER_MS for gap in self.gaps_ms)


def outcome_of(log: TurnLog, sound: Sound, *, is_closed: bool) -> Outcome:
    """Return what became of the turn."""
    if log.aborted_ms is not None and log.obeyed_ms is not None:
        return "interrupted"
    if log.stopped_ms is None:
        return "closed" if is_closed else "failed" if log.alerts else "unanswered"
    if sound.frames and not log.alerts:
        return "answered"
    return "failed" if log.heard or log.alerts else "silent"


def problems_of(log: TurnLog, sound: Sound, *, unheard_ms: float, lost_frames: int) -> tuple[str, ...]:
    """Return in words what a stock device, and the person before it, suffered in the turn."""
    late = log.packets_after_stop
    counted = (
        (len(sound.gaps_ms), f"gaps in the speech, the longest {max(sound.gaps_ms, default=0.0):.0f} ms"),
        (sound.dropped, "packets dropped: the queue of 40 was full"),
        (sound.cut, "queued packets thrown away by a tts/start"),
        (sound.undecodable, "packets were not Opus of the announced frame length"),
        (late, "packets dropped: they came after tts/stop"),
        (log.packets_outside - late, "packets dropped: they came before tts/start"),
        (log.packets_hurried, "packets came so soon after tts/start that a busy device drops them"),
        (round(unheard_ms), "ms of speech fell on a closed microphone: the answer came before the end"),
        (lost_frames, "microphone frames lost: the network stalled"),
        (log.aborted_ms is not None and log.obeyed_ms is None, "abort that no tts/stop answered"),
    )
    return tuple(f"{int(count)} {what}" for count, what in counted if count) + tuple(log.faults)


def result_of(
    log: TurnLog,
    sound: Sound,
    *,
    mode: ListenMode,
    rate_hz: int,
    frame_ms: int,
    end_of_speech_ms: float,
    unheard_ms: float = 0.0,
    lost_frames: int = 0,
    is_closed: bool = False,
) -> TurnResult:
    """Return the result of a finished turn."""

    def after(at_ms: float | None) -> float | None:
        return None if at_ms is None else at_ms - end_of_speech_ms

    return TurnResult(
        mode=mode,
        outcome=outcome_of(log, sound, is_closed=is_closed),
        heard=log.heard,
        emotion=log.emotion,
        sentences=tuple(log.sentences),
        pcm=bytes(sound.pcm),
        rate_hz=rate_hz,
        end_of_speech_ms=end_of_speech_ms,
        transcript_ms=after(log.transcript_ms),
        started_ms=after(log.started_ms),
        first_audio_ms=after(sound.first_ms),
        stopped_ms=after(log.stopped_ms),
        played_ms=float(sound.frames * frame_ms),
        gaps_ms=tuple(sound.gaps_ms),
        unheard_ms=unheard_ms,
        interruption=interruption_of(log),
        alerts=tuple(log.alerts),
        problems=problems_of(log, sound, unheard_ms=unheard_ms, lost_frames=lost_frames),
    )


def interruption_of(log: TurnLog) -> Interruption | None:
    """Return how the turn's abort was obeyed; None when there was none."""
    if log.aborted_ms is None:
        return None
    return Interruption(
        stop_ms=None if log.obeyed_ms is None else log.obeyed_ms - log.aborted_ms,
        packets_before_stop=log.packets_after_abort,
        packets_after_stop=log.packets_after_stop,
    )
