"""A pool of replicas as one Completer: chooses, bounds, probes, leaves out the sick, and tries another before the first word."""

from __future__ import annotations

import asyncio
import math
import random
import statistics
import time
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from typing import Self

import msgspec
import structlog

from cloud import choice
from cloud.chat import is_prompts_fault
from cloud.replica import Member, Pace, Replica, ReplicaLoad, State, Upstream
from models.errors import CloudUnreachableError, CompletionError, ConfigError, DeadlineError, OverloadedError
from models.prompts import CompletionDelta, Prompt

_log = structlog.get_logger()

PROBE_S = 1.0
"""How often each replica is asked how it is."""
SOON_S = 0.2
"""How soon it is asked again when the last probe or a request went wrong."""
PACE_S = 0.25
"""How often the pool's usual time to the first token is reckoned."""
TRIES = 3
"""Replicas asked for one answer at most; when three of a pool fail, the edge answers sooner than a fourth."""
SILENT_S = 3.0
"""An answer given up without a first token after so long counts against its replica; the first token is promised within 2 s."""

Connect = Callable[[Replica], AbstractAsyncContextManager[Upstream]]
"""Opens what talks to a replica; raises ConfigError when its address is none."""


class ReplicaPool:
    """A Completer over the replicas it is told of; open it with ``opened``."""

    def __init__(
        self,
        name: str,
        connect: Connect,
        *,
        per_replica: int,
        at_once: int | None = None,
        timeout_s: float = 30.0,
        retries: bool = True,
        now: Callable[[], float] = time.monotonic,
        dice: random.Random | None = None,
    ) -> None:
        """``per_replica`` and ``at_once`` bound requests under way in one replica and in all; ``timeout_s`` bounds whole answers.

        ``retries`` is whether a replica that failed before the first word is followed by another.
        """
        self.name = name
        self.refused = 0
        """Requests turned away for want of room."""
        self.retried = 0
        """Tries that failed before the first word and were followed by another replica."""
        self._connect = connect
        self._per_replica = per_replica
        self._at_once = at_once
        self._timeout_s = timeout_s
        self._tries = TRIES if retries else 1
        self._now = now
        self._dice = dice or random.Random()  # noqa: S311 - a choice of replica is no secret
        self._members: dict[Replica, Member] = {}
        self._leaving: set[Member] = set()
        self._outstanding = 0
        self._pace = Pace()
        self._paced_s = -math.inf
        self._tasks: asyncio.TaskGroup | None = None
        self._tending: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def opened(self, replicas: Collection[Replica] = ()) -> AsyncGenerator[Self, None]:
        """Probe replicas inside an ``async with``; afterwards no connection is open."""
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            self.change(replicas)
            try:
                yield self
            finally:
                self._tasks = None
                for task in self._tending:
                    task.cancel()

    def change(self, replicas: Collection[Replica]) -> None:
        """Have these replicas and no others; answers under way in a removed one end. Only while open; does not block."""
        if self._tasks is None:
            return
        wanted = set(replicas)
        for replica in self._members.keys() - wanted:
            member = self._members.pop(replica)
            member.is_draining = True
            member.nudge.set()
            self._leaving.add(member)
        for replica in sorted(wanted - self._members.keys(), key=lambda replica: replica.name):
            member = Member(replica, self._per_replica, self._pace, self._now)
            self._members[replica] = member
            task = self._tasks.create_task(self._tend(member), name=f"replica-{replica.name}")
            self._tending.add(task)
            task.add_done_callback(self._tending.discard)

    def loads(self) -> tuple[ReplicaLoad, ...]:
        """Return what is known of each replica, those that drain included, by name."""
        members = (*self._members.values(), *self._leaving)
        return tuple(sorted((member.told() for member in members), key=lambda load: load.name))

    @property
    def is_ready(self) -> bool:
        """Whether at least one replica gets work."""
        return any(member.state is State.READY for member in self._members.values())

    @property
    def outstanding(self) -> int:
        """Requests under way in all replicas."""
        return self._outstanding

    async def complete(self, prompt: Prompt) -> AsyncGenerator[CompletionDelta, None]:
        """Yield one replica's answer; closing it closes the stream to the replica at once and frees its place.

        Raises OverloadedError when all are full, CloudUnreachableError when there is none, DeadlineError when the prompt's budget is
        over, and what the last replica tried raised.
        """
        budget_s = min(prompt.budget_ms / 1000, self._timeout_s)
        until_s = self._now() + budget_s
        key = choice.hashed(prompt.device_id) if prompt.device_id else None
        tried: set[Member] = set()
        while True:
            member = self._chosen(key, tried)
            tried.add(member)
            has_said = False
            left_ms = int((until_s - self._now()) * 1000)
            within = msgspec.structs.replace(prompt, budget_ms=max(1, left_ms))
            try:
                async with aclosing(self._ask(member, within)) as deltas:
                    async for delta in deltas:
                        has_said = has_said or bool(delta.text)
                        yield delta
            except CompletionError as error:
                if has_said or not self._may_retry(error, tried, until_s):
                    raise
                self.retried += 1
                _log.debug("replica_retried", pool=self.name, replica=member.replica.name, code=error.code)
            else:
                return

    def _may_retry(self, error: CompletionError, tried: set[Member], until_s: float) -> bool:
        """Whether another replica may give the answer this one did not begin."""
        others = self._with_room(tried)
        can_help = error.retryable and not is_prompts_fault(error)
        return can_help and len(tried) < self._tries and self._now() < until_s and bool(others)

    def _chosen(self, key: int | None, tried: set[Member]) -> Member:
        """Return the member to ask; raise OverloadedError or CloudUnreachableError when there is none."""
        if not self._members:
            raise CloudUnreachableError(f"pool {self.name} has no replica")
        if self._at_once is not None and self._outstanding >= self._at_once:
            self.refused += 1
            raise OverloadedError(f"pool {self.name} is full: {self._outstanding} requests are under way")
        free = self._with_room(tried)
        if not free:
            self.refused += 1
            raise OverloadedError(f"pool {self.name} is full: each of its replicas is")
        return choice.choose(free, key, self._dice)

    def _with_room(self, tried: set[Member]) -> list[Member]:
        """Return the members to choose from: those that may be used, without those that are full or were tried."""
        self._set_pace()
        members = list(self._members.values())
        states = [member.state for member in members]
        known = len(states) - states.count(State.NEW)
        usable = [member for member, state in zip(members, states, strict=True) if state is State.READY]
        if choice.is_panic(len(usable), known):
            usable = members
        return [member for member in usable if member not in tried and not member.is_full]

    def _set_pace(self) -> None:
        now_s = self._now()
        if now_s - self._paced_s < PACE_S:
            return
        self._paced_s = now_s
        times_s = [member.first_s for member in self._members.values()]
        known_s = [each for each in times_s if each is not None]
        self._pace.usual_s = statistics.median_low(known_s) if known_s else None

    async def _ask(self, member: Member, prompt: Prompt) -> AsyncGenerator[CompletionDelta, None]:
        """Yield a member's answer while holding one of its places, and note how it went."""
        self._outstanding += 1
        member.outstanding += 1
        began_s, has_begun = self._now(), False
        try:
            async with aclosing(member.upstream.complete(prompt)) as deltas:
                first = await _first(deltas, member, began_s)
                has_begun = True
                member.began(self._now() - began_s)
                if first is not None:
                    yield first
                    async for delta in deltas:
                        member.heard_s = self._now()
                        yield delta
            member.spoke()
        except CompletionError as error:
            is_own = is_prompts_fault(error) or (isinstance(error, DeadlineError) and not self._is_silent(began_s))
            has_begun = True
            if not is_own:
                self._note_failure(member, error)
            raise
        finally:
            self._outstanding -= 1
            member.outstanding -= 1
            if not has_begun:
                self._note_giving_up(member, began_s)
            if member.is_draining:
                member.nudge.set()

    def _is_silent(self, began_s: float) -> bool:
        """Whether an answer asked for then, and still without a first token, shows that something is wrong with its replica."""
        return self._now() - began_s >= SILENT_S

    def _note_giving_up(self, member: Member, began_s: float) -> None:
        member.given_up(self._now() - began_s)
        if self._is_silent(began_s):
            self._note_failure(member, DeadlineError("given up without a first token"))

    def _note_failure(self, member: Member, error: CompletionError) -> None:
        now_s = self._now()
        was_ejected = member.standing.is_ejected(now_s)
        ejected = sum(other.standing.is_ejected(now_s) for other in self._members.values() if other is not member)
        member.failed(error, ejected=ejected, size=len(self._members))
        if member.standing.is_ejected(now_s) and not was_ejected:
            lasts_s = round(member.standing.until_s - now_s, 1)
            _log.warning("replica_ejected", pool=self.name, replica=member.replica.name, lasts_s=lasts_s)

    async def _tend(self, member: Member) -> None:
        """Keep a member connected and probed until it was removed and is idle."""
        try:
            async with self._connect(member.replica) as upstream:
                member.upstream = upstream
                while not member.is_draining:
                    member.nudge.clear()
                    await self._probe(member, upstream)
                    await self._rest(member)
                await _left(member)
        except ConfigError as error:
            _log.warning("replica_refused", pool=self.name, replica=member.replica.name, reason=str(error))
            await _left(member)
        finally:
            self._leaving.discard(member)

    async def _probe(self, member: Member, upstream: Upstream) -> None:
        was = member.state
        try:
            member.answered(await upstream.probe())
        except CompletionError as error:
            member.missed(error)
            if member.state is State.AWAY and self.is_ready:
                member.give_up()
        if member.state is not was:
            _log.info("replica_changed", pool=self.name, replica=member.replica.name, state=member.state.value)

    async def _rest(self, member: Member) -> None:
        """Wait for the next probe: a second, a little uneven so that workers do not ask together, less after a miss or a nudge."""
        await asyncio.sleep(SOON_S)
        if member.has_missed:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(PROBE_S * (0.9 + 0.2 * self._dice.random()) - SOON_S):
                await member.nudge.wait()


async def _left(member: Member) -> None:
    """Return when the member was removed and is idle."""
    while not member.is_draining or member.outstanding:
        member.nudge.clear()
        await member.nudge.wait()


async def _first(
    deltas: AsyncGenerator[CompletionDelta, None], member: Member, began_s: float
) -> CompletionDelta | None:
    """Return the first piece, None for no answer at all; raise CloudUnreachableError as soon as the member is away."""
    try:
        async with asyncio.timeout(None) as wait:
            member.silent[wait] = began_s
            try:
                return await anext(deltas, None)
            finally:
                del member.silent[wait]
    except TimeoutError as error:
        raise CloudUnreachableError(f"replica {member.replica.name} stopped answering") from error
