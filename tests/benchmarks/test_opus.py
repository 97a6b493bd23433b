from __future__ import annotations

import numpy as np
import pytest
from rich.console import Console

from benchmarks.opus import (
    CHOSEN,
    PACKETS_A_SECOND,
    measured,
    samples_of,
    segmental_snr_db,
    spectral_distance_db,
    tables_of,
)
from edge.brain.quality import LEVELS, Quality
from models.scripted import tone

TONE = samples_of(tone(1000, 24_000))


def test_equal_sounds_have_no_distance() -> None:
    assert spectral_distance_db(TONE, TONE) == 0
    assert segmental_snr_db(TONE, TONE) == 35


@pytest.mark.parametrize(("share", "snr_db"), [(0.1, 20.0), (0.5, 6.0), (10.0, -10.0)])
def test_noise_of_a_known_share_has_the_expected_ratio(share: float, snr_db: float) -> None:
    noise = np.random.default_rng(1).normal(size=len(TONE))
    noisy = TONE + share * noise * np.sqrt(np.mean(TONE**2) / np.mean(noise**2))
    assert segmental_snr_db(TONE, noisy) == pytest.approx(snr_db, abs=0.5)


def test_half_as_loud_is_six_db_away() -> None:
    noise = 3000 * np.random.default_rng(1).normal(size=24_000)
    assert spectral_distance_db(noise, noise / 2) == pytest.approx(6.0, abs=0.1)


def test_pauses_are_not_compared() -> None:
    silence = np.zeros(24_000)
    noise = np.random.default_rng(1).normal(size=24_000)
    alone = spectral_distance_db(TONE, TONE * 0.5)
    with_pause = spectral_distance_db(np.concatenate([TONE, silence]), np.concatenate([TONE * 0.5, noise]))
    assert with_pause == pytest.approx(alone)


def test_more_bits_are_closer_and_larger() -> None:
    rough = np.random.default_rng(1).normal(size=48_000)
    pcm = (2000 * np.convolve(rough, np.ones(4) / 4, "same")).astype("<i2").tobytes()
    fine, coarse = (measured(pcm, CHOSEN, Quality(bitrate=rate, complexity=5)) for rate in (32_000, 12_000))
    assert fine["bytes_per_packet"] > 2 * coarse["bytes_per_packet"]
    assert fine["spectral_distance_db"] < coarse["spectral_distance_db"]
    assert fine["cores_at_150_devices"] == pytest.approx(
        fine["cpu_ms_per_packet"] * PACKETS_A_SECOND / 1000, rel=0.05, abs=0.001
    )


def test_tables_show_every_level() -> None:
    ways = [measured(tone(300, 24_000), CHOSEN, level) for level in LEVELS]
    console = Console(width=120, record=True)
    for table in tables_of({"levels": ways, "field": ways[:1]}):
        console.print(table)
    text = console.export_text()
    assert all(level.name in text for level in LEVELS)
    assert "not heard" in text
