from __future__ import annotations

from benchmarks.cache_turns import HERD, answer_to, audio_hits, herd, node, question
from coordinator.cache.keys import is_memorable
from models.prompts import Message, Prompt
from tests.coordinator.cache.tiers import FakeTier
from tests.real_time import run


def test_the_questions_may_be_remembered_and_each_has_its_own_answer() -> None:
    asked = [question(number) for number in range(400)]
    assert all(is_memorable(Prompt(turn_id="t", messages=(Message(role="user", text=text),))) for text in asked)
    assert len({answer_to(text) for text in asked}) == 400


def test_a_question_asked_again_is_answered_from_its_sound_wherever_that_is() -> None:
    async def scenario() -> None:
        for far in (None, FakeTier()):
            marks = await audio_hits(far, 5)
            assert (marks["n"], marks["right"], marks["from_sound"]) == (5, 5, 5)
            assert marks["p50"] <= marks["p95"] <= marks["p99"]

    run(scenario())


def test_one_that_was_never_asked_is_no_hit_and_is_right_all_the_same() -> None:
    async def scenario() -> None:
        async with node(FakeTier()) as asked:
            turn = await asked.turn(question(1))
            assert turn.words == answer_to(question(1))
            assert turn.first_packet_ms is not None
            assert not asked.reasons

    run(scenario())


def test_a_herd_is_one_call_and_one_synthesis_of_each_sentence() -> None:
    async def scenario() -> None:
        result = await herd((FakeTier(),))
        assert (result["devices"], result["answered"], result["model_calls"]) == (HERD, HERD, 1)
        assert result["syntheses"] == result["sentences_in_the_answer"]

    run(scenario())
