"""The cloud gone, slow, wrong or silent: each way, with one pool and with two, on virtual time and with the pace of real models."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass

import pytest

from coordinator.clauses import speech_s
from edge.brain.sentences import sentences
from models.errors import CloudUnreachableError, CompletionError, OverloadedError
from models.prompts import Prompt
from tests.coordinator.sources import HANG, HARD, POOL, Bench, Plan, Source, Wait, policy_of, prompt_of
from tests.virtual_time import run

TURNS = 24
EDGE_FIRST_S, EDGE_TOKEN_S = 0.362, 0.053
"""Of a starter model on this project's bench, two cores."""
CLOUD_FIRST_S, CLOUD_TOKEN_S = 0.5, 0.03
"""A guess at a 72B model on a busy pool."""
CLOUD = (
    "先说结论，各有长处。",
    "电动汽车用起来省钱，但是充电慢。",
    "燃油汽车跑得远，可是更费油。",
    "所以要看你怎么用。",
)
EDGE = ("电动汽车省钱。", "燃油汽车加油快。")
REST = ("剩下的我来说。", "要看你怎么用。")
WORST_S = 3.0
"""Promised from the end of speech to the first sound, p95; what comes before and after the model needs the rest of it."""
AROUND_S = 0.3 + 0.3
"""Of it recognition and the voice, by the same promise's parts at the edge bench's median."""


def cloud_says(*then: object) -> Plan:
    return (Wait(CLOUD_FIRST_S), *then)  # type: ignore[return-value]  # a test's plan


def drip(text: str, every_s: float = 1.0) -> Plan:
    return tuple(step for letter in text for step in (letter, Wait(every_s)))


BROKEN = "电动汽车用起来"
FAULTS: dict[str, Callable[[], Plan]] = {
    "refuse": lambda: (CloudUnreachableError("no worker serves this pool"),),
    "hang-before-first-token": lambda: (HANG,),
    "hang-mid-stream": lambda: cloud_says(CLOUD[0], BROKEN, HANG),
    "hang-in-the-first-clause": lambda: cloud_says("先", HANG),
    "slow-drip": lambda: cloud_says(*drip("".join(CLOUD))),
    "slow-drip-mid-stream": lambda: cloud_says(CLOUD[0], *drip("".join(CLOUD[1:]))),
    "500": lambda: (Wait(0.02), CompletionError("upstream: it answered 500")),
    "429": lambda: (Wait(0.02), OverloadedError("upstream: it is full (429)")),
    "garbage": lambda: cloud_says(CompletionError("upstream: an event of 9 characters is not one")),
    "garbage-mid-stream": lambda: cloud_says(CLOUD[0], BROKEN, CompletionError("not an event")),
    "garbled-text": lambda: cloud_says("先说结\ufffd\ufffd"),
    "empty": lambda: cloud_says(""),
    "link-cut-mid-stream": lambda: cloud_says(CLOUD[0], BROKEN, CloudUnreachableError("nothing heard for 2 s")),
    "healthy": lambda: cloud_says(*CLOUD),
}


def edge() -> Source:
    def plan(_call: int, prompt: Prompt) -> Plan:
        is_begun = prompt.messages[-1].role == "assistant"
        return (Wait(EDGE_FIRST_S), *(REST if is_begun else EDGE))

    return Source(plans=plan, pause_s=EDGE_TOKEN_S)


@dataclass(frozen=True, slots=True)
class Turn:
    said: tuple[str, ...]
    first_s: float
    silence_s: float
    """Longest after the first sentence until the next one, beyond the time the ones before take to be spoken."""


async def asked(bench: Bench, number: int) -> Turn:
    loop = asyncio.get_running_loop()
    began_s, said, silence_s, spoken_until_s = loop.time(), [], 0.0, math.inf
    first_s = math.inf
    prompt = prompt_of(HARD, turn_id=str(number))
    async with aclosing(sentences(bench.hierarchy.complete(prompt))) as pieces:
        async for piece in pieces:
            if not said:
                first_s = loop.time() - began_s
                spoken_until_s = loop.time()
            silence_s = max(silence_s, loop.time() - spoken_until_s)
            spoken_until_s = max(loop.time(), spoken_until_s) + speech_s(piece.text)
            said.append(piece.text)
    return Turn(tuple(said), first_s, silence_s)


