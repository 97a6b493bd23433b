from __future__ import annotations

import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.errors import CompletionError, DeadlineError, OverloadedError
from models.llama_jobs import Ended, Job, Outcome, Started, Wrote
from models.llama_scheduler import READ_ALONE_TOKENS, READ_BESIDE_TOKENS, WARM_PROMPTS, Scheduler, shared, shares

SYSTEM = list(range(1000, 1176))


@dataclass
class _Memory:
    """An engine that writes token 1, 2, 3 …, holds what it is told in cells, and fails when a feed does not fit its state."""

    cells: int = 10_000
    held: dict[int, list[tuple[int, object]]] = field(default_factory=dict)
    """Sequence to its tokens, each with the cell it lies in; shared ones lie in the same."""
    steps: list[list[int]] = field(default_factory=list)
    """Sizes of the feeds of each step."""
    planned: list[Outcome] = field(default_factory=list)
    poison: int | None = None
    """A token that breaks every step it is in."""
    length: int = 5
    partial_forget: bool = True
    wants: list[bool] = field(default_factory=list)

    @property
    def used(self):
        return len({id(cell) for tokens in self.held.values() for _, cell in tokens})

    def sampler(self, seed):
        return iter(range(1, self.length + 1))

    def decode(self, feeds):
        assert len({feed.sequence for feed in feeds}) == len(feeds)
        self.steps.append([len(feed.tokens) for feed in feeds])
        if self.planned and (outcome := self.planned.pop(0)) is not Outcome.DONE:
            return outcome
        if self.used + sum(len(feed.tokens) for feed in feeds) > self.cells:
            return Outcome.FULL
        for feed in feeds:
            row = self.held.setdefault(feed.sequence, [])
            assert feed.start == len(row), "a position was left out or repeated"
            assert feed.tokens
            row.extend((token, object()) for token in feed.tokens)
        if any(self.poison in feed.tokens for feed in feeds):
            return Outcome.BROKEN
        self.wants = [feed.wants_token for feed in feeds]
        return Outcome.DONE

    def sample(self, feed, sampler):
        assert self.wants[feed]
        return next(sampler, None), -0.5

    def forget(self, sequence, start):
        if start and start < len(self.held.get(sequence, [])) and not self.partial_forget:
            return False
        del self.held.get(sequence, [])[start:]
        return True

    def share(self, source, target, count):
        assert not self.held.get(target), "a sequence that holds something cannot be overwritten"
        assert len(self.held[source]) >= count
        self.held[target] = self.held[source][:count]

    def tokens(self, sequence):
        return [token for token, _ in self.held.get(sequence, [])]

    def where(self, token):
        return {sequence for sequence in self.held if token in self.tokens(sequence)}


def _job(*tokens, system=SYSTEM, max_tokens=50, **options):
    return Job(tokens=[*system, *tokens], max_tokens=max_tokens, **options)


def _finish(scheduler, events=None, limit=1000):
    events = [] if events is None else events
    for _ in range(limit):
        if scheduler.is_idle:
            return events
        events += scheduler.step(0.0)
    raise AssertionError("never idle")


def _text(events, job):
    return [event.token for event in events if isinstance(event, Wrote) and event.job is job]


def _end(events, job):
    (end,) = [event for event in events if isinstance(event, Ended) and event.job is job]
    assert [event for event in events if event.job is job][-1] is end
    return end.error


def _warmed(memory, slots=2):
    scheduler = Scheduler(memory, slots=slots)
    scheduler.add(Job(tokens=list(SYSTEM), keeps=True))
    _finish(scheduler)
    memory.steps.clear()
    scheduler.counts.read_tokens = scheduler.counts.reused_tokens = 0
    return scheduler


def _wait_until_writing(scheduler, *jobs):
    events = []
    for _ in range(50):
        events += scheduler.step(0.0)
        if all(job.written for job in jobs):
            return events
    raise AssertionError("never wrote")


