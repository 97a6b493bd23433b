from __future__ import annotations

import pytest

from benchmarks.bus_load import cancel_results, full_answer, prompt_of
from benchmarks.bus_upstream import Ending
from benchmarks.bus_worker import Instant
from models.errors import CompletionError
from tests.virtual_time import run


def ending(name: str, at_s: float, *written_s: float, is_whole: bool = False) -> Ending:
    return Ending(name=name, at_s=at_s, is_whole=is_whole, written_s=written_s)


def test_a_cancel_is_timed_from_the_edge_s_close_to_the_upstream_s() -> None:
    endings = [ending("a", 10.005, 9.0, 9.5, 10.001), ending("b", 20.1, 19.0), ending("other", 1.0, 0.5)]
    measured = cancel_results({"a": 10.0, "b": 20.0, "never-asked-there": 30.0}, endings)
    assert measured["cancel_ms"] == {"p50": 5.0, "p95": 100.0, "p99": 100.0, "n": 2}
    assert measured["tokens_after_cancel"] == 0.25
    assert measured["never_closed"] == 0


def test_an_answer_written_to_its_end_was_never_closed() -> None:
    measured = cancel_results({"a": 1.0}, [ending("a", 5.0, 0.5, 2.0, is_whole=True)])
    assert measured["never_closed"] == 1
    assert measured["cancel_ms"]["p95"] is None
    assert measured["tokens_after_cancel"] == 0.5


def test_nothing_cancelled_is_no_division() -> None:
    assert cancel_results({}, [])["tokens_after_cancel"] == 0


@pytest.mark.parametrize("tokens", [1, 3])
def test_an_answer_that_is_not_whole_does_not_count(tokens: int) -> None:
    run(full_answer(Instant(tokens), prompt_of("1 0 0 -"), tokens)())  # type: ignore[arg-type]  # a coroutine, as all are here
    with pytest.raises(CompletionError, match="tokens came"):
        run(full_answer(Instant(tokens), prompt_of("1 0 0 -"), 2)())  # type: ignore[arg-type]  # as above
