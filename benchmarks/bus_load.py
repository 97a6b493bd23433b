"""Loads for the road, and what they measured: rates, what the road adds to a first token, and how fast a cancel arrives."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from typing import Any

import msgspec

from benchmarks.bus_site import EDGE, Site
from benchmarks.bus_upstream import Ending
from benchmarks.bus_worker import frames_subject
from benchmarks.report import percentile
from models.engines import Completer
from models.errors import CompletionError
from models.prompts import Message, Prompt

WARM_UP_S = 1.0
FRAMES = 20_000
"""Frames asked for at once; few enough to wait in the reader's line."""
LONG = 400
"""Tokens of an answer that is to be cancelled: more than it ever gets to."""
QUESTION = "请详细分析电动汽车和燃油汽车的优缺点，比较它们的区别，并解释为什么"
"""One that the starter policy sends to the cloud."""


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """How often something was done, and what it cost."""

    per_s: float
    cpu_us: dict[str, float]
    """CPU of one, by process."""
    cores: float
    """Cores all processes kept busy."""
    failed: int
    codes: dict[str, int] = {}
    """Failures by the code of their error."""


def prompt_of(plan: str) -> Prompt:
    """Return a prompt that the stub upstream answers as planned: ``tokens first_ms gap_ms name``."""
    messages = (Message(role="user", text=QUESTION), Message(role="system", text=plan))
    return Prompt(turn_id="t", messages=(messages[1], messages[0]), device_id="d1")


async def rate_of(site: Site, once: Callable[[], Awaitable[None]], *, askers: int, seconds: float) -> Rate:
    """Do ``once`` over and over by so many at a time; return the rate after the warm-up."""
    done = 0
    codes: Counter[str] = Counter()
    is_over = False

    async def ask() -> None:
        nonlocal done
        while not is_over:
            try:
                await once()
                done += 1
            except CompletionError as error:
                codes[error.code] += 1

    async with asyncio.TaskGroup() as tasks:
        for _ in range(askers):
            tasks.create_task(ask())
        await asyncio.sleep(WARM_UP_S)
        used, began_s, before = site.used_s(), time.monotonic(), done
        codes.clear()
        await asyncio.sleep(seconds)
        took_s, count, failed = time.monotonic() - began_s, max(done - before, 1), dict(codes)
        costs = {name: used_s - used[name] for name, used_s in site.used_s().items()}
        is_over = True
    return Rate(
        per_s=round(count / took_s, 1),
        cpu_us={name: round(cost_s / count * 1e6, 1) for name, cost_s in costs.items() if cost_s},
        cores=round(sum(costs.values()) / took_s, 2),
        failed=sum(failed.values()),
        codes=failed,
    )


def full_answer(completer: Completer, prompt: Prompt, tokens: int) -> Callable[[], Awaitable[None]]:
    """Return what asks once and reads to the end; it raises CompletionError when not all tokens came."""

    async def once() -> None:
        letters = 0
        async with aclosing(completer.complete(prompt)) as deltas:
            async for delta in deltas:
                letters += len(delta.text)
        if letters != tokens:
            raise CompletionError(f"{letters} of {tokens} tokens came")

    return once


async def first_token_ms(completer: Completer, prompt: Prompt) -> float:
    """Return the milliseconds to the first delta; the rest is read too."""
    began_s = time.perf_counter()
    first_s = 0.0
    async with aclosing(completer.complete(prompt)) as deltas:
        async for _ in deltas:
            first_s = first_s or time.perf_counter()
    return (first_s - began_s) * 1000


async def added_ms(road: Completer, direct: Completer, pairs: int) -> dict[str, Any]:
    """Return what the road adds to the first token, asked by turns over it and directly; each pair is one difference."""
    prompt = prompt_of("8 5 2 -")
    over_road: list[float] = []
    directly: list[float] = []
    for number in range(pairs + 5):
        ways = [(road, over_road), (direct, directly)]
        for completer, times in ways if number % 2 else reversed(ways):
            times.append(await first_token_ms(completer, prompt))
    differences = [ours - theirs for ours, theirs in zip(over_road[5:], directly[5:], strict=True)]
    marks = {"p50": percentile(differences, 50), "p99": percentile(differences, 99)}
    rounded = {name: None if value is None else round(value, 2) for name, value in marks.items()}
    return rounded | {
        "n": pairs,
        "direct_ms": _rounded(directly[5:]),
        "road_ms": _rounded(over_road[5:]),
    }


def _rounded(values: Sequence[float]) -> dict[str, float | None]:
    marks = {f"p{percent}": percentile(values, percent) for percent in (50, 99)}
    return {name: None if value is None else round(value, 2) for name, value in marks.items()}


async def cancelled_at(completer: Completer, name: str, after_s: float) -> float:
    """Ask for a long answer, close it after a while, and return when that was, on the machine's monotonic clock."""
    deltas = completer.complete(prompt_of(f"{LONG} 40 20 {name}"))
    reading = asyncio.create_task(_read(deltas), name="reading")
    await asyncio.sleep(after_s)
    at_s = time.monotonic()
    reading.cancel()
    await asyncio.wait([reading])
    return at_s


async def _read(deltas: AsyncGenerator[Any, None]) -> None:
    async with aclosing(deltas):
        async for _ in deltas:
            pass


async def cancels(site: Site, completer: Completer, count: int, *, at_once: int, seed: int = 1) -> dict[str, Any]:
    """Cancel so many answers at random moments, before and after their first token; return how fast the upstream's streams closed."""
    dice = random.Random(seed)  # moments, no secret
    await site.watched()
    asked: dict[str, float] = {}
    names = iter(range(count))

    async def ask() -> None:
        for number in names:
            asked[f"c{number}"] = await cancelled_at(completer, f"c{number}", dice.uniform(0.02, 1.0))

    async with asyncio.TaskGroup() as tasks:
        for _ in range(at_once):
            tasks.create_task(ask())
    await asyncio.sleep(1.0)
    return cancel_results(asked, (await site.watched()).endings)


def cancel_results(asked: Mapping[str, float], endings: Sequence[Ending]) -> dict[str, Any]:
    """Return times from cancel to closed stream, and which part of the tokens was written after the cancel.

    An answer the upstream never heard of needs no closing and is not counted.
    """
    seen = [ending for ending in endings if ending.name in asked]
    took_ms = [(ending.at_s - asked[ending.name]) * 1000 for ending in seen if not ending.is_whole]
    tokens = sum(len(ending.written_s) for ending in seen)
    late = sum(at_s > asked[ending.name] for ending in seen for at_s in ending.written_s)
    marks = {f"p{percent}": percentile(took_ms, percent) for percent in (50, 95, 99)}
    return {
        "cancel_ms": {name: None if value is None else round(value, 2) for name, value in marks.items()}
        | {"n": len(took_ms)},
        "tokens_after_cancel": round(late / tokens, 4) if tokens else 0.0,
        "never_closed": sum(ending.is_whole for ending in seen),
    }


async def frames_per_s(site: Site, pool: str, rounds: int) -> float:
    """Return how many answer frames a second reach the edge from one worker across both servers."""
    subject = f"voice.answer.{EDGE}.bench"
    rates = []
    async with site.edge.subscribe(subject, max_pending=2 * FRAMES) as line:
        heard = aiter(line)
        for _ in range(rounds):
            began_s = time.perf_counter()
            await site.edge.publish(frames_subject(pool), b"%d" % FRAMES, reply=subject)
            for _ in range(FRAMES):
                await anext(heard)
            rates.append(FRAMES / (time.perf_counter() - began_s))
    return round(percentile(rates, 50) or 0.0, 1)
