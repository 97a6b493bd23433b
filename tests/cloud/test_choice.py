from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.choice import (
    MAX_SLOWNESS,
    YIELD,
    Load,
    choose,
    favourites,
    hashed,
    is_full,
    is_panic,
    less_busy,
    pressure,
    slowness,
)


@dataclass(eq=False)
class Server:
    name: str
    pressure: float = 1.0

    @property
    def seed(self) -> int:
        return hashed(self.name)


def servers(count: int) -> list[Server]:
    return [Server(f"10.0.0.{number}:8000") for number in range(count)]


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        (Load(limit=8), 1.0),
        (Load(limit=8, own=4), 1.5),
        (Load(limit=8, own=2, others=2), 1.5),
        (Load(limit=8, own=8), 2.0),
        (Load(limit=8, own=4, others=4, waiting=4), 2.5),
        (Load(limit=8, own=4, kv_usage=0.9), 1.5),
        (Load(limit=8, own=4, kv_usage=0.95), 2.0),
        (Load(limit=8, own=4, kv_usage=1.0), 2.5),
        (Load(limit=8, failures=4), 2.0),
        (Load(limit=8, failures=1000), 3.0),
        (Load(limit=8, own=4, slowness=4.0), 6.0),
    ],
)
def test_pressure_is_work_and_what_is_in_its_way(load: Load, expected: float) -> None:
    assert pressure(load) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("first_s", "usual_s", "expected"),
    [
        (None, 0.3, 1.0),
        (9.0, None, 1.0),
        (0.3, 0.3, 1.0),
        (0.59, 0.3, 1.0),
        (0.6, 0.3, 2.0),
        (1.2, 0.3, 4.0),
        (0.03, 0.003, 1.0),
        (0.2, 0.003, 2.0),
        (1e9, 0.3, MAX_SLOWNESS),
        (1.0, 0.0, 10.0),
    ],
)
def test_slow_is_what_is_clearly_slower_than_usual(
    first_s: float | None, usual_s: float | None, expected: float
) -> None:
    assert slowness(first_s, usual_s) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        ((8, 7, 0, 0), False),
        ((8, 8, 0, 0), True),
        ((8, 2, 20, 0), False),
        ((8, 2, 6, 1), True),
        ((8, 2, 2, 3), False),
    ],
)
def test_a_replica_is_full_with_our_share_or_with_a_queue_behind_a_full_batch(
    load: tuple[int, int, int, int], expected: bool
) -> None:
    limit, own, others, waiting = load
    assert is_full(limit=limit, own=own, others=others, waiting=waiting) is expected


@pytest.mark.parametrize(
    ("usable", "known", "expected"),
    [
        (0, 0, True),
        (0, 1, True),
        (1, 1, False),
        (1, 2, False),
        (1, 4, False),
        (1, 5, True),
        (4, 20, True),
        (5, 20, False),
    ],
)
def test_panic_is_when_too_few_are_left(usable: int, known: int, expected: bool) -> None:
    assert is_panic(usable, known) is expected


def test_of_two_the_less_busy_answers() -> None:
    both = [Server("a", 0.5), Server("b", 0.25)]
    dice = random.Random(1)
    assert {less_busy(both, dice).name for _ in range(50)} == {"b"}


def test_the_two_are_drawn_evenly_and_are_never_the_same() -> None:
    many, dice = servers(10), random.Random(1)
    many[3].pressure = 9.0
    drawn = Counter(less_busy(many, dice).name for _ in range(9000))
    assert drawn[many[3].name] == 0, "it would need to be drawn against itself"
    assert all(800 < count < 1200 for name, count in drawn.items())


def test_one_candidate_is_taken_however_busy() -> None:
    only = Server("a", 99.0)
    assert choose([only], hashed("device"), random.Random(1)) is only
    assert choose([only], None, random.Random(1)) is only


def test_a_device_keeps_its_favourite() -> None:
    many, dice = servers(20), random.Random(1)
    for number in range(100):
        key = hashed(f"device-{number}")
        assert len({choose(many, key, dice).name for _ in range(10)}) == 1


def test_devices_spread_evenly_over_their_favourites() -> None:
    many = servers(20)
    counted = Counter(favourites(many, hashed(f"device-{number}"))[0].name for number in range(20_000))
    assert len(counted) == 20
    assert min(counted.values()) > 850
    assert max(counted.values()) < 1150


def test_a_replica_that_leaves_moves_only_its_devices_and_spreads_them() -> None:
    many = servers(10)
    rest = [server for server in many if server is not many[4]]
    keys = [hashed(f"device-{number}") for number in range(10_000)]
    moved: Counter[str] = Counter()
    for key in keys:
        before, after = favourites(many, key)[0], favourites(rest, key)[0]
        assert after is before or before is many[4]
        moved[after.name] += before is many[4]
    assert len(+moved) == 9
    assert max(moved.values()) < 1.5 * min(moved[server.name] for server in rest)


def test_workers_agree_whatever_order_they_heard_of_the_replicas_in() -> None:
    many = servers(20)
    shuffled = random.Random(2).sample(many, 20)
    for number in range(100):
        key = hashed(f"device-{number}")
        assert favourites(many, key) == favourites(shuffled, key)


def test_a_hash_is_the_same_in_every_process_and_bears_what_is_no_text() -> None:
    assert hashed("device-1") == 0xAB17A3998D4E6DEB
    assert hashed("\ud800") != hashed("")


@pytest.mark.parametrize(("busier_by", "stays"), [(0.0, True), (YIELD, True), (YIELD + 0.01, False)])
def test_a_favourite_yields_when_it_is_busier_than_others_by_enough(busier_by: float, stays: bool) -> None:
    many, dice, key = servers(20), random.Random(1), hashed("device")
    first, second = favourites(many, key)
    first.pressure = 1 + busier_by
    assert choose(many, key, dice) is (first if stays else second)
    second.pressure = 2.0
    assert (choose(many, key, dice) is first) is stays


@given(st.lists(st.floats(1, 4), min_size=1, max_size=12), st.integers(0, 2**64 - 1), st.integers())
def test_the_chosen_one_is_never_much_busier_than_the_middle(pressures: list[float], key: int, seed: int) -> None:
    many = [Server(str(number), each) for number, each in enumerate(pressures)]
    assert choose(many, key, random.Random(seed)).pressure <= max(pressures)
    if len(many) == 2:
        assert choose(many, key, random.Random(seed)).pressure <= min(pressures) * (1 + YIELD)
