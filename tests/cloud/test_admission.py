from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass
from math import inf

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloud.admission import FORGET_S, MAX_EDGES_KEPT, Admission, Offer, Pace, Refusal, Terms, Ticket

RUNS, WAITS = Offer(runs=True), Offer(waits=True)


def ticket(name: str, edge: str = "e", *, device: str = "", preload: bool = False, until_s: float = inf) -> Ticket:
    return Ticket(request_id=name, edge_id=edge, device_id=device, is_preload=preload, first_token_until_s=until_s)


def door(**terms: float) -> Admission:
    return Admission(Terms(**{"max_running": 2, "max_waiting": 4, **terms}))  # type: ignore[arg-type]  # numbers by name


def names_in_turn(admission: Admission, ended: str, now_s: float = 0.0) -> str:
    """End a request and return who is let in."""
    admission.ended(ended, now_s)
    following = admission.next(now_s)
    assert admission.next(now_s) is None
    return following.request_id if following else ""


def test_slots_fill_then_the_line_then_nothing() -> None:
    admission = door()
    assert [admission.offer(ticket(name), 0) for name in "abcdef"] == [RUNS] * 2 + [WAITS] * 4
    assert admission.offer(ticket("g"), 0) == Offer(refusal=Refusal.FULL)
    assert (admission.running, admission.waiting) == (2, 4)
    assert names_in_turn(admission, "a") == "c"
    assert names_in_turn(admission, "c") == "d"


def test_without_a_line_nobody_waits() -> None:
    admission = door(max_running=1, max_waiting=0)
    assert admission.offer(ticket("a"), 0) == RUNS
    assert admission.offer(ticket("b"), 0) == Offer(refusal=Refusal.FULL)


def test_one_that_waits_leaves_at_once_when_nobody_wants_it_any_more() -> None:
    admission = door(max_running=1)
    for name in "abc":
        admission.offer(ticket(name), 0)
    assert admission.left("b")
    assert not admission.left("b")
    assert not admission.left("a"), "that one runs"
    assert names_in_turn(admission, "a") == "c"
    assert admission.waiting == 0


# Time


@pytest.mark.parametrize(
    ("until_s", "expected"),
    [(-1.0, Offer(refusal=Refusal.LATE)), (0.0, Offer(refusal=Refusal.LATE)), (0.1, RUNS), (inf, RUNS)],
)
def test_an_idle_worker_tries_all_that_is_not_over(until_s: float, expected: Offer) -> None:
    admission = door()
    admission.first_tokens.note(5.0, 0)
    assert admission.offer(ticket("a", until_s=until_s), 0) == expected


@pytest.mark.parametrize(
    ("until_s", "expected"),
    [(0.4, Offer(refusal=Refusal.LATE)), (0.6, RUNS)],
)
def test_a_busy_worker_refuses_what_its_first_tokens_are_too_slow_for(until_s: float, expected: Offer) -> None:
    admission = door()
    admission.offer(ticket("a"), 0)
    admission.first_tokens.note(0.5, 0)
    assert admission.offer(ticket("b", until_s=until_s), 0) == expected


@pytest.mark.parametrize(
    ("waiting", "until_s", "is_taken"), [(0, 1.4, False), (0, 1.6, True), (2, 3.4, False), (2, 3.6, True)]
)
def test_the_line_is_judged_by_how_fast_it_moves(waiting: int, until_s: float, is_taken: bool) -> None:  # a table
    admission = door(max_running=1)
    admission.offer(ticket("runs"), 0)
    for number in range(waiting):
        admission.offer(ticket(f"waits-{number}"), 0)
    admission.services.note(1.0, 0)
    admission.first_tokens.note(0.5, 0)
    assert admission.offer(ticket("new", until_s=until_s), 0) == (WAITS if is_taken else Offer(refusal=Refusal.LATE))


def test_another_edge_s_long_line_makes_a_newcomer_wait_for_one_of_them_only() -> None:
    admission = door(max_running=1)
    admission.offer(ticket("runs", "busy"), 0)
    for number in range(3):
        admission.offer(ticket(f"{number}", "busy"), 0)
    admission.services.note(1.0, 0)
    assert admission.wait_s(ticket("new", "other"), 0) == 2.0
    assert admission.wait_s(ticket("new", "busy"), 0) == 4.0


def test_who_waited_too_long_is_found() -> None:
    admission = door(max_running=1)
    admission.offer(ticket("runs"), 0)
    for name, until_s in (("soon", 1.0), ("later", 3.0), ("ever", inf)):
        assert admission.offer(ticket(name, until_s=until_s), 0) == WAITS
    assert admission.late(0.5) == []
    assert [late.request_id for late in admission.late(1.5)] == ["soon"]
    admission.first_tokens.note(2.0, 1.5)
    assert [late.request_id for late in admission.late(1.5)] == ["later"], "it could not be in time any more"
    assert admission.waiting == 1


