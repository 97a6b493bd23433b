from __future__ import annotations

import random

import pytest

from benchmarks.requests_zh.templates import FILES, Group, drafts_of, load_groups
from coordinator.routing.signals import Kind
from models.errors import ConfigError


def group(**fields: object) -> Group:
    return Group(**{"name": "g", "kind": Kind.FACT, **fields})  # type: ignore[arg-type]


def test_an_item_is_asked_with_its_accepted_forms() -> None:
    (draft,) = drafts_of(group(grader="text", ask=("{}的首都？",), items="日本=东京|東京"), random.Random(1))
    assert (draft.text, draft.gold, draft.grader) == ("日本的首都？", ("东京", "東京"), "text")


def test_a_number_may_have_a_tolerance_and_a_unit() -> None:
    (draft,) = drafts_of(group(grader="number", items="马拉松多长=42±0.3", unit="年"), random.Random(1))
    assert (draft.gold, draft.tolerance, draft.unit) == (42.0, 0.3, "年")


def test_a_choice_has_its_rivals() -> None:
    (draft,) = drafts_of(group(grader="choice", items="哪个大=日/太阳~月~星"), random.Random(1))
    assert (draft.gold, draft.rivals) == (("日/太阳",), ("月", "星"))


def test_a_class_has_the_others_as_rivals() -> None:
    (draft,) = drafts_of(group(grader="category", classes="鱼类~鸟类/鸟~哺乳", items="企鹅=鸟"), random.Random(1))
    assert (draft.gold, draft.rivals) == (("鸟类", "鸟"), ("鱼类", "哺乳"))


def test_the_ways_to_ask_take_turns() -> None:
    drafts = drafts_of(group(grader="text", ask=("甲{}", "乙{}"), items="一=a\n二=b\n三=c\n四=d"), random.Random(1))
    assert sorted(draft.text[0] for draft in drafts) == ["乙", "乙", "甲", "甲"]


def test_slots_are_filled_without_repeating() -> None:
    drafts = drafts_of(group(ask=("开{x}",), slots={"x": ("灯", "窗", "门")}, take=9), random.Random(1))
    assert sorted(draft.text for draft in drafts) == ["开灯", "开窗", "开门"]
    assert all(draft.gold is None for draft in drafts)


def test_lines_stand_as_they_are() -> None:
    assert [draft.text for draft in drafts_of(group(lines="\n你好\n再见\n"), random.Random(1))] == ["你好", "再见"]


@pytest.mark.parametrize("fields", [{"grader": "text", "items": "没有答案"}, {"items": "一=二"}])
def test_an_item_without_answer_or_grader_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="QUESTION=ANSWER"):
        drafts_of(group(**fields), random.Random(1))


def test_a_missing_file_is_named() -> None:
    with pytest.raises(ConfigError, match=r"nothing\.toml"):
        load_groups("nothing.toml")


@pytest.mark.parametrize("file", FILES)
def test_every_file_can_be_read(file: str) -> None:
    groups = load_groups(file)
    assert groups
    assert all(drafts_of(each, random.Random(1)) for each in groups)
