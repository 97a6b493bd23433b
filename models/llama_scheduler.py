"""Decides which tokens of which dialogues the next step of the model computes; knows neither threads nor llama.cpp.

A slot is a sequence in the model's memory. What an answer left there stays until the room is needed: the same device's next turn
goes on from it, and anybody's prompt that begins like it shares it. Every step takes one token of each answer being written and a
bounded piece of the prompts still being read, so that neither waits for the other.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

from models.errors import CompletionError, DeadlineError, OverloadedError, VoiceError
from models.llama_jobs import Counts, Ended, Engine, Event, Feed, Job, Outcome, Started, Wrote

READ_ALONE_TOKENS = 128
"""Prompt tokens per step while nobody writes: 0.2-0.4 s on two cores with a 0.5B model, and hardly slower per token than 512."""
READ_BESIDE_TOKENS = 64
"""Prompt tokens per step while others write: their longest pause was 0.4 s, with 128 it was 0.7 s (0.5B, two cores)."""
WARM_PROMPTS = 3
"""System prompts whose state is kept; the oldest makes room."""
WORTH_WAITING_TOKENS = 16
"""A prompt waits for another that is being read if it begins with that many more of the same tokens. A guess: a step's worth."""

_NEW_HOLD_SHARE = 0.2
"""Weight of the latest answer in the mean time that answers hold a slot. A guess: the last five count most."""


@dataclass(eq=False, slots=True)
class _Slot:
    sequence: int
    tokens: list[int] = field(default_factory=list)
    """What the model's memory holds of this sequence."""
    job: Job | None = None
    device_id: str = ""
    used: int = 0
    """Order of the last admission or release; the smallest was idle longest."""
    leader: tuple[_Slot, Job, int] | None = None
    """Who reads the same beginning now, and how much of it is the same."""


