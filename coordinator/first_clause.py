"""The edge speaks first: "说到…，", a short opening that claims nothing, before the cloud is even asked; optional, and Chinese only.

What goes before a cloud's answer must not contradict it. The edge's model is made to begin with 说到 ("speaking of") and stopped at the
first comma, and what it names is used only if the person named it: the topic is part of the question, without numbers, without fillers,
and without words that turn round when somebody else says them.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import aclosing

from msgspec.structs import replace

from coordinator.clauses import Clauses
from coordinator.continuation import continued
from models.engines import Completer
from models.errors import CompletionError
from models.prompts import CompletionDelta, Prompt

DRAFT_S = 0.8
"""The edge's first clause takes about half of it; the cloud waits meanwhile. A guess."""
DRAFT_TOKENS = 16
OPENING = "说到"
MIN_CHARS, MAX_CHARS = 2, 16
"""Of the topic: less is none, more is over three seconds of speech."""
_CHINESE = {"", "zh", "yue"}
_TOPIC = re.compile(r"[\u3400-\u9fffA-Za-z]+")
_REFUSED = re.compile(
    "[零〇二三四五六七八九十百千万亿两我你您咱他她它]|这个|那个|小智|请问|麻烦|怎么|什么|哪|谁|吗|呢|多少|为何|[能会是有]|可以|应该"
)
"""Numbers, who speaks to whom, fillers, questions themselves, and verbs that would make a topic a claim."""
_NEGATION = re.compile("[不没非否无未]|(?<![区特性级])别")


async def draft(edge: Completer, prompt: Prompt) -> str:
    """Return a first clause of the edge's that is safe to say before the cloud's answer, "" when none came in time or none is safe."""
    if prompt.images or prompt.language not in _CHINESE:
        return ""
    begun = replace(continued(prompt, OPENING, min(prompt.budget_ms / 1000, DRAFT_S)), max_tokens=DRAFT_TOKENS)
    try:
        async with asyncio.timeout(DRAFT_S):
            clause = OPENING + await _first_clause(edge, begun)
    except (CompletionError, TimeoutError):
        return ""
    return clause if is_safe(clause, prompt.question) else ""


def is_safe(clause: str, question: str) -> bool:
    """Return whether the clause is the opening with a topic of the question's and nothing else."""
    topic = clause.removeprefix(OPENING).removesuffix("，")
    if f"{OPENING}{topic}，" != clause or not MIN_CHARS <= len(topic) <= MAX_CHARS:
        return False
    if not _TOPIC.fullmatch(topic) or _REFUSED.search(topic):
        return False
    return topic in question or (not _NEGATION.search(question) and _is_within(topic, question))


def _is_within(topic: str, question: str) -> bool:
    """Return whether all letters of the topic come in the question, in this order."""
    rest = iter(question)
    return all(letter in rest for letter in topic)


async def _first_clause(edge: Completer, prompt: Prompt) -> str:
    """Return what the edge writes after the opening, up to its first pause."""
    clauses = Clauses()
    clauses.feed(CompletionDelta(text=OPENING))
    async with aclosing(edge.complete(prompt)) as deltas:
        async for delta in deltas:
            if clause := clauses.feed(CompletionDelta(text=delta.text)):
                return clause.removeprefix(OPENING)
    return clauses.flush().removeprefix(OPENING)
