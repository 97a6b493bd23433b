"""``python -m benchmarks cache`` from end to end at its smallest."""

from __future__ import annotations

from benchmarks import cache
from tests.real_time import run


def test_the_benchmark_runs_and_every_turn_of_it_is_answered_and_right() -> None:
    async def scenario() -> None:
        results = await cache.measured(quick=True)
        assert set(results["tiers"]) == set(results["audio_hit_ms"]["by_tier"]) == {"l1", "l2", "l3"}
        assert results["herd"]["model_calls"] == 1
        assert set(results["faults"]) == set(cache.QUICK_FAULTS)
        for figures in results["faults"].values():
            assert figures["turns"] == figures["answered"] == figures["right"] > 0
        assert cache.tables_of(results)

    run(scenario(), timeout_s=240)