@pytest.mark.parametrize(
    ("pending", "room", "given"),
    [
        ([], 64, []),
        ([10], 64, [10]),
        ([1000], 64, [64]),
        ([1000, 20], 64, [44, 20]),
        ([1000, 500, 30], 64, [32, 2, 30]),
        ([5, 1000, 1000], 64, [5, 59, 0]),
        ([40, 40], 64, [40, 24]),
    ],
)
def test_room_goes_half_to_the_oldest_and_then_to_the_shortest(pending, room, given):
    assert shares(pending, room) == given


@given(st.lists(st.integers(1, 500), max_size=12), st.integers(1, 128))
def test_shares_never_exceed_room_or_need_and_waste_nothing(pending, room):
    given = shares(pending, room)
    assert all(0 <= got <= need for got, need in zip(given, pending, strict=True))
    assert sum(given) == min(room, sum(pending))


@given(st.lists(st.integers(0, 2), max_size=40), st.lists(st.integers(0, 2), max_size=40))
def test_shared_is_the_length_of_the_common_beginning(left, right):
    same = shared(left, right)
    assert left[:same] == right[:same]
    assert same == min(len(left), len(right)) or left[same] != right[same]


def test_answer_starts_writes_and_ends():
    scheduler = Scheduler(_Memory(), slots=1)
    job = _job(7, 8, since_s=-2.0)
    scheduler.add(job)
    events = _finish(scheduler)
    assert isinstance(events[0], Started)
    assert events[0].waited_s == 2.0
    assert _text(events, job) == [1, 2, 3, 4, 5]
    assert all(event.logprob == -0.5 for event in events if isinstance(event, Wrote))
    assert _end(events, job) is None


@pytest.mark.parametrize(
    ("options", "text"), [({"max_tokens": 2}, [1, 2]), ({"loops": lambda token: token == 3}, [1, 2, 3])]
)
def test_answer_ends_at_its_limit_or_when_it_loops(options, text):
    scheduler = Scheduler(_Memory(), slots=1)
    job = _job(7, **options)
    scheduler.add(job)
    assert _text(_finish(scheduler), job) == text


def test_requests_join_and_leave_between_steps():
    memory = _Memory(length=6)
    scheduler = _warmed(memory)
    first, second = _job(1), _job(2)
    scheduler.add(first)
    scheduler.step(0.0)
    scheduler.step(0.0)
    scheduler.add(second)
    events = _finish(scheduler)
    assert memory.steps[:4] == [[1], [1], [1, 1], [1, 1]]
    assert memory.steps[-1] == [1]
    assert _text(events, second) == [1, 2, 3, 4, 5, 6]


def test_more_jobs_than_slots_wait_in_order():
    scheduler = Scheduler(_Memory(), slots=2)
    jobs = [_job(number) for number in range(5)]
    for job in jobs:
        scheduler.add(job)
    events = _finish(scheduler)
    assert [event.job for event in events if isinstance(event, Started)] == jobs
    assert all(_text(events, job) == [1, 2, 3, 4, 5] for job in jobs)


def test_warmed_system_prompt_is_shared_and_not_read_again():
    memory = _Memory()
    scheduler = _warmed(memory, slots=4)
    for number in range(4):
        scheduler.add(_job(number, number))
    scheduler.step(0.0)
    assert memory.steps == [[2, 2, 2, 2]]
    assert memory.used == len(SYSTEM) + 8
    assert scheduler.counts.reused_tokens == 4 * len(SYSTEM)


def test_same_beginning_at_the_same_moment_is_read_once():
    memory = _Memory()
    scheduler = Scheduler(memory, slots=8)
    jobs = [_job(number, number) for number in range(8)]
    for job in jobs:
        scheduler.add(job)
    events = _finish(scheduler)
    assert scheduler.counts.read_tokens == len(SYSTEM) + 8 * 2
    assert scheduler.counts.reused_tokens == 7 * len(SYSTEM)
    assert all(_text(events, job) == [1, 2, 3, 4, 5] for job in jobs)


