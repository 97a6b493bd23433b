"""Completers with a plan, and a hierarchy between two of them, for the tests of who answers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass

from coordinator.cache.answers import AnswerCache
from coordinator.cache.ladder import Ladder
from coordinator.cache.memory import MemoryTier
from coordinator.hierarchy import Hierarchy
from coordinator.routing.policy import Conditions, Policy, PoolTerms
from coordinator.routing.router import Router
from coordinator.turns import RoutingDecision
from models.engines import Completer
from models.errors import CompletionError
from models.prompts import CompletionDelta, Message, Prompt

POOL, OTHER = "qwen-14b", "qwen-72b"
EASY = "水的沸点是多少度？"
HARD = "请详细分析电动汽车和燃油汽车的优缺点，比较它们的区别，并解释为什么"


@dataclass(frozen=True, slots=True)
class Wait:
    """A pause in a plan."""

    s: float


HANG = Wait(3600.0)
Step = str | Wait | CompletionError
Plan = Sequence[Step]


class Source:
    """Writes a plan: texts letter by letter with a pause before each, waits, an error. Later calls may have plans of their own."""

    def __init__(
        self,
        *plan: Step,
        pause_s: float = 0.05,
        plans: Callable[[int, Prompt], Plan] | None = None,
        logprob: float = 0.0,
    ) -> None:
        self.plan, self.pause_s, self.plans, self.logprob = plan, pause_s, plans, logprob
        self.prompts: list[Prompt] = []
        self.closed_s: list[float] = []
        self.open = 0

    @property
    def started(self) -> int:
        return len(self.prompts)

    async def complete(self, prompt: Prompt) -> AsyncGenerator[CompletionDelta, None]:
        plan = self.plans(self.started, prompt) if self.plans else self.plan
        self.prompts.append(prompt)
        self.open += 1
        model = "m"
        try:
            for step in plan:
                if isinstance(step, CompletionError):
                    raise step
                if isinstance(step, Wait):
                    await asyncio.sleep(step.s)
                    continue
                for letter in step:
                    await asyncio.sleep(self.pause_s)
                    yield CompletionDelta(text=letter, model=model, logprobs=(self.logprob,) if self.logprob else ())
                    model = ""
        finally:
            self.open -= 1
            self.closed_s.append(asyncio.get_running_loop().time())


def prompt_of(question: str, *, private: bool = False, budget_ms: int = 30_000, turn_id: str = "t") -> Prompt:
    return Prompt(
        turn_id=turn_id,
        device_id="d",
        messages=(Message(role="user", text=question),),
        is_private=private,
        budget_ms=budget_ms,
    )


class Paying(Router):
    """The real router, which also notes what was paid for."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy, None)
        self.charged: list[str] = []

    def charge(self, decision: RoutingDecision) -> None:
        self.charged.append(decision.pool)
        super().charge(decision)


def policy_of(pools: Sequence[str] = (POOL,), **changes: object) -> Policy:
    terms = tuple(PoolTerms(name=name, strength=1 - number / 10) for number, name in enumerate(pools))
    return Policy(**{"first_token_ms": 1200.0, "threshold": 0.7, "pools": terms, **changes})  # type: ignore[arg-type]  # a test's changes


class Bench:
    """A hierarchy between an edge and clouds, and what it decided."""

    def __init__(
        self,
        edge: Completer,
        *clouds: Completer,
        reachable: bool = True,
        policy: Policy | None = None,
        doubt_threshold: float | None = None,
        cache: AnswerCache | None = None,
    ) -> None:
        self.edge, self.clouds = edge, clouds
        self.pools: Mapping[str, Completer] = dict(zip((POOL, OTHER), clouds, strict=False))
        self.seen: list[RoutingDecision] = []
        self.router = Paying(policy or policy_of(list(self.pools)))
        self.hierarchy = Hierarchy(
            edge,
            self.pools,
            cache or AnswerCache(Ladder(MemoryTier())),
            self.router,
            conditions=lambda: Conditions(cloud_reachable=reachable),
            observe=self.seen.append,
            doubt_threshold=doubt_threshold,
            now=lambda: asyncio.get_running_loop().time(),
            dice=random.Random(1),
        )

    async def ask(self, question: str, **options: object) -> str:
        prompt = prompt_of(question, **options)  # type: ignore[arg-type]  # a test's options
        async with aclosing(self.hierarchy.complete(prompt)) as deltas:
            return "".join([delta.text async for delta in deltas])

    @property
    def reasons(self) -> list[str]:
        return [f"{decision.pool or decision.tier}:{decision.reason}" for decision in self.seen]
