from __future__ import annotations

import pytest

from edge.brain.ears import Ears
from edge.brain.observer import DeafObserver
from models.errors import StageError
from models.scripted import ScriptedDetector
from models.speech import AudioFrame
from tests.edge.brain.talking import SPOKEN, Detecting
from tests.virtual_time import run


class Failing:
    """A stream that fails ``left`` times."""

    def __init__(self, left: int) -> None:
        self.left = left
        self.resets = 0

    async def detect(self, frame: AudioFrame) -> float:
        self.left -= 1
        if self.left >= 0:
            raise StageError("full")
        return 0.5

    def reset(self) -> None:
        self.resets += 1


def test_packets_become_frames_on_audio_time() -> None:
    async def scene() -> None:
        ears = Ears(ScriptedDetector(), DeafObserver())
        heard = [await ears.hear(packet) for packet in SPOKEN]
        assert [frame.start_ms for frame, _ in heard] == list(range(0, 60 * len(SPOKEN), 60))
        assert all(len(frame.pcm) == 1920 for frame, _ in heard)
        assert [speech for _, speech in heard[1:9]] == [1.0] * 8
        assert heard[-1][1] == 0.0

    run(scene())


@pytest.mark.parametrize(("failures", "survives"), [(49, True), (50, False)])
def test_detector_that_fails_hears_nothing_and_one_that_goes_on_failing_is_broken(
    failures: int, *, survives: bool
) -> None:
    async def scene() -> None:
        stream = Failing(failures)
        ears = Ears(Detecting(stream), DeafObserver())
        for _ in range(49):
            assert (await ears.hear(SPOKEN[0]))[1] == 0.0
        if survives:
            assert (await ears.hear(SPOKEN[0]))[1] == 0.5
        else:
            with pytest.raises(StageError):
                await ears.hear(SPOKEN[0])
        ears.forget()
        assert stream.resets == 1

    run(scene())
