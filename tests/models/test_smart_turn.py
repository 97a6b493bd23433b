from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from models.errors import CatalogError, StageError
from models.log_mel import log_mel, normalized
from models.onnx import Array
from models.smart_turn import SmartTurnDetector, features
from models.speech import Utterance
from models.store import locate
from tests.real_time import run

RATE_HZ = 16_000
NOWHERE = Path("unused.onnx")


class Fixed:
    """Stands in for the model: always the same answer, when it is allowed to give one."""

    providers: Sequence[str] = ("fake",)

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []
        self.may_go = threading.Event()
        self.may_go.set()
        self.has_begun = threading.Event()

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        self.shapes.append(inputs["input_features"].shape)
        assert inputs["input_features"].dtype == np.float32
        self.has_begun.set()
        assert self.may_go.wait(10)
        return [np.array([[0.75]], np.float32)]


def said(count: int, rate_hz: int = RATE_HZ) -> Utterance:
    pcm = np.random.default_rng(2).normal(0, 900, count).astype("<i2").tobytes()
    return Utterance(turn_id="t", device_id="d", pcm=pcm, sample_rate_hz=rate_hz, start_ms=0, end_ms=0)


@pytest.mark.parametrize("count", [0, 1, 16_000, 128_000, 300_000])
def test_an_utterance_of_any_length_is_judged_in_one_window(count):
    session = Fixed()

    async def work() -> None:
        detector = SmartTurnDetector(NOWHERE, session=session)
        assert await detector.finished(said(count)) == 0.75
        detector.close()

    run(work())
    assert session.shapes == [(1, 80, 800)]


def test_the_last_eight_seconds_count():
    long = said(300_000).pcm
    assert np.array_equal(features(long), features(long[-2 * 128_000 :]))
    assert not np.array_equal(features(long), features(long[: 2 * 128_000]))


def test_shorter_sound_gets_silence_in_front():
    pcm = said(16_000).pcm
    sound = np.frombuffer(pcm, "<i2").astype(np.float32) / 32768
    assert np.allclose(features(pcm), log_mel(normalized(np.pad(sound, (112_000, 0)))), atol=1e-6)


@settings(max_examples=20, deadline=None)
@given(st.binary(max_size=2000))
def test_any_bytes_become_features(pcm: bytes):
    found = features(pcm)
    assert found.shape == (80, 800)
    assert np.isfinite(found).all()


def test_another_rate_is_refused():
    async def work() -> None:
        detector = SmartTurnDetector(NOWHERE, session=Fixed())
        with pytest.raises(StageError, match="24000 Hz"):
            await detector.finished(said(100, rate_hz=24_000))
        detector.close()

    run(work())


def test_a_full_line_and_a_closed_detector_refuse_at_once():
    session = Fixed()
    session.may_go.clear()

    async def work() -> None:
        detector = SmartTurnDetector(NOWHERE, session=session, max_waiting=1)
        asked = [asyncio.create_task(detector.finished(said(100))) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(StageError, match="smart-turn: 1 calls already wait"):
            await detector.finished(said(100))
        session.may_go.set()
        assert await asyncio.gather(*asked) == [0.75, 0.75]
        detector.close()
        with pytest.raises(StageError, match="closed"):
            await detector.finished(said(100))

    run(work())


def test_a_cancelled_question_frees_the_slot():
    session = Fixed()
    session.may_go.clear()

    async def work() -> None:
        detector = SmartTurnDetector(NOWHERE, session=session)
        asked = asyncio.create_task(detector.finished(said(100)))
        assert await asyncio.to_thread(session.has_begun.wait, 10)
        asked.cancel()
        session.may_go.set()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert await detector.finished(said(100)) == 0.75
        detector.close()

    run(work())


def test_warming_judges_silence_once():
    session = Fixed()

    async def work() -> None:
        detector = SmartTurnDetector(NOWHERE, session=session)
        await detector.warm()
        detector.close()

    run(work())
    assert session.shapes == [(1, 80, 800)]


def test_a_missing_model_is_named(tmp_path: Path):
    with pytest.raises(CatalogError, match="absent"):
        SmartTurnDetector(tmp_path / "absent.onnx")


@pytest.mark.engine
def test_the_real_model_answers_with_a_probability():
    async def work() -> None:
        detector = SmartTurnDetector(locate("smart-turn-v3.2")["model"])
        await detector.warm()
        first = await detector.finished(said(32_000))
        assert 0.0 <= first <= 1.0
        assert await detector.finished(said(32_000)) == first
        assert await detector.finished(said(0)) != first
        detector.close()

    run(work())
