"""Has ready what will be asked for: loads it from the far tiers, and makes in idle time what nobody has.

At the start the first words people say, then each hour what the coordinator foretells of it. What is made is made as for a person who asks:
by the same routing, cache and voice, at the cloud's lowest priority, by one edge of the fleet at a time; it stops when somebody asks.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Callable, Sequence
from contextlib import aclosing, suppress
from typing import Literal, Protocol

import msgspec
import structlog

from coordinator.buckets import Bucket
from coordinator.cache.ladder import Ladder
from coordinator.preloading.foreseen import Content, Foreseen, decode_foreseen
from coordinator.preloading.plan import MIN_CONFIDENCE, Costs
from coordinator.preloading.proposal import fitting, to_load, to_make
from coordinator.preloading.shelf import ShelvedTier
from edge.preloading.idle import IdleTime
from edge.preloading.reporting import words_from
from models.errors import VoiceError
from models.prompts import Prompt

_log = structlog.get_logger()

HOUR_S = 3600
LEASE_S = 60.0
"""After how long another edge may make the same content all the same: longer than any answer takes."""
TIER_S = 5.0
"""How long a far tier that is left alone is waited for, once an hour; and how long a lease may take."""
SIZE_BYTES = 25_000
"""What a spoken answer takes until the first ones were loaded: three sentences. A guess."""
_LEARNS = 0.05
"""How much a size or a time counts beside those before it. A guess."""
TRIES = 3
"""How often a content is begun anew that somebody interrupted."""

Action = Literal["load", "make"]
Result = Literal["done", "absent", "unsure", "elsewhere", "interrupted", "failed", "other"]
"""``absent``: no far tier has it; ``unsure``: one that may cannot be asked; ``elsewhere``: another edge makes it; ``other``: its words lead
to another key on this edge."""


class Makes(Protocol):
    """Answers and speaks as for a device, to nobody: what is made is remembered."""

    def key(self, prompt: Prompt) -> str | None:
        """Return the key of the prompt's answer, None when it is not memorable."""
        ...

    def spoken_key(self, answer_key: str) -> str:
        """Return the key of the same answer as sound."""
        ...

    def prompt(self, language: str, question: str) -> Prompt:
        """Return the question as somebody would ask it."""
        ...

    async def make(self, prompt: Prompt) -> bool:
        """Answer it and speak it, and return whether it is remembered now; raise VoiceError."""
        ...