def p95(values: Sequence[float]) -> float:
    return sorted(values)[math.ceil(0.95 * len(values)) - 1]


def whole_answers() -> set[str]:
    """Return every answer without a half sentence."""
    begun = {"".join(CLOUD[:count]) for count in range(len(CLOUD) + 1)} | {"先说结论，"}
    return {"".join(EDGE), "".join(CLOUD)} | {said + "".join(REST) for said in begun if said}


@pytest.mark.parametrize("pools", ["one", "two-both-broken", "two-one-broken"])
@pytest.mark.parametrize("fault", FAULTS)
def test_every_turn_is_answered_in_time_without_a_half_sentence(fault: str, pools: str) -> None:
    async def scenario() -> None:
        clouds = [Source(*FAULTS[fault](), pause_s=CLOUD_TOKEN_S)]
        if pools != "one":
            other = fault if pools == "two-both-broken" else "healthy"
            clouds.append(Source(*FAULTS[other](), pause_s=CLOUD_TOKEN_S))
        local = edge()
        bench = Bench(local, *clouds)
        turns = []
        for number in range(TURNS):
            turns.append(await asked(bench, number))
            await asyncio.sleep(1.0)
        assert {"".join(turn.said) for turn in turns} <= whole_answers()
        assert all(turn.said[-1].endswith("。") for turn in turns)
        assert max(turn.first_s for turn in turns) + AROUND_S <= WORST_S
        assert p95([turn.silence_s for turn in turns]) <= WORST_S
        assert local.open == sum(cloud.open for cloud in clouds) == 0
        if fault != "healthy":
            assert bench.hierarchy.pools.breaker(POOL).opened == 1
            assert clouds[0].started <= 5 + TURNS // (1 if fault == "429" else 4), "then it is only tried now and then"
            if pools == "two-one-broken":
                by_edge = sum(decision.tier == "edge" for decision in bench.seen)
                assert by_edge <= clouds[0].started, "the other pool takes over"

    run(scenario())


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "healthy"])
def test_many_turns_at_once_are_answered_too_and_nothing_is_left(fault: str) -> None:
    async def scenario() -> None:
        local, cloud = edge(), Source(*FAULTS[fault](), pause_s=CLOUD_TOKEN_S)
        bench = Bench(local, cloud)
        turns = await asyncio.gather(*(asked(bench, number) for number in range(30)))
        assert {"".join(turn.said) for turn in turns} <= whole_answers()
        assert max(turn.first_s for turn in turns) + AROUND_S <= WORST_S
        assert local.open == cloud.open == 0
        assert bench.hierarchy.pools.breaker(POOL).opened == 1

    run(scenario())


@pytest.mark.parametrize("fault", [fault for fault in FAULTS if fault != "healthy"])
def test_a_pool_that_is_well_again_is_found_by_a_probe(fault: str) -> None:
    async def scenario() -> None:
        cloud = Source(*FAULTS[fault](), pause_s=CLOUD_TOKEN_S)
        bench = Bench(edge(), cloud)
        for number in range(6):
            await asked(bench, number)
        cloud.plan = tuple(FAULTS["healthy"]())
        turns = []
        for number in range(8):
            await asyncio.sleep(2.0)
            turns.append(await asked(bench, number))
        assert "".join(turns[-1].said) == "".join(CLOUD)
        assert all(first_is_cloud_later(turns))

    run(scenario())


def first_is_cloud_later(turns: Sequence[Turn]) -> list[bool]:
    """Return for each turn from the first one the cloud answered on whether it did."""
    by_cloud = ["".join(turn.said) == "".join(CLOUD) for turn in turns]
    return by_cloud[by_cloud.index(True) :]


@pytest.mark.parametrize("first_token_ms", [300.0, 1200.0, 4000.0])
def test_the_deadline_is_kept_to_whatever_it_is(first_token_ms: float) -> None:
    async def scenario() -> None:
        bench = Bench(edge(), Source(HANG), policy=policy_of(first_token_ms=first_token_ms))
        turn = await asked(bench, 0)
        clause_s = EDGE_FIRST_S + EDGE_TOKEN_S * len(EDGE[0])
        assert turn.first_s == pytest.approx(first_token_ms / 1000 + clause_s)

    run(scenario())