def test_losing_whom_it_followed_lets_the_next_lead():
    memory = _Memory()
    scheduler = Scheduler(memory, slots=3)
    jobs = [_job(number, number) for number in range(3)]
    for job in jobs:
        scheduler.add(job)
    scheduler.step(0.0)
    assert memory.steps == [[READ_ALONE_TOKENS]]
    scheduler.cancel(jobs[0], 0.0)
    events = _finish(scheduler)
    assert scheduler.counts.read_tokens == len(SYSTEM) + 2 * 2
    assert all(_text(events, job) == [1, 2, 3, 4, 5] for job in jobs[1:])


def test_follow_up_turn_reads_only_what_is_new():
    memory = _Memory()
    scheduler = _warmed(memory)
    first, other = _job(1, 2, 3, device_id="a"), _job(40, device_id="b")
    scheduler.add(first)
    scheduler.add(other)
    _finish(scheduler)
    scheduler.counts.read_tokens = 0
    scheduler.add(_job(*first.tokens[len(SYSTEM) :], 90, 91, device_id="a"))
    _finish(scheduler)
    assert scheduler.counts.read_tokens == 2
    assert len(memory.where(40)) == 1


def test_other_device_with_the_same_beginning_leaves_the_dialogue_alone():
    memory = _Memory()
    scheduler = _warmed(memory)
    scheduler.add(_job(1, 2, 3, device_id="a"))
    _finish(scheduler)
    (dialogue,) = memory.where(3)
    kept = memory.tokens(dialogue)
    scheduler.add(_job(1, 2, 9, device_id="b"))
    _finish(scheduler)
    assert memory.tokens(dialogue) == kept
    assert scheduler.counts.read_tokens == 3 + 1


def test_longest_idle_dialogue_makes_room_for_a_new_one():
    memory = _Memory()
    scheduler = _warmed(memory)
    for device in "abc":
        scheduler.add(_job(ord(device), device_id=device))
        _finish(scheduler)
    assert [len(memory.where(ord(device))) for device in "abc"] == [0, 1, 1]


def test_same_prompt_again_computes_its_last_token():
    memory = _Memory()
    scheduler = Scheduler(memory, slots=1)
    for _ in range(2):
        scheduler.add(_job(1, 2, device_id="a"))
        memory.steps.clear()
        _finish(scheduler)
    assert memory.steps[0] == [1]


def test_model_that_cannot_forget_in_part_reads_anew():
    memory = _Memory(partial_forget=False)
    scheduler = Scheduler(memory, slots=1)
    for tail in (1, 2):
        scheduler.add(_job(tail, device_id="a"))
        events = _finish(scheduler)
    assert scheduler.counts.read_tokens == 2 * (len(SYSTEM) + 1)
    assert len([event for event in events if isinstance(event, Wrote)]) == 5


def test_long_prompt_is_read_in_pieces_and_stalls_nobody():
    memory = _Memory(length=30)
    scheduler = _warmed(memory)
    writer, reader = _job(1), _job(*range(2000, 3000))
    scheduler.add(writer)
    _wait_until_writing(scheduler, writer)
    scheduler.add(reader)
    memory.steps.clear()
    _wait_until_writing(scheduler, reader)
    assert all(sizes == [1, READ_BESIDE_TOKENS] for sizes in memory.steps[:15])
    assert writer.written == 1 + len(memory.steps)


def test_short_prompt_overtakes_a_long_one_which_still_goes_on():
    memory = _Memory()
    scheduler = _warmed(memory)
    long, short = _job(*range(2000, 3000)), _job(1, 2, 3)
    scheduler.add(long)
    scheduler.step(0.0)
    scheduler.add(short)
    scheduler.step(0.0)
    assert short.written == 1
    assert memory.steps == [[READ_ALONE_TOKENS], [READ_ALONE_TOKENS - 3, 3]]


def test_only_the_oldest_warm_prompt_makes_room():
    memory = _Memory()
    scheduler = Scheduler(memory, slots=1)
    for number in range(WARM_PROMPTS + 1):
        for _ in range(2):
            scheduler.add(Job(tokens=[number] * 20, keeps=True))
            _finish(scheduler)
    assert [memory.tokens(1 + sequence)[0] for sequence in range(WARM_PROMPTS)] == [WARM_PROMPTS, 1, 2]


