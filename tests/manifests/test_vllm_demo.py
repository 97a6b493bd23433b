from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, asynccontextmanager
from dataclasses import replace

import httpx
import pytest

from manifests import vllm_demo
from manifests.vllm_demo import Interruption, Road, Turn, converse, failures, interrupt
from manifests.vllm_environment import DIRECTORY_VARIABLE
from models.errors import CompletionError
from models.prompts import CompletionDelta, Prompt
from tests.real_time import run

TURN = Turn("问？", "答。", 2, 100.0, 300.0, 32, 64)
STOPPED = Interruption(500.0, 9, 1.0, 80.0, was_running=True)


class Model:
    """A completer and the ``/metrics`` of the server it would be: says ``答`` until closed or ``pieces`` are out."""

    def __init__(self, pieces: int, *, goes_on: bool = False) -> None:
        self.asked: list[Prompt] = []
        self.running = 0
        self._pieces = pieces
        self._goes_on = goes_on

    async def complete(self, prompt: Prompt) -> AsyncGenerator[CompletionDelta, None]:
        self.asked.append(prompt)
        self.running += 1
        try:
            for _ in range(self._pieces):
                await asyncio.sleep(0.001)
                yield CompletionDelta(text="答")
        finally:
            self.running -= not self._goes_on

    @asynccontextmanager
    async def at_the_end_of_a_road(self) -> AsyncGenerator[Road, None]:
        def handle(_request: httpx.Request) -> httpx.Response:
            hits = 32 * max(0, len(self.asked) - 1)
            lines = [
                "# TYPE vllm:num_requests_running gauge",
                f"vllm:num_requests_running {self.running}",
                "# TYPE vllm:prefix_cache_hits_total counter",
                f"vllm:prefix_cache_hits_total {hits}",
            ]
            return httpx.Response(200, text="\n".join([*lines, ""]))

        async with httpx.AsyncClient(transport=httpx.MockTransport(handle)) as client:
            yield Road(self, "http://vllm", client)


def test_a_dialogue_grows_by_what_was_asked_and_answered() -> None:
    async def scenario() -> None:
        model = Model(3)
        async with model.at_the_end_of_a_road() as ends, aclosing(converse(ends, ["一", "二"])) as conversation:
            turns = [turn async for turn in conversation]
        assert [(turn.question, turn.answer, turn.pieces) for turn in turns] == [
            ("一", "答答答", 3),
            ("二", "答答答", 3),
        ]
        assert [message.text for message in model.asked[1].messages][1:] == ["一", "答答答", "二"]
        assert [turn.reused_tokens for turn in turns] == [0, 32]
        assert failures(turns, []) == ()

    run(scenario())


def test_an_interrupted_answer_is_closed_and_the_server_seen_at_rest() -> None:
    async def scenario() -> None:
        model = Model(100_000)
        async with model.at_the_end_of_a_road() as ends:
            found = await interrupt(ends, 0.02, 1)
        assert (found.was_running, model.running) == (True, 0)
        assert found.pieces > 0
        assert found.idle_ms is not None
        assert found.idle_ms >= found.closed_ms

    run(scenario())


def test_a_server_that_goes_on_after_an_interruption_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        model = Model(100_000, goes_on=True)
        async with model.at_the_end_of_a_road() as ends:
            found = await interrupt(ends, 0.0, 1)
        assert found.idle_ms is None
        assert failures([], [found]) == ("vLLM went on for 10 s and more after interruption 1",)

    monkeypatch.setattr(vllm_demo, "_IDLE_S", 0.05)
    run(scenario())


def test_an_answer_that_fails_is_one_of_our_errors() -> None:
    class Broken:
        async def complete(self, _prompt: Prompt) -> AsyncGenerator[CompletionDelta, None]:
            yield CompletionDelta(text="答")
            raise CompletionError("upstream: it answered 500")

    async def scenario() -> None:
        async with Model(1).at_the_end_of_a_road() as ends:
            broken = replace(ends, completer=Broken())
            with pytest.raises(CompletionError):
                async with aclosing(converse(broken, ["一"])) as conversation:
                    await anext(conversation)

    run(scenario())


WRONG: list[tuple[list[Turn], list[Interruption], str]] = [
    ([replace(TURN, answer=" ")], [], "turn 1 has no answer"),
    ([replace(TURN, pieces=1)], [], "turn 1 did not stream"),
    ([TURN, replace(TURN, reused_tokens=0)], [], "turn 2 reused nothing"),
    ([], [STOPPED, replace(STOPPED, idle_ms=200.1)], "for 200 ms after interruption 2"),
    ([], [replace(STOPPED, idle_ms=None)], "for 10 s and more after interruption 1"),
    ([], [replace(STOPPED, was_running=False)], "when vLLM was not at work"),
]


@pytest.mark.parametrize(("turns", "interruptions", "words"), WRONG)
def test_what_did_not_go_as_said_is_named(turns: list[Turn], interruptions: list[Interruption], words: str) -> None:
    (found,) = failures(turns, interruptions)
    assert words in found


def test_the_first_turn_may_find_nothing_in_the_cache() -> None:
    assert failures([replace(TURN, reused_tokens=0), TURN], [STOPPED, replace(STOPPED, idle_ms=200.0)]) == ()


def test_without_its_environment_the_demo_says_how_to_make_it(
    tmp_path: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(DIRECTORY_VARIABLE, str(tmp_path))
    assert vllm_demo.main() == 1
    assert "run make vllm" in capsys.readouterr().err