def test_measurements_are_smoothed_and_forgotten() -> None:
    pace = Pace()
    assert pace.at(0) == 0
    pace.note(1.0, 0)
    pace.note(2.0, 1)
    assert pace.at(1) == pytest.approx(1.2)
    assert pace.at(1 + FORGET_S) == pytest.approx(1.2)
    assert pace.at(1.1 + FORGET_S) == 0
    pace.note(5.0, 30)
    assert pace.at(30) == 5.0


# Fairness


def test_a_free_slot_goes_to_the_edge_with_the_fewest_then_to_its_device_with_the_fewest() -> None:
    admission = door(max_running=3, max_waiting=10)
    for name, edge, device in (("a1", "a", "x"), ("a2", "a", "y"), ("b1", "b", "z")):
        admission.offer(ticket(name, edge, device=device), 0)
    for name, edge, device in (("a3", "a", "x"), ("a4", "a", "w"), ("b2", "b", "z"), ("b3", "b", "v")):
        admission.offer(ticket(name, edge, device=device), 0)
    assert names_in_turn(admission, "a1") == "a3", "one each, and a was served longer ago, as was its device x"
    assert names_in_turn(admission, "b1") == "b3", "b has none now; its device v never had one"


def test_equal_edges_take_turns() -> None:
    admission = door(max_running=1, max_waiting=20)
    admission.offer(ticket("a0", "a"), 0)
    for number in range(1, 4):
        for edge in "abc":
            admission.offer(ticket(f"{edge}{number}", edge), 0)
    order, last = [], "a0"
    for _ in range(9):
        last = names_in_turn(admission, last)
        order.append(last)
    assert order == ["b1", "c1", "a1", "b2", "c2", "a2", "b3", "c3", "a3"]


def test_a_full_line_makes_room_for_an_edge_that_has_less_of_it() -> None:
    admission = door(max_running=1, max_waiting=3)
    for name in ("a0", "a1", "a2", "a3"):
        admission.offer(ticket(name, "a"), 0)
    offer = admission.offer(ticket("b1", "b"), 0)
    assert offer.waits
    assert offer.evicted is not None
    assert offer.evicted.request_id == "a3", "the newest of whoever has the most"
    assert admission.offer(ticket("a4", "a"), 0) == Offer(refusal=Refusal.FULL)
    assert admission.waiting == 3


def test_turns_come_before_preloading_and_take_its_place() -> None:
    admission = door(max_running=1, max_waiting=2)
    admission.offer(ticket("runs"), 0)
    assert admission.offer(ticket("p1", preload=True), 0) == WAITS
    assert admission.offer(ticket("t1"), 0) == WAITS
    offer = admission.offer(ticket("t2"), 0)
    assert offer.waits
    assert offer.evicted is not None
    assert offer.evicted.request_id == "p1"
    assert admission.offer(ticket("p2", preload=True), 0) == Offer(refusal=Refusal.FULL)
    assert names_in_turn(admission, "runs") == "t1"


def test_preloading_leaves_slots_for_turns() -> None:
    admission = door(max_running=4, max_waiting=4, preload_share=0.5)
    offers = [admission.offer(ticket(f"p{number}", preload=True), 0) for number in range(3)]
    assert offers == [RUNS, RUNS, WAITS]
    assert admission.offer(ticket("t"), 0) == RUNS
    assert admission.next(0) is None
    assert names_in_turn(admission, "p0") == "p2"


# Budgets


def test_an_edge_s_bucket_empties_and_fills() -> None:
    admission = door(max_running=100, edge_rate_hz=2.0, edge_burst=3)
    assert [admission.offer(ticket(f"a{n}", "a"), 0).runs for n in range(4)] == [True] * 3 + [False]
    assert admission.offer(ticket("b", "b"), 0) == RUNS, "another edge has its own"
    assert admission.offer(ticket("a5", "a"), 0.4) == Offer(refusal=Refusal.RATE)
    assert admission.offer(ticket("a6", "a"), 0.5) == RUNS
    assert [admission.offer(ticket(f"c{n}", "a"), 100).runs for n in range(4)] == [True] * 3 + [False]


def test_edges_without_end_cannot_fill_the_memory() -> None:
    admission = door(max_running=10**6, edge_rate_hz=1.0, edge_burst=1)
    for number in range(MAX_EDGES_KEPT + 10):
        admission.offer(ticket(f"r{number}", f"e{number}"), 0)
        admission.ended(f"r{number}", 0)
    assert len(admission._buckets._levels) == MAX_EDGES_KEPT
    assert len(admission._served) <= MAX_EDGES_KEPT
    assert not admission._by_edge


