from __future__ import annotations

import pytest

from benchmarks.cache_tiers import ANSWER_BYTES, KEYS, SPEECH_BYTES, far_results, near_results, values_of
from coordinator.cache.kinds import Kind
from coordinator.cache.memory import MemoryTier
from coordinator.cache.tiers import FarTier
from models.errors import CacheError
from tests.coordinator.cache.tiers import FakeTier
from tests.virtual_time import run


class Forgetful(FakeTier):
    """Knows nothing a moment later."""

    async def get(self, key: str) -> bytes | None:
        return None


class Confused(FakeTier):
    """Answers with another key's bytes."""

    async def get(self, key: str) -> bytes | None:
        return next((stored for other, stored in self.held.items() if other != key), None)


def test_values_have_their_size_and_are_the_same_every_time() -> None:
    speech, answers = values_of(Kind.SPEECH), values_of(Kind.ANSWER)
    assert {len(value) for value in speech.values()} == {SPEECH_BYTES}
    assert {len(value) for value in answers.values()} <= set(range(ANSWER_BYTES - 2, ANSWER_BYTES + 1))
    assert len(speech) == len(answers) == len(set(speech.values())) == KEYS
    assert values_of(Kind.SPEECH) == speech


def test_memory_is_measured_for_hits_and_misses_of_both_kinds() -> None:
    results = near_results(MemoryTier(), 200)
    assert results["get_ms"] == results["speech"]["hit_ms"]
    for kind in ("speech", "answer"):
        for sort in ("hit_ms", "miss_ms"):
            assert 0 < results[kind][sort]["p50"] <= results[kind][sort]["p99"]


def test_a_memory_too_small_for_the_values_is_not_measured_as_one_that_hits() -> None:
    with pytest.raises(CacheError, match="memory"):
        near_results(MemoryTier(max_bytes=SPEECH_BYTES), 200)


def test_a_far_tier_is_measured_and_left_empty() -> None:
    tier = FakeTier()
    results = run(far_results(tier, 100))
    assert results.keys() == {"get_ms", "ping_ms", "speech", "answer"}
    assert results["answer"].keys() == {"hit_ms", "miss_ms", "put_ms"}
    assert tier.held == {}


@pytest.mark.parametrize("tier", [Forgetful(), Confused()], ids=["forgets", "confuses"])
def test_a_tier_that_is_wrong_has_no_figures(tier: FarTier) -> None:
    with pytest.raises(CacheError):
        run(far_results(tier, 100))
