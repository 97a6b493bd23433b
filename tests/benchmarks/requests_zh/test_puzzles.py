from __future__ import annotations

import random
import re
from itertools import combinations, pairwise

import pytest

from benchmarks.requests_zh.numerals import numbers_in, value_of
from benchmarks.requests_zh.puzzles import PUZZLES
from benchmarks.requests_zh.request import Draft

SEEDS = range(60)


def drafts(group: str) -> list[Draft]:
    maker, _ = PUZZLES[group]
    return [maker(random.Random(seed)) for seed in SEEDS]


def values(draft: Draft) -> list[int]:
    return [int(found.value) for found in numbers_in(draft.text) if not found.is_weak]


def test_a_sentence_is_counted_by_its_characters() -> None:
    for draft in drafts("characters"):
        assert len(re.findall("“(.+)”", draft.text)[0]) == draft.gold
        assert draft.is_verbatim


def test_letters_are_counted_in_the_word() -> None:
    for draft in drafts("letters"):
        word, letter = re.findall("单词([a-z]+)里面有几个字母([a-z])", draft.text)[0]
        assert word.count(letter) == draft.gold > 1


def test_a_character_is_found_by_its_place() -> None:
    for draft in drafts("nth-character"):
        phrase, place = re.findall("^(.+)这四个字里，第(.)个", draft.text)[0]
        assert draft.gold == (phrase[int(value_of(place)) - 1],)
        assert len({*draft.rivals}) == 3


def test_digits_are_turned_and_added() -> None:
    for draft in drafts("digits-reversed"):
        number = value_of(re.findall("把(.+)这个数的", draft.text)[0])
        assert str(draft.gold) == f"{number:g}"[::-1]
    for draft in drafts("digit-sum"):
        number = value_of(re.findall("^(.+)这个数", draft.text)[0])
        assert sum(map(int, f"{number:g}")) == draft.gold


def test_everyone_meets_everyone_once() -> None:
    for draft in drafts("handshakes"):
        people = int(value_of(re.findall("^(.+?)(?:个人|支球队)", draft.text)[0]))
        assert len(list(combinations(range(people), 2))) == draft.gold


def test_a_knockout_sends_all_but_one_home() -> None:
    for draft in drafts("knockout"):
        left, matches = values(draft)[0], 0
        while left > 1:
            left, matches = left - 1, matches + 1
        assert matches == draft.gold


def test_the_queue_is_as_long_as_its_parts() -> None:
    for draft in drafts("queue-total"):
        front, back = values(draft)[:2]
        assert draft.gold == (front + 1 + back if "后面有" in draft.text else front - 1 + 1 + back - 1)
    for draft in drafts("queue-between"):
        first, last = values(draft)
        assert len(range(first + 1, last)) == draft.gold


def test_overlapping_sets_count_their_members_once() -> None:
    for draft in drafts("sets"):
        a, b, _, both = values(draft)  # the third is in 两样
        members = {*range(a), *range(a - both, a - both + b)}
        assert len(members) == draft.gold


@pytest.mark.parametrize("group", ["turning", "beside"])
def test_directions_are_followed(group: str) -> None:
    compass = "北东南西"
    turns = {"左": -1, "右": 1, "后": 2}
    for draft in drafts(group):
        start = compass.index(re.findall("朝(.)", draft.text)[0])
        told = re.findall("向(.)转", draft.text) or [re.findall("我的(左|右|背)", draft.text)[0].replace("背", "后")]
        facing = compass[(start + sum(turns[turn] for turn in told)) % 4]
        assert draft.gold == (facing,)
        assert facing not in draft.rivals


def test_series_go_on_as_they_began() -> None:
    for draft in drafts("sequence"):
        terms = [*values(draft)[-5:], draft.gold]
        assert all(isinstance(term, int) for term in terms)
        steps = [int(b) - int(a) for a, b in pairwise(terms)]  # type: ignore[arg-type]
        second = [b - a for a, b in pairwise(steps)]
        is_sum = all(int(terms[n]) == int(terms[n - 1]) + int(terms[n - 2]) for n in range(2, 6))  # type: ignore[arg-type]
        is_product = all(int(b) * int(terms[0]) == int(a) * int(terms[1]) for a, b in pairwise(terms))  # type: ignore[arg-type]
        assert len(set(second)) == 1 or is_sum or is_product, draft.text


@pytest.mark.parametrize("group", PUZZLES)
def test_every_puzzle_has_an_answer(group: str) -> None:
    for draft in drafts(group):
        assert draft.gold is not None
        assert draft.grader in ("number", "category")