def test_a_device_has_its_share_and_who_does_not_say_has_none() -> None:
    admission = door(max_running=1, max_per_device=2)
    assert admission.offer(ticket("a", device="d"), 0) == RUNS
    assert admission.offer(ticket("b", device="d"), 0) == WAITS
    assert admission.offer(ticket("c", device="d"), 0) == Offer(refusal=Refusal.DEVICE)
    assert admission.offer(ticket("d", "other", device="d"), 0) == WAITS, "another edge's device of the same name"
    admission.left("b")
    assert admission.offer(ticket("e", device="d"), 0) == WAITS
    assert admission.offer(ticket("f"), 0) == WAITS


# Properties


@dataclass(frozen=True)
class Step:
    """Something that happens to a door."""

    what: str
    edge: int
    device: int
    is_preload: bool
    patience_s: float
    passed_s: float


steps = st.lists(
    st.builds(
        Step,
        what=st.sampled_from(["offer", "offer", "offer", "end", "leave", "late"]),
        edge=st.integers(0, 3),
        device=st.integers(0, 2),
        is_preload=st.booleans(),
        patience_s=st.sampled_from([0.5, 2.0, inf]),
        passed_s=st.floats(0, 0.5),
    ),
    max_size=60,
)
terms = st.builds(
    Terms,
    max_running=st.integers(1, 4),
    max_waiting=st.integers(0, 5),
    max_per_device=st.integers(0, 3),
    edge_rate_hz=st.sampled_from([0.0, 3.0]),
)


class Model:
    """A door, and who should be where."""

    def __init__(self, terms: Terms) -> None:
        self.admission = Admission(terms)
        self.running: list[str] = []
        self.waiting: list[str] = []
        self.now_s = 0.0
        self.count = 0

    def take(self, step: Step) -> None:
        self.now_s += step.passed_s
        getattr(self, step.what)(step)
        while (following := self.admission.next(self.now_s)) is not None:
            self.waiting.remove(following.request_id)
            self.running.append(following.request_id)
        assert self.admission.running == len(self.running) <= self.admission.terms.max_running
        assert self.admission.waiting == len(self.waiting) <= self.admission.terms.max_waiting

    def offer(self, step: Step) -> None:
        self.count += 1
        name, until_s = f"r{self.count}", self.now_s + step.patience_s
        new = ticket(name, f"e{step.edge}", device=f"d{step.device}", preload=step.is_preload, until_s=until_s)
        offer = self.admission.offer(new, self.now_s)
        assert [offer.runs, offer.waits, offer.refusal is not None].count(True) == 1
        assert offer.evicted is None or offer.waits
        if offer.evicted:
            self.waiting.remove(offer.evicted.request_id)
        self.running += [name] * offer.runs
        self.waiting += [name] * offer.waits

    def end(self, step: Step) -> None:
        if self.running:
            self.admission.ended(self.running.pop(step.edge % len(self.running)), self.now_s)

    def leave(self, step: Step) -> None:
        if self.waiting:
            assert self.admission.left(self.waiting.pop(step.edge % len(self.waiting)))

    def late(self, _step: Step) -> None:
        for late in self.admission.late(self.now_s):
            self.waiting.remove(late.request_id)

    def close(self) -> None:
        assert all(self.admission.left(name) for name in self.waiting)
        for name in self.running:
            self.admission.ended(name, self.now_s)


@settings(max_examples=200)
@given(steps=steps, terms=terms)
def test_whatever_comes_the_accounts_hold(steps: list[Step], terms: Terms) -> None:
    model = Model(terms)
    for step in steps:
        model.take(step)
    model.close()
    admission = model.admission
    accounts = [admission._by_edge, admission._by_device, admission._running_by_device, admission._waiting]
    assert not any(accounts)
    assert admission._preloads == 0
    assert not admission._turns.edges
    assert not admission._preloading.edges


@settings(max_examples=60)
@given(
    lengths=st.lists(st.integers(20, 60), min_size=2, max_size=5),
    slots=st.integers(1, 6),
    seed=st.integers(0, 1000),
)
def test_while_all_wait_no_edge_has_more_than_its_share_and_one(lengths: list[int], slots: int, seed: int) -> None:
    dice = random.Random(seed)
    admission = Admission(Terms(max_running=slots, max_waiting=1000))
    arrivals = [f"{edge}" for edge, count in enumerate(lengths) for _ in range(count)]
    running: dict[str, str] = {}
    for number, edge in enumerate(arrivals):  # the first edge's all come before the second's
        if admission.offer(ticket(f"r{number}", edge), 0).runs:
            running[f"r{number}"] = edge
    for _ in range(min(lengths) * len(lengths) // 2):
        ended = dice.choice(sorted(running))
        del running[ended]
        admission.ended(ended, 0)
        following = admission.next(0)
        assert following is not None
        running[following.request_id] = following.edge_id
        counts = Counter(running.values())
        assert counts[following.edge_id] <= min(counts[f"{edge}"] for edge in range(len(lengths))) + 1