def shares(pending: Sequence[int], room: int) -> list[int]:
    """Return how many tokens each prompt reads in a step with room for ``room``; ``pending`` is what each has left, oldest first.

    Half is the oldest's, so that it is never starved; the rest goes to whoever is done soonest.
    """
    given = [0] * len(pending)
    if pending:
        given[0] = min(pending[0], (room + 1) // 2)
        room -= given[0]
    for index in sorted(range(len(pending)), key=lambda index: pending[index] - given[index]):
        more = min(pending[index] - given[index], room)
        given[index] += more
        room -= more
    return given


def shared(left: Sequence[int], right: Sequence[int]) -> int:
    """Return how many tokens both begin with."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low


class Scheduler:
    """Runs jobs on an engine, step by step; not safe for several threads, except reading ``reading``, ``hold_s`` and ``counts``."""

    def __init__(self, engine: Engine, *, slots: int, name: str = "llama") -> None:
        self._engine = engine
        self._name = name
        self._slots = [_Slot(sequence) for sequence in range(slots)]
        self._kept: dict[int, list[int]] = {}
        """Sequence to the system prompt in it; the oldest first."""
        self._waiting: deque[Job] = deque()
        self._order = count(1)
        self._is_crowded = False
        """A job was preempted and nothing ended since: whoever began now would be the next victim."""
        self._events: list[Event] = []
        self.counts = Counts()
        self.hold_s = 0.0
        """Mean time that the latest answers held a slot; 0 before the first."""
        self.reading: frozenset[Job] = frozenset()
        """Whose prompt the running step reads."""

    @property
    def is_idle(self) -> bool:
        """Whether a step would do nothing."""
        return not self._waiting and not any(slot.job for slot in self._slots)

    def add(self, job: Job) -> None:
        """Put a job in line; it begins with the next step if a slot is free."""
        self._waiting.append(job)

    def cancel(self, job: Job, now_s: float) -> None:
        """Stop working for a job; its end is among the next step's events. Nothing happens if it ended."""
        self._drop(job, now_s, None)

    def step(self, now_s: float) -> list[Event]:
        """Compute one batch, and return what happened since the last step."""
        self._expire(now_s)
        self._admit(now_s)
        feeds = self._plan()
        if feeds:
            self.counts.steps += 1
            self._compute(feeds, now_s)
        self.reading = frozenset()
        events, self._events = self._events, []
        return events

    def abandon(self, now_s: float, error: VoiceError) -> list[Event]:
        """End all jobs with ``error`` without touching the engine."""
        for job in [*self._waiting, *(slot.job for slot in self._slots if slot.job)]:
            self._drop(job, now_s, error)
        events, self._events = self._events, []
        return events

    def _expire(self, now_s: float) -> None:
        for job in [job for job in self._waiting if now_s > job.deadline_s]:
            self._drop(job, now_s, DeadlineError(f"{self._name}: no slot within the budget"))
        for slot in self._slots:
            if slot.job and now_s > slot.job.deadline_s:
                error = DeadlineError(f"{self._name}: the budget ran out after {slot.job.written} tokens")
                self._drop(slot.job, now_s, error)

    def _drop(self, job: Job, now_s: float, error: VoiceError | None) -> None:
        if job in self._waiting:
            self._waiting.remove(job)
            self._events.append(Ended(job, error))
        for slot in self._slots:
            if slot.job is job:
                self._release(slot, now_s, error)

    def _release(self, slot: _Slot, now_s: float, error: VoiceError | None = None) -> None:
        job = slot.job
        if job is None:
            return
        slot.job, slot.leader, slot.used = None, None, next(self._order)
        self._is_crowded = False
        if not job.keeps and job.started_s is not None:
            held_s = now_s - job.started_s
            self.hold_s += (held_s - self.hold_s) * (_NEW_HOLD_SHARE if self.hold_s else 1.0)
        self._events.append(Ended(job, error))

    def _admit(self, now_s: float) -> None:
        while self._waiting and not (self._is_crowded and any(slot.job for slot in self._slots)):
            idle = [slot for slot in self._slots if slot.job is None]
            if not idle:
                return
            job = self._waiting.popleft()
            slot = _slot_for(job, idle)
            if job.started_s is None:
                job.started_s = now_s
                job.sampler = None if job.keeps else self._engine.sampler(job.seed)
                self._events.append(Started(job, now_s - job.since_s))
            slot.job, slot.device_id, slot.used = job, job.device_id, next(self._order)
            self._reuse(slot, job)
            slot.leader = self._leader(slot, job)

    def _reuse(self, slot: _Slot, job: Job) -> None:
        """Let the slot begin with whatever of the job's tokens is in memory; the last one is always computed."""
        most = len(job.tokens) - 1
        own = min(shared(slot.tokens, job.tokens), most)
        others = {other.sequence: other.tokens for other in self._slots if other is not slot} | self._kept
        lengths = {sequence: min(shared(tokens, job.tokens), most) for sequence, tokens in others.items()}
        best = max(lengths, key=lambda sequence: lengths[sequence], default=None)
        if best is not None and lengths[best] > own:
            self._forget(slot, 0)
            self._engine.share(best, slot.sequence, lengths[best])
            slot.tokens = job.tokens[: lengths[best]]
        else:
            self._forget(slot, own)
        self.counts.reused_tokens += len(slot.tokens)

    def _leader(self, slot: _Slot, job: Job) -> tuple[_Slot, Job, int] | None:
        """Return whoever else is reading a longer common beginning now."""
        best: tuple[_Slot, Job, int] | None = None
        for other in self._slots:
            if other is slot or other.job is None or other.leader:
                continue
            same = min(shared(other.job.tokens, job.tokens), len(job.tokens) - 1)
            if same >= len(slot.tokens) + WORTH_WAITING_TOKENS and (best is None or same > best[2]):
                best = (other, other.job, same)
        return best

    def _follow(self, slot: _Slot, job: Job) -> bool:
        """Return whether the slot waits for what its leader reads; take it over once it is there."""
        if slot.leader is None:
            return False
        other, leader, same = slot.leader
        if other.job is leader and len(other.tokens) < same:
            return True
        self.counts.reused_tokens -= len(slot.tokens)
        self._reuse(slot, job)
        slot.leader = self._leader(slot, job)
        return slot.leader is not None

    def _plan(self) -> list[Feed]:
        feeds: list[Feed] = []
        reads: list[tuple[_Slot, Job]] = []
        for slot in sorted(self._slots, key=lambda slot: slot.used):
            job = slot.job
            if job is None or self._follow(slot, job):
                continue
            if len(job.tokens) - len(slot.tokens) == 1:
                feeds.append(_feed(slot, job, 1))
            else:
                reads.append((slot, job))
        room = READ_BESIDE_TOKENS if feeds else READ_ALONE_TOKENS
        sizes = shares([len(job.tokens) - len(slot.tokens) for slot, job in reads], room)
        feeds += [_feed(slot, job, size) for (slot, job), size in zip(reads, sizes, strict=True) if size]
        self.reading = frozenset(job for (_, job), size in zip(reads, sizes, strict=True) if size)
        return feeds

    def _compute(self, feeds: Sequence[Feed], now_s: float, *, is_last_try: bool = False) -> None:
        outcome = self._engine.decode(feeds)
        if outcome is Outcome.DONE:
            for index, feed in enumerate(feeds):
                self._advance(index, feed, now_s)
        elif outcome is Outcome.FULL:
            self._make_room(now_s)
        else:
            for feed in feeds:
                self._forget(self._slots[feed.sequence], feed.start)
            if outcome is Outcome.BROKEN:
                self._fail(feeds, now_s) if is_last_try else self._isolate(feeds, now_s)

    def _advance(self, index: int, feed: Feed, now_s: float) -> None:
        slot = self._slots[feed.sequence]
        job = slot.job
        if job is None:
            return
        slot.tokens.extend(feed.tokens)
        self.counts.read_tokens += len(feed.tokens) if len(slot.tokens) <= len(job.tokens) - job.written else 0
        if feed.wants_token:
            self._write(index, slot, job, now_s)
        elif job.keeps and len(slot.tokens) == len(job.tokens):
            self._keep(slot)
            self._forget(slot, 0)
            self._release(slot, now_s)

    def _write(self, index: int, slot: _Slot, job: Job, now_s: float) -> None:
        token, logprob = self._engine.sample(index, job.sampler)
        if token is None:
            self._release(slot, now_s)
            return
        job.written += 1
        self.counts.written_tokens += 1
        self._events.append(Wrote(job, token, logprob))
        if job.written >= job.max_tokens or job.loops(token):
            self._release(slot, now_s)
        else:
            job.tokens.append(token)

    def _keep(self, slot: _Slot) -> None:
        if slot.tokens in self._kept.values():
            return
        first = len(self._slots)
        free = [sequence for sequence in range(first, first + WARM_PROMPTS) if sequence not in self._kept]
        sequence = free[0] if free else next(iter(self._kept))
        self._kept.pop(sequence, None)
        self._engine.forget(sequence, 0)
        self._engine.share(slot.sequence, sequence, len(slot.tokens))
        self._kept[sequence] = list(slot.tokens)

    def _make_room(self, now_s: float) -> None:
        """Give up the least that lets the next step go on: an idle dialogue, else pause an answer, else forget what is kept warm."""
        idle = [slot for slot in self._slots if slot.job is None and slot.tokens]
        busy = [(slot, slot.job) for slot in self._slots if slot.job]
        if idle:
            self.counts.evictions += 1
            self._forget(min(idle, key=lambda slot: slot.used), 0)
        elif len(busy) > 1:
            self.counts.preemptions += 1
            slot, job = min(busy, key=lambda pair: (pair[1].written, -pair[0].used))
            slot.job, slot.leader = None, None
            self._forget(slot, 0)
            self._waiting.appendleft(job)
            self._is_crowded = True
        elif self._kept:
            for sequence in self._kept:
                self._engine.forget(sequence, 0)
            self._kept.clear()
        else:
            for slot, job in busy:
                self._release(
                    slot, now_s, OverloadedError(f"{self._name}: {len(job.tokens)} tokens do not fit its memory")
                )

    def _isolate(self, feeds: Sequence[Feed], now_s: float) -> None:
        """After a step failed, compute each feed alone: only those that fail again end."""
        for feed in feeds:
            slot = self._slots[feed.sequence]
            if slot.job and len(slot.tokens) == feed.start:
                self._compute([feed], now_s, is_last_try=True)

    def _fail(self, feeds: Sequence[Feed], now_s: float) -> None:
        for feed in feeds:
            slot = self._slots[feed.sequence]
            self._forget(slot, 0)
            self._release(slot, now_s, CompletionError(f"{self._name}: the model failed at position {feed.start}"))

    def _forget(self, slot: _Slot, start: int) -> None:
        if start and self._engine.forget(slot.sequence, start):
            del slot.tokens[start:]
        else:
            self._engine.forget(slot.sequence, 0)
            slot.tokens = []


def _slot_for(job: Job, idle: Sequence[_Slot]) -> _Slot:
    """Return the same dialogue's slot, else an empty one, else the one idle for longest."""
    own = [slot for slot in idle if slot.tokens and job.device_id and slot.device_id == job.device_id]
    return own[0] if own else min(idle, key=lambda slot: (bool(slot.tokens), slot.used))


def _feed(slot: _Slot, job: Job, size: int) -> Feed:
    start = len(slot.tokens)
    tokens = job.tokens[start : start + size]
    return Feed(slot.sequence, start, tokens, wants_token=not job.keeps and start + size == len(job.tokens))
