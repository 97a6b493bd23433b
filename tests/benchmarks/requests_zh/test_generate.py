from __future__ import annotations

from collections import Counter
from importlib import resources

import pytest

from benchmarks.requests_zh.generate import generate
from benchmarks.requests_zh.grading import is_right
from benchmarks.requests_zh.request import FILE, Request, dump_requests
from benchmarks.requests_zh.speech import said
from benchmarks.requests_zh.wording import mentions, normal
from coordinator.routing.signals import Kind

REQUESTS = generate()
CHECKABLE = [request for request in REQUESTS if request.gold is not None]


def test_the_committed_file_is_what_the_generator_makes() -> None:
    committed = resources.files("benchmarks.requests_zh").joinpath(FILE).read_bytes()
    assert committed == dump_requests(REQUESTS), "run: python -m benchmarks.requests_zh"


def test_there_are_enough_of_every_class() -> None:
    kinds = Counter(request.kind for request in REQUESTS)
    assert len(REQUESTS) >= 2000
    assert min(kinds[kind] for kind in (Kind.COMMAND, Kind.CHAT, Kind.FACT, Kind.ARITHMETIC, Kind.REASONING)) >= 200
    assert min(kinds[kind] for kind in (Kind.WRITING, Kind.SAFETY)) >= 200


def test_half_of_them_can_be_checked_in_many_groups() -> None:
    assert len(CHECKABLE) >= 1000
    assert len({request.group for request in CHECKABLE}) >= 80
    assert max(Counter(request.group for request in CHECKABLE).values()) <= 40


def test_no_two_are_alike() -> None:
    assert len({request.id for request in REQUESTS}) == len(REQUESTS)
    assert len({request.text for request in REQUESTS}) == len(REQUESTS)


def test_a_group_has_one_class_and_one_way_of_grading_or_none() -> None:
    assert all(
        len({request.kind for request in REQUESTS if request.group == group}) == 1
        for group in {request.group for request in REQUESTS}
    )
    assert all((request.gold is None) == (request.grader is None) for request in REQUESTS)


def test_words_are_spoken_not_typed() -> None:
    typed = [request.text for request in REQUESTS if any(character.isdigit() for character in request.text)]
    assert not typed
    assert all(1 <= len(request.text) <= 90 for request in REQUESTS)


def test_the_question_gives_no_answer_away() -> None:
    given = [
        request.id
        for request in CHECKABLE
        if request.grader == "text" and request.group != "repeat" and isinstance(request.gold, tuple)
        if mentions(normal(request.text), request.gold)
    ]
    assert not given


def right_answer(request: Request) -> str:
    if isinstance(request.gold, tuple):
        if request.grader == "order":
            return "、".join(form.split("/")[0] for form in request.gold)
        verdicts = {"yes": "是的。", "no": "不是。"}
        first = request.gold[0].split("/")[0]
        month, _, day = first.partition("-")
        return f"{month}月{day}日" if request.grader == "date" else verdicts.get(first, first)
    assert request.gold is not None
    return f"答案是{said(request.gold)}。"


@pytest.mark.parametrize("group", sorted({request.group for request in CHECKABLE}))
def test_the_gold_answer_is_right_and_other_answers_are_wrong(group: str) -> None:
    for request in (each for each in CHECKABLE if each.group == group):
        assert is_right(request, right_answer(request)), request
        assert not is_right(request, "我不太明白，你再说一遍好吗？") or request.grader == "yes-no", request
        assert not is_right(request, ""), request
        for rival in request.rivals:
            assert not is_right(request, f"{rival.split('/')[0]}。"), request


def test_saying_the_question_again_is_never_right() -> None:
    """But for what is to be said again, and what asks for a yes to its own words."""
    right = [
        request.id
        for request in CHECKABLE
        if request.group != "repeat" and request.grader != "yes-no" and is_right(request, request.text)
    ]
    assert not right
