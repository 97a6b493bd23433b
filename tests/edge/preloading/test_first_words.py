from __future__ import annotations

from pathlib import Path

import pytest

from coordinator.cache.keys import is_memorable
from edge.brain.conversation import Conversation
from edge.preloading.first_words import FIRST_WORDS, MAX_QUESTIONS, read_questions
from models.errors import ConfigError


def test_all_first_words_may_be_remembered() -> None:
    for language, questions in FIRST_WORDS.items():
        for question in questions:
            assert is_memorable(Conversation("d", language=language).prompt("t", question)), question


def test_a_file_names_questions_in_either_language(tmp_path: Path) -> None:
    path = tmp_path / "questions.txt"
    path.write_text("# ours\n\n熊猫吃什么\nen: what do pandas eat\nzh: 一加一: 等于几\nratio: 3:4\n", encoding="utf-8")
    assert read_questions(path, "zh") == [
        ("zh", "熊猫吃什么"),
        ("en", "what do pandas eat"),
        ("zh", "一加一: 等于几"),
        ("zh", "ratio: 3:4"),
    ]


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "cannot be read"), (b"\xff\xfe", "UTF-8"), (b"q\n" * (MAX_QUESTIONS + 1), "at most 1000")],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "questions.txt"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=reason) as told:
        read_questions(path, "zh")
    assert "questions.txt" in str(told.value)
