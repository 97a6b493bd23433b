from __future__ import annotations

from typing import Any

import pytest

from edge.simulator.playback import Sound
from edge.simulator.turn import TurnLog, interruption_of, outcome_of, problems_of, result_of


def sound(**fields: Any) -> Sound:
    return Sound(**fields)


@pytest.mark.parametrize(
    ("log", "frames", "is_closed", "expected"),
    [
        (TurnLog(stopped_ms=9, heard="x"), 5, False, "answered"),
        (TurnLog(stopped_ms=9, heard="x"), 5, True, "answered"),
        (TurnLog(stopped_ms=9, heard="x"), 0, False, "failed"),
        (TurnLog(stopped_ms=9), 0, False, "silent"),
        (TurnLog(stopped_ms=9, alerts=["x"]), 5, False, "failed"),
        (TurnLog(alerts=["x"]), 0, False, "failed"),
        (TurnLog(), 0, False, "unanswered"),
        (TurnLog(heard="x"), 5, False, "unanswered"),
        (TurnLog(heard="x"), 5, True, "closed"),
        (TurnLog(aborted_ms=1, obeyed_ms=2, stopped_ms=2), 5, False, "interrupted"),
        (TurnLog(aborted_ms=1), 5, False, "unanswered"),
    ],
)
def test_the_outcome_follows_from_what_the_device_saw(
    log: TurnLog, frames: int, is_closed: bool, expected: str
) -> None:
    assert outcome_of(log, sound(frames=frames), is_closed=is_closed) == expected


@pytest.mark.parametrize(
    ("log", "heard", "expected"),
    [
        (TurnLog(), sound(), ()),
        (TurnLog(), sound(gaps_ms=[30.0, 150.4]), ("2 gaps in the speech, the longest 150 ms",)),
        (TurnLog(), sound(dropped=3), ("3 packets dropped: the queue of 40 was full",)),
        (TurnLog(), sound(cut=2), ("2 queued packets thrown away by a tts/start",)),
        (TurnLog(), sound(undecodable=1), ("1 packets were not Opus of the announced frame length",)),
        (
            TurnLog(packets_outside=5, packets_after_stop=2),
            sound(),
            ("2 packets dropped: they came after tts/stop", "3 packets dropped: they came before tts/start"),
        ),
        (
            TurnLog(packets_hurried=1),
            sound(),
            ("1 packets came so soon after tts/start that a busy device drops them",),
        ),
        (TurnLog(aborted_ms=1), sound(), ("1 abort that no tts/stop answered",)),
        (TurnLog(faults=["something odd"]), sound(), ("something odd",)),
    ],
)
def test_problems_name_what_a_device_suffered(log: TurnLog, heard: Sound, expected: tuple[str, ...]) -> None:
    assert problems_of(log, heard, unheard_ms=0, lost_frames=0) == expected


def test_marks_count_from_the_end_of_speech() -> None:
    log = TurnLog(heard="hi", sentences=["one.", "two."], transcript_ms=1500, started_ms=1510, stopped_ms=3000)
    turn = result_of(
        log,
        sound(pcm=bytearray(b"ab"), first_ms=1800, frames=4, gaps_ms=[30.0, 200.0]),
        mode="auto",
        rate_hz=24_000,
        frame_ms=60,
        end_of_speech_ms=1000,
    )
    assert (turn.transcript_ms, turn.started_ms, turn.first_audio_ms, turn.stopped_ms) == (500, 510, 800, 2000)
    assert (turn.played_ms, turn.stutters, turn.answer, turn.pcm) == (240, 1, "one. two.", b"ab")
    assert turn.interruption is None


def test_an_interruption_is_timed_from_the_abort() -> None:
    log = TurnLog(aborted_ms=100, obeyed_ms=180, packets_after_abort=2, packets_after_stop=1)
    interruption = interruption_of(log)
    assert interruption is not None
    assert (interruption.stop_ms, interruption.packets_before_stop, interruption.packets_after_stop) == (80, 2, 1)
