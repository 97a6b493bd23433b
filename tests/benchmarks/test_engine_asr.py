from __future__ import annotations

import asyncio
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.engine_asr import SPEECH_S, arrivals, load, measure, speech, tables, twin_dir
from models.errors import RecognitionError
from models.speech import Transcript, Utterance
from models.store import ROOT_VARIABLE
from tests.virtual_time import run

EMPTY_LOAD = {
    "finals_ms": {"p50": 100.0, "p95": 200.0, "max": 210.0, "n": 150},
    "finals_refused": 2,
    "partials_asked": 300,
    "partials_heard": 120,
}
RESULTS = {
    "weights": "twin",
    "real_time_factor": 0.0441,
    "real_time_factor_by_batch": {"1": 0.0441, "8": 0.0352},
    "features_core_s_per_s": 0.0021,
    "whisper_base_real_time_factor": None,
    "burst": EMPTY_LOAD,
    "steady": EMPTY_LOAD | {"finals_ms": {"p50": None, "p95": None, "max": None, "n": 0}},
}


class Slow:
    """Takes ``final_s`` for a final and ``partial_s`` for a partial, or refuses partials."""

    def __init__(self, final_s: float, partial_s: float | None) -> None:
        self.asked: list[tuple[bool, int]] = []
        self._final_s, self._partial_s = final_s, partial_s

    async def transcribe(self, utterance: Utterance) -> Transcript:
        self.asked.append((utterance.is_final, utterance.end_ms))
        pause_s = self._final_s if utterance.is_final else self._partial_s
        if pause_s is None:
            raise RecognitionError("planned")
        await asyncio.sleep(pause_s)
        return Transcript(turn_id=utterance.turn_id, text="好")


def under(recognizer: Slow, starts_s: list[float]) -> dict:
    async def work() -> dict:
        return await load(recognizer, starts_s)

    return run(work())


def test_a_final_is_timed_from_the_end_of_speech():
    recognizer = Slow(0.25, 0.1)
    assert under(recognizer, [0.0, 3.0]) == {
        "finals_ms": {"p50": 250.0, "p95": 250.0, "max": 250.0, "n": 2},
        "finals_refused": 0,
        "partials_asked": 4,
        "partials_heard": 4,
    }
    assert recognizer.asked == [(False, 600), (False, 1200), (True, 1800)] * 2


@pytest.mark.parametrize("partial_s", [None, 5.0])
def test_partials_refused_or_late_are_counted_and_hold_up_nothing(partial_s: float | None):
    loaded = under(Slow(0.1, partial_s), [0.0])
    assert (loaded["partials_asked"], loaded["partials_heard"], loaded["finals_ms"]["p95"]) == (2, 0, 100.0)


def test_arrivals_come_as_often_as_asked_and_at_least_once():
    moments = arrivals(2.0, 1000.0)
    assert moments == sorted(moments)
    assert 1800 < len(moments) < 2200
    assert arrivals(0.5, 0.1) == [0.0]


def test_speech_has_its_length():
    assert len(speech(SPEECH_S)) == 2 * 1.8 * 16_000


def test_the_twin_lies_beside_the_models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path / "models"))
    assert twin_dir() == tmp_path / "twins" / "sensevoice-small"


@pytest.mark.parametrize(("weights", "shown"), [("twin", "twin"), ("real", "real weights")])
def test_every_table_says_which_weights_were_measured(weights: str, shown: str):
    console = Console(width=160, record=True, file=StringIO())
    made = tables(RESULTS | {"weights": weights})
    for table in made:
        assert shown in str(table.title)
        console.print(table)
    text = console.export_text()
    assert all(figure in text for figure in ("0.044", "0.035", "200", "120 of 300"))


@pytest.mark.engine
def test_measuring_a_tiny_twin_fills_every_key(tmp_path: Path):
    pytest.importorskip("onnx")
    from models.factory.sensevoice_twin import TINY, build

    said: list[str] = []
    results = measure(said.append, quick=True, model_dir=build(tmp_path / "twin", size=TINY))
    assert results["weights"] == "twin"
    assert set(results["real_time_factor_by_batch"]) == {"1", "4", "8"}
    assert results["burst"]["finals_ms"]["n"] == 20
    assert said
    tables(results)