class Preparer:
    """Prepares the first words and hour after hour, each in a task of its own; makes one content at a time."""

    def __init__(
        self,
        ladder: Ladder,
        shelf: ShelvedTier,
        makes: Makes,
        idle: IdleTime,
        *,
        edge_id: str,
        shares: bool,
        shelf_bytes: int,
        budget_s: float,
        min_confidence: float = MIN_CONFIDENCE,
        observe: Callable[[Action, Result], None] = lambda _action, _result: None,
        made: Callable[[str], None] = lambda _key: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """``shares`` says whether far tiers carry what is made to others; ``budget_s`` is what an hour may take of idle engines.

        ``observe`` hears what came of each load and making, ``made`` the key of each answer made for the hour.
        """
        self._ladder = ladder
        self._shelf = shelf
        self._makes = makes
        self._idle = idle
        self._edge_id = edge_id
        self._shares = shares
        self._shelf_bytes = shelf_bytes
        self._budget_s = budget_s
        self._min_confidence = min_confidence
        self._observe = observe
        self._now = now
        self._made = made
        self._size_bytes = SIZE_BYTES
        self._make_s = Costs().make_s
        """What making takes here, as the last ones did."""
        self._making = asyncio.Lock()
        self._is_patient = True
        """Whether tiers that are left alone are still waited for in this hour."""

    async def greet(self, first_words: Sequence[tuple[str, str]]) -> None:
        """Prepare the first words, languages with questions, and return."""
        for language, question in first_words:
            prompt = self._makes.prompt(language, question)
            key = self._makes.key(prompt)
            if key is not None and not await self._is_here(key):
                await self._make(key, prompt)

    async def follow(self, bucket: Bucket, group: str) -> None:
        """Prepare each hour as it is foretold, until cancelled; raises nothing."""
        async with aclosing(bucket.watch(group)) as entries:
            async for entry in entries:
                try:
                    foreseen = decode_foreseen(entry.value)
                except msgspec.MsgspecError as error:
                    _log.warning("forecast_unreadable", revision=entry.revision, reason=str(error))
                else:
                    await self.prepare(foreseen)

    async def prepare(self, foreseen: Foreseen) -> None:
        """Load and make for the hour that is foreseen, until it is over; nothing for another hour than this one."""
        if foreseen.hour != int(self._now() // HOUR_S):
            return
        self._is_patient = True
        stored, unsure = await self._load(foreseen)
        plan = to_make(
            [content for content in foreseen.contents if content.text],
            stored | unsure,
            budget_s=self._budget_s,
            shares=self._shares,
            costs=Costs(make_s=self._make_s),
            min_confidence=self._min_confidence,
        )
        by_key = {content.key: content for content in foreseen.contents}
        chosen = sorted((choice.content for choice in plan.chosen), key=self._turn)
        with suppress(TimeoutError):
            async with asyncio.timeout((foreseen.hour + 1) * HOUR_S - self._now()):
                for key in chosen:
                    await self._make_foreseen(by_key[key])
        _log.info("prepared", hour=foreseen.hour, stored=len(stored), unsure=len(unsure), chosen=len(chosen))

    async def _load(self, foreseen: Foreseen) -> tuple[set[str], set[str]]:
        """Fill the shelf and return the contents that this edge or a far tier has, and those that one may have."""
        wanted = fitting(foreseen.contents, shelf_bytes=self._shelf_bytes, size_bytes=self._size_bytes)
        keys = [key for content in wanted for key in (self._makes.spoken_key(content.key), content.key)]
        missing = set(self._shelf.want(keys))
        near = {content.key for content in wanted if self._makes.spoken_key(content.key) not in missing}
        near |= {content.key for content in wanted if self._shelf.get(self._makes.spoken_key(content.key)) is not None}
        plan = to_load(foreseen.contents, near, shelf_bytes=self._shelf_bytes, size_bytes=self._size_bytes)
        found: dict[str, bool | None] = dict.fromkeys(near, True)
        for choice in plan.chosen:
            found[choice.content] = await self._fetch(choice.content)
        for content in foreseen.contents:
            likely = content.in_fleet if self._shares else content.at_edge
            if content.key not in found and likely > self._min_confidence:
                found[content.key] = await self._look(self._makes.spoken_key(content.key), keep=False)
        for key in [key for key, is_there in found.items() if is_there is None]:
            found[key] = await self._fetch(key)
        unsure = {key for key, is_there in found.items() if is_there is None}
        return {key for key, is_there in found.items() if is_there}, unsure

    async def _fetch(self, key: str) -> bool | None:
        """Load an answer as sound and as text; return whether it sounds, None when a far tier cannot be asked."""
        spoken_key = self._makes.spoken_key(key)
        is_there = await self._look(spoken_key)
        if is_there:
            await self._ladder.fetch(key)
            size_bytes = len(self._shelf.get(spoken_key) or b"") or self._size_bytes
            self._size_bytes = round(self._size_bytes + _LEARNS * (size_bytes - self._size_bytes))
        self._observe("load", "done" if is_there else "unsure" if is_there is None else "absent")
        return is_there

    async def _look(self, key: str, *, keep: bool = True) -> bool | None:
        is_there = await self._ladder.fetch(key, keep=keep)
        if is_there is None and self._is_patient:
            self._is_patient = await self._ladder.steady(TIER_S)
            is_there = await self._ladder.fetch(key, keep=keep)
        return is_there

    async def _is_here(self, key: str) -> bool | None:
        return self._shelf.get(self._makes.spoken_key(key)) is not None or await self._fetch(key)

    async def _make_foreseen(self, content: Content) -> None:
        prompt = self._makes.prompt(*words_from(content.text))
        if self._makes.key(prompt) != content.key:
            self._observe("make", "other")
        elif await self._is_here(content.key) is False and await self._make(content.key, prompt):
            self._made(content.key)

    async def _make(self, key: str, prompt: Prompt) -> bool:
        """Make a content as soon as there is time; return whether it was."""
        spoken_key = self._makes.spoken_key(key)
        for _ in range(TRIES):
            async with self._making:
                await self._idle.come()
                began_s = asyncio.get_running_loop().time()
                result = await self._make_now(spoken_key, prompt)
            self._observe("make", result)
            if result == "done":
                self._make_s += _LEARNS * (asyncio.get_running_loop().time() - began_s - self._make_s)
            if result != "interrupted":
                return result == "done"
        return False

    async def _make_now(self, spoken_key: str, prompt: Prompt) -> Result:
        async with self._ladder.leased(f"{spoken_key}:preload", LEASE_S, within_s=TIER_S) as is_ours:
            if not is_ours:
                return "elsewhere"
            try:
                is_kept = await self._idle.use(self._makes.make(prompt))
            except VoiceError as error:
                _log.info("not_prepared", code=error.code, error=str(error))
                return "failed"
        return "interrupted" if is_kept is None else "done" if is_kept else "failed"

    def _turn(self, key: str) -> bytes:
        """Return when this edge makes a content among others: each edge in an order of its own, so that they seldom meet."""
        return hashlib.blake2b(f"{self._edge_id} {key}".encode(), digest_size=8).digest()
