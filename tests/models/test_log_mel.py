from __future__ import annotations

from importlib.util import find_spec

import numpy as np
import pytest

from models.log_mel import BANDS, HOP, SAMPLE_RATE_HZ, log_mel, normalized


def tone(hz: float, seconds: float = 1.0) -> np.ndarray:
    return np.sin(2 * np.pi * hz * np.arange(int(SAMPLE_RATE_HZ * seconds)) / SAMPLE_RATE_HZ).astype(np.float32)


@pytest.mark.parametrize("count", [201, HOP * 10 - 1, HOP * 10, 16_000])
def test_sound_of_any_length_has_a_frame_per_whole_10_ms(count):
    features = log_mel(np.zeros(count, np.float32))
    assert features.shape == (BANDS, count // HOP)
    assert features.dtype == np.float32


@pytest.mark.parametrize(("hz", "band"), [(500, 13), (1000, 26), (4000, 61)])
def test_a_tone_lies_in_its_band(hz, band):
    """Slaney's scale: 15 mels of 66.7 Hz to 1 kHz, then 27 steps a factor of 6.4; 82 corners over 45.2 mels."""
    assert abs(int(log_mel(tone(hz))[:, 50].argmax()) - band) <= 1


def test_what_is_far_below_the_loudest_is_cut_at_eight_decades():
    features = log_mel(np.concatenate([tone(1000), np.zeros(SAMPLE_RATE_HZ, np.float32)]))
    assert features.max() - features.min() == pytest.approx(8 / 4)


def test_loudness_is_taken_out_and_silence_stays_silence():
    assert np.allclose(normalized(tone(300)), normalized(0.01 * tone(300) + np.float32(0.1)), atol=0.01)
    assert not normalized(np.zeros(400, np.float32)).any()


@pytest.mark.engine
@pytest.mark.skipif(find_spec("faster_whisper") is None, reason="the reference is part of faster-whisper")
def test_features_are_those_of_faster_whisper():
    from faster_whisper.feature_extractor import FeatureExtractor

    sound = np.random.default_rng(1).normal(0, 0.1, 8 * SAMPLE_RATE_HZ).astype(np.float32)
    assert np.allclose(log_mel(sound), FeatureExtractor()(sound, padding=0), atol=1e-5)
