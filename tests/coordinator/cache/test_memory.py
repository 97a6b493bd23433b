from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coordinator.cache.memory import MemoryTier, Policy


def test_a_value_is_forgotten_when_its_time_is_over() -> None:
    clock = [0.0]
    tier = MemoryTier(now=lambda: clock[0])
    tier.put("k", b"v", 10)
    clock[0] = 9.9
    assert tier.get("k") == b"v"
    clock[0] = 10.0
    assert tier.get("k") is None
    assert (len(tier), tier.held_bytes) == (0, 0)


@pytest.mark.parametrize("policy", ["tiny_lfu", "lru"])
def test_entries_are_bounded(policy: Policy) -> None:
    tier = MemoryTier(max_entries=50, policy=policy)
    for number in range(1000):
        tier.put(f"answer:{number}", b"1", 60)
    assert 0 < len(tier) <= 50


def test_bytes_are_bounded_and_a_giant_is_not_kept() -> None:
    tier = MemoryTier(max_bytes=10_000)
    tier.put("big", b"x" * 10_000, 60)
    assert len(tier) == 0
    for number in range(200):
        tier.put(f"k{number:02}", b"x" * 600, 60)
    assert 0 < tier.held_bytes <= 10_000
    assert tier.evicted["size"] > 100


def test_no_room_keeps_nothing() -> None:
    tier = MemoryTier(max_bytes=0)
    tier.put("k", b"v", 60)
    assert len(tier) == 0


def test_replacing_a_value_does_not_count_it_twice() -> None:
    tier = MemoryTier()
    tier.put("k", b"x" * 10_000, 60)
    tier.put("k", b"x" * 5_000, 60)
    assert len(tier) == 1
    assert tier.held_bytes < 6_000


def test_what_is_asked_for_most_outlives_a_flood_of_what_is_asked_for_once() -> None:
    """The reason for the policy: least recently used loses all of the popular ones."""
    kept = {}
    for policy in ("tiny_lfu", "lru"):
        tier = MemoryTier(max_entries=100, policy=policy)  # type: ignore[arg-type]  # as above
        for _ in range(20):
            for popular in range(50):
                if tier.get(f"popular:{popular}") is None:
                    tier.put(f"popular:{popular}", b"v", 60)
        for once in range(2_000):
            tier.put(f"once:{once}", b"v", 60)
        kept[policy] = sum(tier.get(f"popular:{popular}") is not None for popular in range(50))
    assert kept["lru"] == 0
    assert kept["tiny_lfu"] > 40


def test_a_purge_takes_a_kind_or_everything_and_later_values_stay() -> None:
    tier = MemoryTier()
    for key in ("speech:a", "answer:a"):
        tier.put(key, b"v", 60)
    tier.purge("speech:")
    assert (tier.get("speech:a"), tier.get("answer:a")) == (None, b"v")
    tier.put("speech:a", b"w", 60)
    assert tier.get("speech:a") == b"w"
    tier.purge("speech:a")
    assert tier.get("speech:a") is None
    tier.purge("")
    assert tier.get("answer:a") is None
    tier.put("answer:a", b"w", 60)
    assert tier.get("answer:a") == b"w"


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 40), st.integers(1_000, 60_000))
def test_whatever_is_done_the_bounds_hold_and_values_are_their_keys(
    seed: int, max_entries: int, max_bytes: int
) -> None:
    dice = random.Random(seed)
    tier = MemoryTier(max_entries=max_entries, max_bytes=max_bytes)
    for _ in range(300):
        key = f"answer:{dice.randrange(60)}"
        action = dice.random()
        if action < 0.6:
            tier.put(key, key.encode() * dice.randrange(1, 200), 60)
        elif action < 0.9:
            value = tier.get(key)
            assert value is None or value.startswith(key.encode())
        else:
            tier.drop(key)
            assert tier.get(key) is None
    assert len(tier) <= max_entries
    assert tier.held_bytes <= max_bytes
