from __future__ import annotations

import pytest

from benchmarks.engine_audio import measure, tables


@pytest.mark.engine
def test_sound_goes_through_many_times_faster_than_it_is_spoken() -> None:
    told: list[str] = []
    results = measure(told.append, quick=True)
    assert results["decoder_x_real_time_per_core"] > results["x_real_time_per_core"] > 1
    assert told


def test_the_results_make_a_table() -> None:
    (table,) = tables(
        {
            "devices": 64,
            "x_real_time_per_core": 400,
            "decoder_x_real_time_per_core": 1500,
            "cores_at_150_streams": 0.375,
        }
    )
    assert table.row_count == 3
