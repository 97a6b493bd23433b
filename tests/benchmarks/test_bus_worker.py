from __future__ import annotations

from contextlib import aclosing

from benchmarks.bus_load import prompt_of
from benchmarks.bus_worker import Instant, frames_subject
from tests.virtual_time import run


def test_an_instant_answer_has_its_tokens_and_what_they_cost() -> None:
    async def scenario() -> None:
        async with aclosing(Instant(3).complete(prompt_of("1 0 0 -"))) as deltas:
            heard = [delta async for delta in deltas]
        assert "".join(delta.text for delta in heard) == "好好好"
        assert heard[-1].usage is not None
        assert heard[-1].usage.completion_tokens == 3

    run(scenario())


def test_frames_are_asked_for_beside_the_road() -> None:
    assert frames_subject("stub") == "voice.bench.frames.stub"
