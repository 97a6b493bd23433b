from __future__ import annotations

import pytest

from benchmarks.soak_memory import Point, own_fds, own_rss_mib, rounded, slope


def test_a_steady_gain_is_its_slope() -> None:
    points = [Point(done, 50 + done * 0.002) for done in range(0, 1000, 50)]
    assert slope(points, 1000) == pytest.approx(2.0)


def test_what_grows_only_in_the_first_half_is_flat() -> None:
    points = [Point(done, 50 + min(done, 450) * 0.1) for done in range(0, 1001, 50)]
    assert slope(points, 1000) == pytest.approx(0.0)


@pytest.mark.parametrize(
    "points",
    [[], [Point(0, 1.0), Point(10, 2.0)], [Point(5, float(mib)) for mib in range(9)]],
    ids=["none", "too-few", "nothing-done"],
)
def test_what_has_no_slope_has_none(points: list[Point]) -> None:
    assert slope(points, 1) is None


def test_memory_that_is_held_is_seen() -> None:
    before = own_rss_mib()
    held = bytearray(b"x") * (32 << 20)
    assert own_rss_mib() - before > 24, len(held)


def test_an_open_file_is_counted() -> None:
    before = own_fds()
    with open(__file__, "rb"):  # noqa: PTH123
        assert own_fds() == before + 1
    assert own_fds() == before


def test_rounding_keeps_none() -> None:
    assert (rounded(None), rounded(1.23456)) == (None, 1.235)
