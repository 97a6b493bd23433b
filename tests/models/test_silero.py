from __future__ import annotations

import asyncio
import gc
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import CatalogError, StageError
from models.onnx import Array
from models.silero import SileroDetector, SileroStream, cut
from models.speech import AudioFrame
from models.store import locate
from tests.real_time import run

RATE_HZ = 16_000
NOWHERE = Path("unused.onnx")


class Loudness:
    """Stands in for the model: a window's peak is its speech probability; the state counts windows."""

    providers: Sequence[str] = ("fake",)

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.contexts: list[Array] = []

    def run(self, inputs: Mapping[str, Array]) -> list[Array]:
        heard, state = inputs["input"], inputs["state"]
        count = len(heard)
        assert heard.shape == (count, 576)
        assert heard.dtype == np.float32
        assert state.shape == (2, count, 128)
        assert inputs["sr"] == RATE_HZ
        self.batches.append(count)
        self.contexts.append(heard[:, :64])
        return [np.abs(heard[:, 64:]).max(axis=1, keepdims=True), state + np.float32(1)]


def frame(level: float, count: int, rate_hz: int = RATE_HZ) -> AudioFrame:
    """Return ``count`` samples of constant ``level`` in [0, 1]."""
    return AudioFrame(pcm=np.full(count, level * 32768, "<i2").tobytes(), sample_rate_hz=rate_hz, start_ms=0)


def windows_remembered(detector: SileroDetector, stream: SileroStream) -> float:
    """Return how many windows ``Loudness`` counted in the stream's state."""
    return float(detector._judge._state[0, stream.place, 0])


def heard_by(session: Loudness, scenario, **options) -> None:
    async def work() -> None:
        detector = SileroDetector(NOWHERE, session=session, **options)
        await scenario(detector)
        await detector.close()

    run(work())


def test_frames_that_complete_no_window_return_the_last_probability():
    session = Loudness()

    async def scenario(detector: SileroDetector) -> None:
        stream = detector.listen()
        assert await stream.detect(frame(0.5, 320)) == 0.0
        assert await stream.detect(frame(0.5, 320)) == 0.5
        assert await stream.detect(frame(0.25, 320)) == 0.5
        assert await stream.detect(frame(0.25, 320)) == 0.5
        assert await stream.detect(frame(0.25, 320)) == 0.25

    heard_by(session, scenario)
    assert session.batches == [1, 1, 1]


def test_the_highest_window_of_a_frame_counts():
    async def scenario(detector: SileroDetector) -> None:
        loud_first = frame(0.5, 512).pcm + frame(0.125, 512).pcm
        assert await detector.listen().detect(AudioFrame(pcm=loud_first, start_ms=0)) == 0.5

    heard_by(Loudness(), scenario)


def test_each_window_is_preceded_by_the_end_of_the_one_before():
    session = Loudness()

    async def scenario(detector: SileroDetector) -> None:
        stream = detector.listen()
        await stream.detect(frame(0.5, 512))
        await stream.detect(frame(0.25, 1024))

    heard_by(session, scenario)
    assert [context[0].max() for context in session.contexts] == [0.0, 0.5, 0.25]


def test_devices_that_speak_at_once_share_calls_and_keep_their_own_memory():
    session = Loudness()

    async def scenario(detector: SileroDetector) -> None:
        streams = [detector.listen() for _ in range(4)]
        levels = [0.125, 0.25, 0.5, 0.75]
        for counts in ([512] * 4, [512, 1024, 512, 1536]):
            heard = [
                stream.detect(frame(level, count)) for stream, level, count in zip(streams, levels, counts, strict=True)
            ]
            assert await asyncio.gather(*heard) == levels
        assert [windows_remembered(detector, stream) for stream in streams] == [2, 3, 2, 4]

    heard_by(session, scenario)
    assert session.batches == [4, 4, 2, 1]


def test_a_reset_stream_has_forgotten_everything():
    session = Loudness()

    async def scenario(detector: SileroDetector) -> None:
        stream = detector.listen()
        await stream.detect(frame(0.5, 800))
        stream.reset()
        assert await stream.detect(frame(0.25, 500)) == 0.0
        assert await stream.detect(frame(0.25, 12)) == 0.25
        assert windows_remembered(detector, stream) == 1

    heard_by(session, scenario)
    assert session.contexts[-1].max() == 0.0


def test_another_rate_is_refused():
    async def scenario(detector: SileroDetector) -> None:
        with pytest.raises(StageError, match="48000 Hz"):
            await detector.listen().detect(frame(0.5, 960, rate_hz=48_000))

    heard_by(Loudness(), scenario)


def test_a_closed_detector_refuses():
    async def scenario(detector: SileroDetector) -> None:
        await detector.close()
        with pytest.raises(StageError, match="closed"):
            await detector.listen().detect(frame(0.5, 960))

    heard_by(Loudness(), scenario)


