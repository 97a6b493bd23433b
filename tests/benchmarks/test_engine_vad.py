from __future__ import annotations

import numpy as np
import pytest

from benchmarks import engine_vad
from benchmarks.engine_vad import measure, tables
from models.errors import ConfigError


async def buzzing(sentences) -> list[np.ndarray]:
    """Stand in for the voices: a second of a buzz for each sentence."""
    time_s = np.arange(16_000) / 16_000
    buzz = sum(np.sin(2 * np.pi * 120 * harmonic * time_s) / harmonic for harmonic in range(1, 12))
    return [(6000 * buzz).astype(np.int16) for _ in sentences]


@pytest.mark.engine
def test_every_figure_is_there_and_fits_into_the_tables(monkeypatch):
    monkeypatch.setattr(engine_vad, "said", buzzing)
    monkeypatch.setattr(engine_vad, "DEVICES", 4)
    said: list[str] = []
    results = measure(said.append, quick=True, variant="batched")
    assert results["variant"] == "batched"
    assert results["windows_per_core_s"] > 0
    assert results["single_windows_per_core_s"] > 0
    assert results["batched_over_single"] > 0
    assert results["frame_ms"]["n"] == 4 * 33
    assert set(results["variants"]) == {"fp32", "batched", "int8", "fp16"}
    assert results["variants"]["batched"]["max_difference"] < 1e-3
    assert said
    figures, variants = tables(results)
    assert (figures.row_count, variants.row_count) == (6, 4)


@pytest.mark.engine
def test_without_the_library_only_the_pulled_model_is_measured(monkeypatch):
    monkeypatch.setattr(engine_vad, "said", buzzing)
    monkeypatch.setattr(engine_vad, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match="variant int8 has to be made"):
        measure(lambda _line: None, quick=True, variant="int8")
