from __future__ import annotations

import json

import pytest

from benchmarks.routing_data import (
    STRONG,
    SUBJECTS,
    WEAK,
    load_gsm8k,
    load_mmlu,
    load_pair,
    near_copies,
    template,
)
from models.errors import ConfigError

HEADER = f"prompt,{WEAK},{STRONG}\n"
SUM = "Anna buys 3 apples at the market and gives 2 of them to her brother Tom. How many are left?"


def test_near_copies_share_the_first_ones_number():
    texts = [SUM, "Why is the sky blue?", SUM.replace("3", "17"), SUM.replace("Tom", "Tim"), "Who wrote Faust?"]
    assert near_copies(texts) == [0, 1, 0, 0, 4]


def test_nothing_has_no_copies():
    assert near_copies([]) == []


@pytest.mark.parametrize(("left", "right"), [("It costs 1,200.50!", "it  costs 3"), ("A-b", "a b")])
def test_templates_leave_out_numbers_case_and_marks(left, right):
    assert template(left) == template(right)


def test_mmlu_is_grouped_by_subject(tmp_path):
    (tmp_path / "mmlu").mkdir()
    for number in range(SUBJECTS):
        (tmp_path / "mmlu" / f"mmlu_s{number}.csv").write_text(HEADER + '"What?\nA. 1\nB. 2",True,False\n')
    items = load_mmlu(tmp_path)
    assert len(items) == SUBJECTS
    assert {item.group for item in items} == {f"s{number}" for number in range(SUBJECTS)}
    assert (items[0].text, items[0].edge, items[0].cloud) == ("What?\nA. 1\nB. 2", 1.0, 0.0)


def test_missing_subjects_are_counted(tmp_path):
    with pytest.raises(ConfigError, match="0 of 57"):
        load_mmlu(tmp_path)


@pytest.mark.parametrize("record", ["what,True,maybe\n", ",True,True\n", "what\n"])
def test_a_malformed_record_is_named(tmp_path, record):
    (tmp_path / "gsm8k_responses.csv").write_text(HEADER + "fine,True,True\n" + record)
    with pytest.raises(ConfigError, match="record 2"):
        load_gsm8k(tmp_path)


def test_an_empty_or_missing_file_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="--data"):
        load_gsm8k(tmp_path)
    (tmp_path / "gsm8k_responses.csv").write_text(HEADER)
    with pytest.raises(ConfigError, match="no questions"):
        load_gsm8k(tmp_path)


def test_a_pair_is_read_with_marks_in_part(tmp_path):
    rows = [{"question": SUM, "scores": {"a": 0.25, "b": 1}}, {"question": SUM + " ", "scores": {"a": 0, "b": 1}}]
    (tmp_path / "llmrouter_train.json").write_text(json.dumps(rows))
    items = load_pair(tmp_path, "a", "b")
    assert [(item.edge, item.cloud, item.group) for item in items] == [
        (0.25, 1.0, "llmrouter-0"),
        (0.0, 1.0, "llmrouter-0"),
    ]


@pytest.mark.parametrize(
    ("content", "match"), [("[]x", "LLMRouter"), ('[{"question":"q","scores":{"a":1}}]', "score of b")]
)
def test_a_file_of_another_kind_is_refused(tmp_path, content, match):
    (tmp_path / "llmrouter_train.json").write_text(content)
    with pytest.raises(ConfigError, match=match):
        load_pair(tmp_path, "a", "b")