def test_a_missing_model_is_named(tmp_path: Path):
    with pytest.raises(CatalogError, match="absent"):
        SileroDetector(tmp_path / "absent.onnx")


def test_a_place_is_given_on_when_its_stream_is_gone_and_begins_empty():
    session = Loudness()

    async def scenario(detector: SileroDetector) -> None:
        kept, gone = detector.listen(), detector.listen()
        await asyncio.gather(kept.detect(frame(0.5, 1024)), gone.detect(frame(0.5, 1024)))
        place = gone.place
        del gone
        gc.collect()
        heir, third = detector.listen(), detector.listen()
        assert (kept.place, heir.place, third.place) == (0, place, 2)
        await heir.detect(frame(0.25, 512))
        assert windows_remembered(detector, heir) == 1
        assert windows_remembered(detector, kept) == 2

    heard_by(session, scenario)
    assert session.contexts[-1].max() == 0.0


def test_more_devices_than_a_batch_keep_their_own_memory():
    session = Loudness()

    async def scenario(detector: SileroDetector) -> None:
        streams = [detector.listen() for _ in range(70)]
        levels = [(1 + index) / 128 for index in range(70)]
        for _ in range(2):
            heard = [stream.detect(frame(level, 960)) for stream, level in zip(streams, levels, strict=True)]
            assert np.allclose(await asyncio.gather(*heard), levels, atol=1 / 32768)
        assert [windows_remembered(detector, stream) for stream in streams] == [3] * 70

    heard_by(session, scenario)
    assert max(session.batches) == 32


def test_a_model_that_fails_fails_the_frame_and_hears_the_next():
    class Broken(Loudness):
        def run(self, inputs: Mapping[str, Array]) -> list[Array]:
            if not self.batches:
                self.batches.append(0)
                raise StageError("broken")
            return super().run(inputs)

    async def scenario(detector: SileroDetector) -> None:
        stream = detector.listen()
        with pytest.raises(StageError, match="broken"):
            await stream.detect(frame(0.5, 512))
        assert await stream.detect(frame(0.25, 512)) == 0.25

    heard_by(Broken(), scenario)


def test_warming_runs_one_alone_and_one_full_batch_and_leaves_no_trace():
    session = Loudness()

    async def scenario(detector: SileroDetector) -> None:
        await detector.warm()
        assert session.batches == [1, 32]
        stream = detector.listen()
        await stream.detect(frame(0.5, 512))
        assert windows_remembered(detector, stream) == 1

    heard_by(session, scenario)


@given(st.binary(max_size=1023), st.binary(max_size=5000))
def test_any_bytes_are_cut_into_whole_windows_and_a_rest(rest: bytes, pcm: bytes):
    rest = rest[: len(rest) // 2 * 2]
    windows, left = cut(rest, pcm)
    assert len(windows) % 1024 == 0
    assert len(left) < 1024
    assert windows + left == rest + pcm[: len(pcm) // 2 * 2]


async def probabilities(stream: SileroStream, pcm: np.ndarray, frame_ms: int) -> list[float]:
    step = RATE_HZ * frame_ms // 1000
    frames = [pcm[start : start + step].tobytes() for start in range(0, len(pcm), step)]
    return [await stream.detect(AudioFrame(pcm=one, start_ms=0)) for one in frames]


def sounds() -> list[np.ndarray]:
    """Return silence, noise and two vowel-like buzzes, one second each."""
    random, time_s = np.random.default_rng(1), np.arange(RATE_HZ) / RATE_HZ
    buzz = sum(np.sin(2 * np.pi * 120 * harmonic * time_s) / harmonic for harmonic in range(1, 12))
    loud = [np.zeros(RATE_HZ), random.normal(0, 300, RATE_HZ), 6000 * buzz, 3000 * buzz * np.sin(4 * np.pi * time_s)]
    return [sound.astype("<i2") for sound in loud]


@pytest.mark.engine
@pytest.mark.parametrize("frame_ms", [20, 60])
def test_the_real_model_hears_no_speech_in_silence_and_noise(frame_ms: int):
    async def work() -> None:
        detector = SileroDetector(locate("silero-vad")["model"])
        for sound in sounds()[:2]:
            assert max(await probabilities(detector.listen(), sound, frame_ms)) < 0.2
        await detector.close()

    run(work())


@pytest.mark.engine
def test_the_real_model_hears_the_same_alone_and_in_a_batch():
    async def work() -> None:
        detector = SileroDetector(locate("silero-vad")["model"])
        alone = [await probabilities(detector.listen(), sound, 60) for sound in sounds()]
        together = await asyncio.gather(*(probabilities(detector.listen(), sound, 60) for sound in sounds()))
        assert np.allclose(alone, together, atol=1e-4)
        await detector.close()

    run(work())
