from __future__ import annotations

import pytest

from edge.gateway.vision_words import SYSTEM_PROMPTS, language_of, told


@pytest.mark.parametrize(
    ("question", "default", "language"),
    [
        ("这是什么？", "en", "zh"),
        ("What is this?", "zh", "en"),
        ("这是 iPhone 吗", "en", "zh"),
        ("???", "zh", "zh"),
        ("???", "en", "en"),
        ("", "zh", "zh"),
    ],
)
def test_language_is_that_of_the_question(question: str, default: str, language: str) -> None:
    assert language_of(question, default) == language
    assert SYSTEM_PROMPTS[language]


@pytest.mark.parametrize(
    "code", ["private", "too-large", "busy", "llm-overloaded", "llm-deadline", "cloud-unreachable", "?"]
)
def test_every_reason_has_words_in_both_languages(code: str) -> None:
    assert told(code, "zh") != told(code, "en")
    assert told(code, "en").isascii()


def test_private_device_is_told_why() -> None:
    assert "private" in told("private", "en")
