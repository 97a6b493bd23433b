from __future__ import annotations

import pytest

from benchmarks import engine_llm
from benchmarks.engine_llm import MODEL, OURS, SERVER, tables, worker
from benchmarks.engine_llm_worker import Answered, Request, Times
from models.errors import CompletionError
from models.store import locate


class _Canned:
    """Answers every round after the planned seconds."""

    def __init__(self, first_s):
        self.first_s = list(first_s)
        self.asked = []

    def ask(self, requests, tokens):
        self.asked.append(requests)
        first_s = self.first_s.pop(0)
        return Times(1.0, tuple(Answered("好", first_s, 200, tokens) for _ in requests))


def _results():
    paces = {OURS: {1: [10.0, 30.0, 20.0], 8: [50.0], 16: [90.0]}, SERVER: {1: [20.0], 8: [40.0], 16: [60.0]}}
    firsts = {name: {level: [0.5] for level in (1, 8, 16)} for name in paces}
    return engine_llm._results(paces, firsts, {OURS: [1.0], SERVER: [4.0]})


def test_ratios_are_of_medians_and_the_lower_of_8_and_16_counts():
    results = _results()
    assert results["tokens_per_s"] == {"1": 20.0, "8": 50.0, "16": 90.0}
    assert results["over_llama_server"] == 1.25
    assert results["cold_first_token_over_llama_server"] == 0.25
    assert results["over_single_at_16"] == 4.5
    assert results["over_llama_server_matched"] is None


def test_tables_show_what_there_is():
    first, second = tables(_results() | {"follow_up_speedup": 6.0})
    assert first.row_count == 2
    assert second.row_count == 5


def test_follow_up_asks_the_same_turn_of_a_model_that_does_not_know_the_dialogue():
    canned = _Canned([0.1, 0.2, 1.2] * 3)
    results = engine_llm._follow_up(canned, 1)
    assert results["follow_up_speedup"] == 6.0
    (first,), (kept,), (unknown,) = canned.asked[:3]
    assert kept.messages[:2] == first.messages
    assert kept.messages[1:] == unknown.messages[1:]
    assert kept.device_id == first.device_id != unknown.device_id
    assert kept.messages[0] != unknown.messages[0]


def test_no_question_is_asked_twice():
    asked = [request.messages for _ in range(3) for request in engine_llm._round(8)]
    assert len(set(asked)) == 24
    assert len({messages[0] for messages in asked}) == 1


def test_worker_that_cannot_load_its_model_is_said_with_the_command(tmp_path):
    with pytest.raises(CompletionError, match=r"benchmarks\.engine_llm_worker ours"), worker("ours", tmp_path, 1, 1):
        pass


@pytest.mark.engine
def test_real_worker_answers_a_round_in_full_length():
    with worker("ours", locate(MODEL)["model"], 1, 2) as engine:
        times = engine.ask([Request((("user", "你好"),)), Request((("user", "再见"),))], 12)
    assert [answer.tokens for answer in times.answers] == [12, 12]
    assert all(0 < answer.first_s <= times.seconds for answer in times.answers)