@pytest.mark.parametrize("phase", ["waiting", "following", "reading", "writing"])
def test_cancelling_frees_within_a_step_in_every_phase(phase):
    memory = _Memory(length=100)
    scheduler = Scheduler(memory, slots=1 if phase == "waiting" else 2)
    other, job = _job(1, max_tokens=100), _job(2, *range(3000, 3300), max_tokens=100)
    if phase == "reading":
        job.tokens[0] = 9
    scheduler.add(other)
    scheduler.add(job)
    scheduler.step(0.0)
    assert (job in scheduler.reading) is False, "only while the step runs"
    if phase == "writing":
        _wait_until_writing(scheduler, other, job)
    scheduler.cancel(job, 0.0)
    events = scheduler.step(0.0)
    assert _end(events, job) is None
    fed = len(memory.steps)
    events = _finish(scheduler)
    assert not _text(events, job)
    assert all(len(sizes) == 1 for sizes in memory.steps[fed:])


def test_cancelling_twice_or_too_late_does_nothing():
    scheduler = Scheduler(_Memory(), slots=1)
    job = _job(1)
    scheduler.add(job)
    events = _finish(scheduler)
    scheduler.cancel(job, 0.0)
    assert scheduler.step(0.0) == []
    assert _end(events, job) is None


def test_running_step_tells_whose_prompt_it_reads():
    seen = []
    memory = _Memory()
    scheduler = Scheduler(memory, slots=1)
    decode = memory.decode
    memory.decode = lambda feeds: (seen.append(scheduler.reading), decode(feeds))[1]
    job = _job(1)
    scheduler.add(job)
    _finish(scheduler)
    assert seen[:3] == [{job}, {job}, frozenset()]


def test_full_memory_drops_idle_dialogues_first():
    memory = _Memory(cells=len(SYSTEM) + 60, length=20)
    scheduler = _warmed(memory)
    scheduler.add(_job(77, device_id="a"))
    _finish(scheduler)
    job = _job(*range(2000, 2030), device_id="b")
    scheduler.add(job)
    events = _finish(scheduler)
    assert len(_text(events, job)) == 20
    assert (scheduler.counts.evictions, scheduler.counts.preemptions) == (1, 0)
    assert not memory.where(77)


def test_full_memory_pauses_the_youngest_and_all_answers_come_out_whole():
    memory = _Memory(cells=len(SYSTEM) + 70, length=30)
    scheduler = _warmed(memory, slots=3)
    jobs = [_job(*range(number, number + 10)) for number in (2000, 3000, 4000)]
    for job in jobs:
        scheduler.add(job)
    events = _finish(scheduler)
    assert all(_text(events, job) == list(range(1, 31)) for job in jobs)
    assert all(_end(events, job) is None for job in jobs)
    assert [event.job for event in events if isinstance(event, Started)] == jobs
    assert 1 <= scheduler.counts.preemptions <= 3
    assert next(event.job for event in events if isinstance(event, Ended)) is jobs[0]


def test_nobody_begins_while_somebody_is_paused():
    memory = _Memory(cells=len(SYSTEM) + 40, length=30)
    scheduler = _warmed(memory, slots=2)
    first, second, third = (_job(number) for number in range(3))
    scheduler.add(first)
    scheduler.add(second)
    events = []
    while not scheduler.counts.preemptions:
        events += scheduler.step(0.0)
    scheduler.add(third)
    events = _finish(scheduler, events)
    assert [event.job for event in events if isinstance(event, Ended)] == [first, second, third]
    assert scheduler.counts.preemptions <= 2


def test_warm_prompts_go_before_the_last_answer_fails():
    memory = _Memory(cells=2 * len(SYSTEM) - 20)
    scheduler = _warmed(memory, slots=1)
    job = _job(system=[5] * len(SYSTEM))
    scheduler.add(job)
    assert _text(_finish(scheduler), job) == [1, 2, 3, 4, 5]
    assert len(memory.tokens(1)) == 0


