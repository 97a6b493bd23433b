from __future__ import annotations

from coordinator.continuation import continued
from tests.coordinator.sources import EASY, prompt_of


def test_the_beginning_becomes_the_last_message_and_the_question_stays() -> None:
    prompt = continued(prompt_of(EASY), "水的沸点", 2.5)
    assert [(message.role, message.text) for message in prompt.messages] == [("user", EASY), ("assistant", "水的沸点")]
    assert (prompt.question, prompt.budget_ms) == (EASY, 2500)


def test_a_longer_beginning_goes_into_the_same_message() -> None:
    prompt = continued(continued(prompt_of(EASY), "水的沸点，", 2.5), "是一百度。", 1.0)
    assert [message.text for message in prompt.messages] == [EASY, "水的沸点，是一百度。"]


def test_nothing_begun_changes_only_the_time_left() -> None:
    prompt = continued(prompt_of(EASY), "", -1.0)
    assert prompt.messages == prompt_of(EASY).messages
    assert prompt.budget_ms == 1, "a completer then says itself that it is over"
