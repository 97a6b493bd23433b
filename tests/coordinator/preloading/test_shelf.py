from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator.cache.memory import MemoryTier
from coordinator.preloading.shelf import ShelvedTier, weight


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def key(number: int) -> str:
    return f"speech:{number:064x}"


ONE = weight(key(0), b"x" * 100)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def rest(clock: Clock) -> MemoryTier:
    return MemoryTier(now=clock)


@pytest.fixture
def tier(clock: Clock, rest: MemoryTier) -> ShelvedTier:
    return ShelvedTier(rest, shelf_bytes=2 * ONE, now=clock)


def put(tier: ShelvedTier, *numbers: int, ttl_s: float = 100) -> None:
    for number in numbers:
        tier.put(key(number), bytes([number]) * 100, ttl_s)


def test_wanted_go_on_the_shelf_and_others_to_the_rest(tier: ShelvedTier, rest: MemoryTier) -> None:
    assert tier.want([key(1), key(2)]) == [key(1), key(2)]
    put(tier, 1, 3)
    assert (len(tier), tier.held_bytes) == (1, ONE)
    assert rest.get(key(1)) is None
    assert tier.get(key(1)) == b"\x01" * 100
    assert tier.get(key(3)) == b"\x03" * 100
    assert tier.want([key(1), key(2)]) == [key(2)]


def test_no_longer_wanted_stays_until_the_room_is_needed_then_goes_to_the_rest(
    tier: ShelvedTier, rest: MemoryTier
) -> None:
    tier.want([key(1), key(2)])
    put(tier, 1, 2)
    tier.want([key(3), key(2)])
    assert len(tier) == 2
    put(tier, 3)
    assert rest.get(key(1)) == b"\x01" * 100
    assert rest.get(key(3)) is None
    assert all(tier.get(key(number)) is not None for number in (1, 2, 3))


def test_less_wanted_does_not_push_out_what_is_more(tier: ShelvedTier, rest: MemoryTier) -> None:
    tier.want([key(1), key(2), key(3)])
    put(tier, 1, 2)
    tier.want([key(1), key(2), key(3)])
    put(tier, 3)
    assert rest.get(key(3)) is not None
    assert tier.held_bytes == 2 * ONE


def test_too_old_is_forgotten_and_loaded_again(tier: ShelvedTier, clock: Clock) -> None:
    tier.want([key(1)])
    put(tier, 1, ttl_s=10)
    clock.now_s = 10
    assert tier.want([key(1)]) == [key(1)]
    assert tier.get(key(1)) is None
    assert tier.held_bytes == 0


def test_purge_and_drop_reach_the_shelf_and_the_rest(tier: ShelvedTier) -> None:
    tier.want([key(1), key(2)])
    put(tier, 1, 2, 3)
    tier.drop(key(1))
    assert tier.get(key(1)) is None
    tier.purge("answer:")
    assert tier.get(key(2)) is not None
    tier.purge("speech:")
    assert [tier.get(key(number)) for number in (2, 3)] == [None, None]
    assert tier.held_bytes == 0


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 3)), max_size=60), st.lists(st.integers(0, 9), unique=True))
def test_shelf_never_holds_more_than_its_room(puts, wanted) -> None:
    tier = ShelvedTier(MemoryTier(), shelf_bytes=5 * ONE)
    for at, (number, size) in enumerate(puts):
        if at % 7 == 0:
            tier.want([key(each) for each in wanted[at % 3 :]])
        tier.put(key(number), b"x" * 100 * size, 100)
        assert tier.held_bytes <= 5 * ONE
        assert tier.get(key(number)) == b"x" * 100 * size
