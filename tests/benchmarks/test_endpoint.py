from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from benchmarks import endpoint
from benchmarks.endpoint import (
    POLICIES,
    Case,
    Outcome,
    Policy,
    Voiced,
    cases_of,
    heard,
    outcome_of,
    results_of,
    tables,
)
from benchmarks.spoken import FRAME
from edge.brain.segmenter import Endpointing
from models.speech import AudioFrame, Utterance
from tests.virtual_time import run


class Sure:
    """Stands in for the turn detector: an answer for each question, in order."""

    def __init__(self, *answers: float) -> None:
        self.answers = list(answers)
        self.asked: list[int] = []

    async def finished(self, utterance: Utterance) -> float:
        self.asked.append(utterance.end_ms)
        return self.answers.pop(0)


def spoken(pattern: str) -> tuple[Case, list[float]]:
    """Return a case of one frame per letter, "s" for speech and "." for none; it truly ends after the last "s"."""
    frames = [AudioFrame(pcm=bytes(2 * FRAME), start_ms=60 * index) for index in range(len(pattern))]
    case = Case(kind="bare", pause_ms=300, frames=frames, end_ms=60.0 * (pattern.rindex("s") + 1))
    return case, [0.9 if letter == "s" else 0.0 for letter in pattern]


def outcome(pattern: str, policy: Policy, *answers: float) -> tuple[Outcome, Sure]:
    turn = Sure(*answers)
    case, speech = spoken(pattern)
    return run(outcome_of(case, speech, policy, turn)), turn


SILENCE = Policy(name="silence", rules=Endpointing(end_silence_ms=300))
ASKING = Policy(name="asking", rules=Endpointing(hint_silence_ms=200, end_silence_ms=1_500), threshold=0.5)


def test_a_pause_longer_than_the_silence_cuts_the_sentence_off():
    found, turn = outcome(".ssssssss.....ssssssss..........", SILENCE)
    assert found.is_cut
    assert found.wait_ms is None
    assert not turn.asked


def test_a_shorter_pause_does_not_and_the_wait_is_the_silence():
    found, _ = outcome(".ssssssss....ssssssss..........", SILENCE)
    assert not found.is_cut
    assert found.wait_ms == 300


def test_a_sure_turn_detector_ends_at_the_first_question():
    found, turn = outcome(".ssssssss" + "." * 40, ASKING, 0.5)
    assert found.wait_ms == 240
    assert len(turn.asked) == len(found.judge_ms) == 1


def test_an_unsure_one_is_asked_once_a_pause_and_waits_for_the_longer_silence():
    found, turn = outcome(".ssssssss.....ssssssss" + "." * 40, ASKING, 0.49, 0.49)
    assert found.wait_ms == 1_500
    assert len(turn.asked) == 2


def test_a_turn_detector_that_is_wrong_cuts_off():
    found, turn = outcome(".ssssssss.....ssssssss" + "." * 40, ASKING, 0.9)
    assert found.is_cut
    assert len(turn.asked) == 1


def test_a_recording_that_ends_too_soon_never_ended():
    found, _ = outcome(".ssssssss..", SILENCE)
    assert (found.is_cut, found.wait_ms) == (False, None)


def test_every_sentence_is_heard_whole_bare_and_thinking():
    clip = (3000 * np.sin(np.arange(16_000) * 0.3)).astype(np.int16)
    cases = cases_of([Voiced(whole=clip, first=clip[:8000], second=clip[:4000])], [200, 400])
    kinds = [("whole", 0), ("bare", 200), ("bare", 400), ("thinking", 200), ("thinking", 400)]
    assert [(case.kind, case.pause_ms) for case in cases] == kinds
    assert [case.end_ms for case in cases] == [1500, 1700, 1900, 1450, 1650]
    assert all(case.frames[-1].start_ms > case.end_ms + 2_300 for case in cases)


def test_a_case_is_heard_by_a_stream_of_its_own():
    class Counts:
        def listen(self) -> Counts:
            self.count = 0.0
            return self

        async def detect(self, frame: AudioFrame) -> float:
            self.count += 1
            return self.count

        def reset(self) -> None:
            raise AssertionError

    assert run(heard(Counts(), spoken("s.s")[0])) == [1, 2, 3]


def test_rates_are_of_cases_with_a_pause_and_waits_of_those_not_cut():
    results = results_of(
        [
            Outcome(kind="whole", pause_ms=0, wait_ms=300.0, is_cut=False),
            Outcome(kind="bare", pause_ms=200, wait_ms=500.0, is_cut=False, judge_ms=(20.0, 30.0)),
            Outcome(kind="bare", pause_ms=400, wait_ms=None, is_cut=True),
            Outcome(kind="thinking", pause_ms=400, wait_ms=None, is_cut=False),
        ]
    )
    assert results["false_cutoff_rate"] == pytest.approx(1 / 3, abs=1e-4)
    assert results["false_cutoff_rate_by_kind"] == {"whole": 0, "bare": 0.5, "thinking": 0}
    assert results["false_cutoff_rate_by_pause_ms"] == {"200": 0, "400": 0.5}
    assert results["wait_ms"] == {"p50": 300, "p95": 500, "max": 500, "n": 2}
    assert results["never_ended"] == 1
    assert results["judge_ms"]["n"] == 2
    first, second = tables({"cases": 4, "policies": {"a rule": results}})
    assert [len(first.columns), len(second.columns)] == [7, 3]


def test_the_silences_and_smart_turn_are_compared():
    assert [policy.threshold for policy in POLICIES] == [None] * 4 + [0.5, 0.9]
    assert len({policy.name for policy in POLICIES}) == len(POLICIES)


def test_the_command_writes_what_it_measured(tmp_path, monkeypatch):
    case = Outcome(kind="bare", pause_ms=400, wait_ms=None, is_cut=True)
    measured = {"cases": 1, "policies": {"a rule": results_of([case])}}
    asked: list[bool] = []

    def measure(report, *, quick: bool) -> dict[str, Any]:
        asked.append(quick)
        return measured

    monkeypatch.setattr(endpoint, "measure", measure)
    endpoint.command(json=tmp_path / "endpoint.json", quick=True)
    report = json.loads((tmp_path / "endpoint.json").read_text())
    assert (report["name"], report["engines"], report["results"]) == ("endpoint", "real", measured)
    assert asked == [True]
