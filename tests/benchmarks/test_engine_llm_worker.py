from __future__ import annotations

import msgspec
import pytest

from benchmarks.engine_llm_worker import Answered, Request, Round, Times, _payload, main


def test_rounds_and_times_cross_the_pipe():
    asked = Round((Request((("system", "s"), ("user", "你好")), "device"),), 48)
    assert msgspec.json.decode(msgspec.json.encode(asked), type=Round) == asked
    times = Times(1.5, (Answered("好", 0.1, 20, 48),))
    assert msgspec.json.decode(msgspec.json.encode(times), type=Times) == times


def test_server_is_asked_for_the_same_messages_and_the_full_length():
    payload = _payload(Request((("system", "s"), ("user", "q"))), 48)
    assert payload["messages"] == [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    assert (payload["max_tokens"], payload["ignore_eos"], payload["cache_prompt"]) == (48, True, True)


def test_unknown_engine_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["theirs"])
    assert "invalid choice" in capsys.readouterr().err
