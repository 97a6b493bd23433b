from __future__ import annotations

import random
import re
from itertools import permutations

import pytest

from benchmarks.requests_zh.logic import LOGIC
from benchmarks.requests_zh.numerals import value_of
from benchmarks.requests_zh.request import Draft

SEEDS = range(80)


def drafts(group: str) -> list[Draft]:
    maker, _ = LOGIC[group]
    return [maker(random.Random(seed)) for seed in SEEDS]


def gold(draft: Draft) -> str:
    assert isinstance(draft.gold, tuple)
    return draft.gold[0]


def ranked(draft: Draft) -> list[tuple[str, ...]]:
    """Return the orders, largest first, that the comparisons told allow."""
    told = re.findall("(.{2})比(.{2})(高|矮|重|轻|跑得快|跑得慢|年纪大|年纪小)", draft.text)
    people = sorted({name for a, b, _ in told for name in (a, b)})
    more = ("高", "重", "跑得快", "年纪大")
    pairs = [(a, b) if quality in more else (b, a) for a, b, quality in told]
    return [order for order in permutations(people) if all(order.index(a) < order.index(b) for a, b in pairs)]


@pytest.mark.parametrize("group", ["extreme", "middle"])
def test_the_comparisons_allow_one_answer(group: str) -> None:
    for draft in drafts(group):
        orders = ranked(draft)
        asks = draft.text.rpartition("，")[2]
        place = 1 if group == "middle" else 0 if re.search("最[高重快大]", asks) else -1
        assert {order[place] for order in orders} == {gold(draft)}, draft.text
        assert gold(draft) not in draft.rivals


def test_the_culprit_is_the_only_one_that_fits() -> None:
    for draft in drafts("liar"):
        people = re.findall("被(.+?)里的一个", draft.text)[0].split("、")
        said = re.findall("(.{2})说(不?是)(我|.{2})(?=，)", draft.text)
        assert len(said) == 3
        honest = 1 if "只有一个人说了真话" in draft.text else 2
        fits = [
            who
            for who in people
            if sum(((speaker if name == "我" else name) == who) == (verb == "是") for speaker, verb, name in said)
            == honest
        ]
        assert fits == [gold(draft)], draft.text


def test_the_owner_is_the_only_one_that_fits() -> None:
    for draft in drafts("assignment"):
        people = re.findall("^(.+?)各养", draft.text)[0].split("、")
        pets = re.findall("分别是(.+?)，", draft.text)[0].split("、")
        denied = [(who, pet) for who, pet in re.findall("(.{2})没养(.{1,2}?)(?=，)", draft.text) if who in people]
        orders = [
            order
            for order in permutations(pets)
            if all((w, p) not in denied for w, p in zip(people, order, strict=True))
        ]
        assert len(orders) == 1, draft.text
        asked = re.findall("，([^，]+)是谁养的", draft.text)[0]
        assert people[orders[0].index(asked)] == gold(draft)


def test_numbers_are_sorted_as_asked() -> None:
    for draft in drafts("sorted-numbers"):
        assert isinstance(draft.gold, tuple)
        values = [int(form.split("/")[1]) for form in draft.gold]
        assert values == sorted(values, reverse="大到小" in draft.text)


def test_the_larger_decimal_and_fraction_are_so() -> None:
    for draft in drafts("larger-decimal"):
        right, wrong = (value_of(form.split("/")[0]) for form in (gold(draft), draft.rivals[0]))
        assert right > wrong if "哪个大" in draft.text else right < wrong
    for draft in drafts("larger-fraction"):
        parts = [[value_of(word) for word in form.split("分之")] for form in (gold(draft), draft.rivals[0])]
        assert parts[0][1] / parts[0][0] > parts[1][1] / parts[1][0]


def test_divisors_and_primes_are_so() -> None:
    for draft in drafts("divisible"):
        value, by = (value_of(word) for word in re.findall("^(.+)能被(.+)整除", draft.text)[0])
        assert gold(draft) == ("yes" if value % by == 0 else "no")
    for draft in drafts("prime"):
        value = int(value_of(re.findall("^(.+)是质数", draft.text)[0]))
        divisors = [n for n in range(1, value + 1) if value % n == 0]
        assert gold(draft) == ("yes" if len(divisors) == 2 else "no")


def test_both_verdicts_occur() -> None:
    for group in ("syllogism", "condition", "prime", "divisible"):
        assert {gold(draft) for draft in drafts(group)} == {"yes", "no"}


@pytest.mark.parametrize("group", LOGIC)
def test_every_puzzle_has_an_answer(group: str) -> None:
    for draft in drafts(group):
        assert draft.gold is not None
        assert draft.grader is not None
