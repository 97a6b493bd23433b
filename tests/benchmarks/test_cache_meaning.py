from __future__ import annotations

import pytest

from benchmarks.cache_meaning import likeness_alone, measure, of_requests, times, wilson
from benchmarks.meaning_zh import NEAR_MISSES, PARAPHRASES, Pair, load_pairs


def pair(a: str, b: str) -> Pair:
    return Pair(split="tuning", kind="name", a=a, b=b)


@pytest.mark.parametrize(
    ("successes", "trials", "low", "high"),
    [(0, 0, 0, 1), (0, 300, 0, 0.0126), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1)],
)
def test_the_interval_of_a_share_is_wilsons(successes: int, trials: int, low: float, high: float) -> None:
    assert wilson(successes, trials) == pytest.approx((low, high), abs=1e-4)


def test_likeness_alone_takes_near_misses_that_look_more_alike_than_paraphrases() -> None:
    near = [pair("猫为什么怕水", "狗为什么怕水"), pair("一二三四五", "天地玄黄")]
    same = [pair("红烧肉怎么做", "怎么做红烧肉"), pair("咋回事", "为什么这样")]
    result = likeness_alone(near, same, hits=2)
    assert result["hit"]["share"] == 1
    assert result["wrong"]["hits"] == 2
    assert likeness_alone(near, same, hits=0)["wrong"]["hits"] == 0
    assert likeness_alone(near, same, hits=1)["wrong"]["hits"] <= 1


@pytest.mark.parametrize(("file", "least"), [(NEAR_MISSES, 600), (PARAPHRASES, 400)])
def test_the_pairs_are_many_and_each_is_there_once(file: str, least: int) -> None:
    pairs = load_pairs(file)
    assert len(pairs) >= least
    assert len({frozenset((each.a, each.b)) for each in pairs}) == len(pairs)
    assert all(each.a != each.b for each in pairs)
    halves = [sum(each.split == split for each in pairs) for split in ("held-out", "tuning")]
    assert min(halves) >= 200


def test_no_question_is_in_both_halves_of_the_near_misses() -> None:
    sides = [
        {text for each in load_pairs(NEAR_MISSES) if each.split == split for text in (each.a, each.b)}
        for split in ("held-out", "tuning")
    ]
    assert not sides[0] & sides[1]


def test_times_are_of_all_requests() -> None:
    result = times()
    assert result["n"] > 1000
    assert 0 < result["form_us"]["p50"] <= result["form_us"]["p99"]


def test_requests_with_different_answers_are_never_the_same() -> None:
    assert of_requests()["wrong"]["hits"] == 0


def test_the_published_figures_hold() -> None:
    result = measure()
    assert result["wrong"] <= 0.005
    assert result["hit"] >= 0.55
    for split in result["splits"].values():
        assert split["wrong"]["share"] <= 0.005
        assert split["likeness_alone"]["hit"]["share"] >= split["hit"]["share"]
