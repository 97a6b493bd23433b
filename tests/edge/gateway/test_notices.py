from __future__ import annotations

import pytest

from edge.gateway.admission import TOLD_ALOUD
from edge.gateway.notices import notice
from models.errors import OverloadedError

CODES = ("full", "busy", "draining", "brain-away", "llm-overloaded", "asr-failed", "whatever")


@pytest.mark.parametrize(
    ("language", "is_chinese"),
    [("", True), ("zh", True), ("zh-CN", True), ("ZH_TW", True), ("en", False), ("en-GB", False), ("de", False)],
)
@pytest.mark.parametrize("code", CODES)
def test_words_are_in_the_language_asked_for(code: str, language: str, is_chinese: bool) -> None:
    shown = notice(code, language)
    assert all(part.isascii() != is_chinese for part in (shown.status, shown.message))


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize("code", CODES)
def test_every_part_is_there_and_fits_a_small_screen(code: str, language: str) -> None:
    shown = notice(code, language)
    assert 0 < len(shown.status) <= 20
    assert 0 < len(shown.message) <= 80
    assert shown.emotion == "sad"
    assert code not in shown.message


def test_being_full_is_one_thing_wherever_it_is_noticed() -> None:
    assert notice("full") == notice(OverloadedError.code)
    assert notice("full") != notice("draining") != notice("asr-failed")
    assert all(notice(code) != notice("whatever") for code in TOLD_ALOUD)
