"""Single decisions with the packaged weights: how long one takes, and how often other words for the same request change the route."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from rich.table import Table as RichTable

from benchmarks.report import percentile, table_of
from benchmarks.routing_adversaries import adversaries, unlisted
from coordinator.routing import train
from coordinator.routing.gain import GainModel
from coordinator.routing.outcomes import Outcome
from coordinator.routing.policy import Conditions, Policy
from coordinator.routing.router import Router
from coordinator.routing.signals import scored_text
from coordinator.routing.wording import plain
from models.prompts import Message, Prompt

WARM_UP = 20


def decision_us(items: Sequence[Outcome]) -> dict[str, Any]:
    """Return processor time of a decision of an edge's router with the packaged weights, in microseconds."""
    router, conditions = Router(Policy(router="gain"), GainModel.load()), Conditions()
    return _timed(items, lambda prompt: router.decide(prompt, conditions))


def prediction_us(items: Sequence[Outcome]) -> dict[str, Any]:
    """Return the same from a prompt to its gain, asking the model whatever the language: for weights that know all of them."""
    model = GainModel.load()
    return _timed(items, lambda prompt: model.score(model.predict(scored_text(prompt, plain(prompt.question))).gain))


def _timed(items: Sequence[Outcome], work: Callable[[Prompt], object]) -> dict[str, Any]:
    prompts = [train.prompt_of(item) for item in items]
    spent: list[float] = []
    for prompt in [*prompts[:WARM_UP], *prompts]:
        before = time.process_time_ns()
        work(prompt)
        spent.append((time.process_time_ns() - before) / 1000)
    spent = spent[-len(prompts) :]
    return {"p50": percentile(spent, 50), "p95": percentile(spent, 95), "max": max(spent), "n": len(spent)}


def adversary_results(items: Sequence[Outcome]) -> dict[str, Any]:
    """Return the share of changed wordings, by kind of change, that are routed otherwise than the request itself, in [0, 1].

    "listed" are all kinds whose phrases the router's patterns were written against; "unlisted" chatter was written after them.
    """
    router = Router(Policy(router="gain"), GainModel.load())
    tried, moved = Counter[str](), Counter[str]()
    for item in items:
        route = _route(router, item.text)
        for family, text in _changed(item.text):
            tried[family] += 1
            moved[family] += _route(router, text) != route
    shares = {family: round(moved[family] / tried[family], 4) for family in tried}
    listed = [family for family in tried if not family.startswith("unlisted")]
    total = sum(tried[family] for family in listed) or 1
    return {
        "requests": len(items),
        "changes": tried.total(),
        "families": shares,
        "listed": round(sum(moved[family] for family in listed) / total, 4),
        "worst_listed": max((shares[family] for family in listed), default=0.0),
    }


def tables(results: dict[str, Any]) -> list[RichTable]:
    """Return a table of the adversaries and one of the time."""
    found = results["adversaries"]
    rows = [(family, f"{100 * share:.1f}") for family, share in found["families"].items()]
    title = f"routes that other words for the same request change, of {found['requests']} requests"
    times = [("an edge's decision", results["decision_us"]), ("the model, any language", results["prediction_us"])]
    return [
        table_of(title, ("kind of change", "changed %"), [*rows, ("all but unlisted", f"{100 * found['listed']:.2f}")]),
        table_of(
            "one decision, µs of processor time",
            ("what", "p50", "p95", "max", "n"),
            [(name, *found.values()) for name, found in times],
        ),
    ]


def _changed(text: str) -> Iterator[tuple[str, str]]:
    yield from adversaries(text, "zh")
    yield from unlisted(text, "zh")


def _route(router: Router, text: str) -> tuple[str, str]:
    prompt = Prompt(turn_id="adversary", messages=(Message(role="user", text=text),))
    decision = router.decide(prompt, Conditions())
    return decision.tier, decision.pool
