from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field
from typing import Any

import pytest

from coordinator.openai_api.answering import Answering, decision_headers
from coordinator.openai_api.chunks import Form
from coordinator.openai_api.opening import Speaking
from coordinator.openai_api.refusals import Refusal
from coordinator.openai_api.request import Ask
from coordinator.turns import RoutingDecision, Tier
from models.errors import CloudUnreachableError
from models.prompts import Message, Prompt
from models.scripted import ScriptedCompleter
from tests.coordinator.openai_api.site import events
from tests.virtual_time import run

DECISION = RoutingDecision(
    turn_id="api-1", tier=Tier.CLOUD, pool="qwen-14b", reason="complex", score=0.9, threshold=0.7
)
FORM = Form(answer_id="chatcmpl-1", created_s=1, model="auto")


@dataclass
class Client:
    """What one client reads; it leaves ``gone_after`` messages, stops reading after ``reads`` of them."""

    gone_after: int = 10**9
    reads: int = 10**9
    got: list[Any] = field(default_factory=list)
    left: asyncio.Event = field(default_factory=asyncio.Event)

    async def send(self, message: Any) -> None:
        if len(self.got) >= self.reads:
            await asyncio.Event().wait()
        self.got.append(message)
        if len(self.got) >= self.gone_after:
            self.left.set()

    async def receive(self) -> Any:
        await self.left.wait()
        return {"type": "http.disconnect"}

    @property
    def text(self) -> str:
        return b"".join(message.get("body", b"") for message in self.got).decode()


def ask(*, is_streamed: bool = True, budget_ms: int = 30_000) -> Ask:
    prompt = Prompt(turn_id="api-1", messages=(Message(role="user", text="问"),), budget_ms=budget_ms)
    return Ask(model="auto", prompt=prompt, is_streamed=is_streamed)


def opening(completer: ScriptedCompleter, prompt: Prompt) -> Callable[[AsyncExitStack], Any]:
    async def opened(stack: AsyncExitStack) -> Speaking:
        rest = await stack.enter_async_context(aclosing(completer.complete(prompt)))
        return Speaking(DECISION, await anext(rest), rest, None)

    return opened


async def answered(completer: ScriptedCompleter, client: Client, asked: Ask) -> tuple[Answering, Refusal | None]:
    answering = Answering(asked, FORM, client.send)
    refusal = await answering.run(opening(completer, asked.prompt), client.receive)
    assert completer.calls.running == 0
    return answering, refusal


def test_client_that_leaves_inside_the_stream_stops_the_model_at_once() -> None:
    async def work() -> tuple[Answering, float, int]:
        client = Client(gone_after=4)
        answering, refusal = await answered(ScriptedCompleter(lambda _: "一" * 100, per_token_s=1.0), client, ask())
        assert refusal is None
        return answering, asyncio.get_running_loop().time(), len(client.got)

    answering, at_s, got = run(work())
    assert (answering.result, got) == ("client-gone", 4)
    assert at_s == pytest.approx(1.0)


@pytest.mark.parametrize("is_streamed", [False, True])
def test_client_that_leaves_before_the_first_word_stops_the_model_at_once(is_streamed: bool) -> None:
    async def work() -> tuple[str, float, list[Any]]:
        client = Client()
        asyncio.get_running_loop().call_later(2.0, client.left.set)
        completer = ScriptedCompleter(lambda _: "一", first_token_s=20.0)
        answering, _ = await answered(completer, client, ask(is_streamed=is_streamed))
        return answering.result, asyncio.get_running_loop().time(), client.got

    assert run(work()) == ("client-gone", 2.0, [])


def test_client_that_does_not_read_is_given_up_at_the_budget() -> None:
    async def work() -> tuple[str, float]:
        client = Client(reads=3)
        answering, _ = await answered(ScriptedCompleter(lambda _: "一二三"), client, ask(budget_ms=5_000))
        return answering.result, asyncio.get_running_loop().time()

    result, at_s = run(work())
    assert result == "llm-deadline"
    assert at_s <= 5 + 2


def test_client_that_does_not_read_a_whole_answer_is_sent_nothing_more() -> None:
    async def work() -> list[Any]:
        client = Client(reads=1)
        await answered(ScriptedCompleter(lambda _: "一二三"), client, ask(is_streamed=False, budget_ms=5_000))
        return [message["type"] for message in client.got]

    assert run(work()) == ["http.response.start"]


def test_cancelling_the_server_stops_the_model() -> None:
    async def work() -> int:
        completer, client = ScriptedCompleter(lambda _: "一" * 100, per_token_s=1.0), Client()
        asked = ask()
        task = asyncio.create_task(
            Answering(asked, FORM, client.send).run(opening(completer, asked.prompt), client.receive)
        )
        await asyncio.sleep(3.5)
        task.cancel()
        await asyncio.wait([task])
        assert task.cancelled()
        return completer.calls.running

    assert run(work()) == 0


def test_stream_that_breaks_off_ends_with_an_error_event() -> None:
    async def work() -> tuple[str, Client]:
        completer = ScriptedCompleter(lambda _: "一二三", fail_at_token=2, error=CloudUnreachableError)
        client = Client()
        answering, refusal = await answered(completer, client, ask())
        assert refusal is None
        return answering.result, client

    result, client = run(work())
    assert result == "cloud-unreachable"
    assert events(client.text)[-1]["error"]["code"] == "cloud-unreachable"
    assert client.got[-1] == {"type": "http.response.body", "body": b"", "more_body": False}


def test_whole_answer_that_breaks_off_is_a_refusal() -> None:
    async def work() -> tuple[Refusal | None, list[Any]]:
        client = Client()
        completer = ScriptedCompleter(lambda _: "一二三", fail_at_token=2)
        _, refusal = await answered(completer, client, ask(is_streamed=False))
        return refusal, client.got

    refusal, got = run(work())
    assert refusal is not None
    assert (refusal.status, got) == (502, [])


def test_headers_are_plain_ascii() -> None:
    assert decision_headers(DECISION) == {
        "x-fleet-tier": "cloud",
        "x-fleet-pool": "qwen-14b",
        "x-fleet-reason": "complex",
        "x-fleet-policy": "0",
        "x-fleet-score": "0.9000",
        "x-fleet-threshold": "0.7000",
        "x-fleet-gain": "0.0000",
    }
