from __future__ import annotations

import numpy as np
import pytest

from benchmarks.spoken import (
    FRAME,
    RATE_HZ,
    SENTENCES,
    frames_of,
    hesitation,
    in_room,
    said,
    trimmed,
    with_pause,
)
from tests.real_time import run


def tone(ms: int, level: float = 8000.0) -> np.ndarray:
    return (level * np.sin(np.arange(ms * RATE_HZ // 1000) * 0.3)).astype(np.int16)


def quiet(ms: int) -> np.ndarray:
    return np.zeros(ms * RATE_HZ // 1000, np.int16)


def test_silence_around_a_sentence_is_cut_off():
    assert len(trimmed(np.concatenate([quiet(200), tone(500), quiet(300)]))) == 500 * 16
    assert len(trimmed(quiet(100))) == 0


def test_a_sentence_hesitates_where_its_middle_is_lowest():
    sound = np.concatenate([tone(100), quiet(40), tone(360), tone(50, 200.0), tone(450)])
    assert 500 <= hesitation(sound) * 1000 / RATE_HZ <= 550


@pytest.mark.parametrize("pause_ms", [200, 1200])
def test_a_pause_is_as_long_as_it_says_and_begins_without_a_click(pause_ms):
    joined = with_pause(tone(500), tone(300), pause_ms)
    assert len(joined) == (800 + pause_ms) * 16
    assert not joined[500 * 16 : (500 + pause_ms) * 16].any()
    assert abs(int(joined[500 * 16 - 1])) < 200
    assert np.array_equal(joined[: 400 * 16], tone(500)[: 400 * 16])


def test_a_room_adds_noise_everywhere_and_the_same_one_for_the_same_seed():
    sound = in_room(tone(300), before_ms=500, after_ms=700, noise=20.0, seed=1)
    assert len(sound) == 1500 * 16
    assert sound[: 500 * 16].std() == pytest.approx(20, rel=0.1)
    assert np.array_equal(sound, in_room(tone(300), before_ms=500, after_ms=700, noise=20.0, seed=1))
    assert not np.array_equal(sound, in_room(tone(300), before_ms=500, after_ms=700, noise=20.0, seed=2))


def test_frames_are_whole_and_follow_one_another():
    frames = frames_of(tone(200))
    assert [frame.start_ms for frame in frames] == [0, 60, 120]
    assert all(len(frame.pcm) == 2 * FRAME for frame in frames)


def test_languages_take_turns_and_no_clause_ends_inside():
    assert [one.language for one in SENTENCES] == ["zh", "en"] * (len(SENTENCES) // 2)
    assert not [one.text for one in SENTENCES if set(one.text[:-1]) & set(",.?!;，。？！；")]
    assert all(one.filler for one in SENTENCES)


@pytest.mark.engine
def test_starter_voices_say_something_of_a_plausible_length():
    clips = run(said([("zh", "你好，小智。"), ("en", "Good morning.")]))
    assert all(0.3 < len(clip) / RATE_HZ < 3 for clip in clips)