def test_prompt_beyond_all_memory_is_refused_and_the_next_is_answered():
    scheduler = Scheduler(_Memory(cells=100), slots=1)
    large, small = _job(), _job(system=[1, 2])
    scheduler.add(large)
    scheduler.add(small)
    events = _finish(scheduler)
    assert isinstance(_end(events, large), OverloadedError)
    assert _text(events, small) == [1, 2, 3, 4, 5]


def test_failing_step_ends_only_the_job_that_fails_alone():
    memory = _Memory(poison=666)
    scheduler = _warmed(memory, slots=3)
    jobs = [_job(1), _job(666), _job(3)]
    for job in jobs:
        scheduler.add(job)
    events = _finish(scheduler)
    assert isinstance(_end(events, jobs[1]), CompletionError)
    assert all(_text(events, job) == [1, 2, 3, 4, 5] for job in (jobs[0], jobs[2]))


def test_passing_failure_of_a_step_ends_nobody():
    memory = _Memory()
    scheduler = _warmed(memory)
    jobs = [_job(1), _job(2)]
    for job in jobs:
        scheduler.add(job)
    memory.planned = [Outcome.DONE, Outcome.BROKEN]
    events = _finish(scheduler)
    assert all(_text(events, job) == [1, 2, 3, 4, 5] for job in jobs)


def test_stopped_step_is_taken_back_and_repeated():
    memory = _Memory()
    scheduler = _warmed(memory)
    job = _job(1, 2, 3)
    scheduler.add(job)
    memory.planned = [Outcome.STOPPED]
    assert [type(event) for event in scheduler.step(0.0)] == [Started]
    assert _text(_finish(scheduler), job) == [1, 2, 3, 4, 5]


def test_deadline_ends_waiting_and_running_jobs():
    scheduler = Scheduler(_Memory(length=50), slots=1)
    running, waiting = _job(1, deadline_s=5.0), _job(2, deadline_s=3.0)
    scheduler.add(running)
    scheduler.add(waiting)
    scheduler.step(0.0)
    assert isinstance(_end(scheduler.step(4.0), waiting), DeadlineError)
    assert isinstance(_end(scheduler.step(6.0), running), DeadlineError)
    assert scheduler.is_idle


def test_abandoning_ends_everybody():
    scheduler = Scheduler(_Memory(), slots=1)
    jobs = [_job(1), _job(2)]
    for job in jobs:
        scheduler.add(job)
    events = scheduler.step(0.0) + scheduler.abandon(1.0, OverloadedError("closed"))
    assert all(isinstance(_end(events, job), OverloadedError) for job in jobs)
    assert scheduler.is_idle


def test_mean_time_of_a_slot_follows_the_latest_answers():
    scheduler = Scheduler(_Memory(length=0), slots=1)
    for held_s in (10.0, 5.0):
        scheduler.add(_job(system=[int(held_s)] * 200))
        scheduler.step(0.0)
        scheduler.step(held_s)
    assert scheduler.hold_s == pytest.approx(9.0)


@pytest.mark.parametrize("seed", range(20))
def test_random_traffic_leaves_nothing_behind_and_loses_no_token(seed):
    dice = random.Random(seed)
    memory = _Memory(cells=len(SYSTEM) + 400, length=12)
    scheduler = _warmed(memory, slots=4)
    jobs, cancelled, events = [], set(), []
    for _ in range(150):
        if dice.random() < 0.3:
            tail = [dice.randrange(5) for _ in range(dice.randrange(1, 150))]
            jobs.append(_job(*tail, device_id=dice.choice(["", "a", "b", "c"])))
            scheduler.add(jobs[-1])
        if jobs and dice.random() < 0.1:
            job = dice.choice(jobs)
            cancelled.add(job)
            scheduler.cancel(job, 0.0)
        if dice.random() < 0.1:
            memory.planned = [dice.choice([Outcome.STOPPED, Outcome.BROKEN, Outcome.FULL])]
        events += scheduler.step(0.0)
    _finish(scheduler, events)
    for job in jobs:
        assert _end(events, job) is None
        assert _text(events, job) == list(range(1, 13)) or job in cancelled
