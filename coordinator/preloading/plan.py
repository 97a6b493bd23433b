"""Which contents to make and to load for the next hour: those whose expected saving exceeds their cost, within the idle time; pure.

All worth is in seconds of an engine's time; a price of the cloud is turned into them by what such a second is worth. Doing nothing costs
nothing, so a plan holds only what beats it. Only the first ask in the hour is saved: it would have made or fetched the content for the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

MIN_CONFIDENCE = 0.8
"""Seed value: nothing is made unless it is asked for in the hour with a higher probability."""

Action = Literal["make", "load"]


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A content that may be wanted within the hour."""

    content: str
    probability: float
    """That it is asked for at least once, 0 to 1."""
    expected: float
    """Asks within the hour."""
    size_bytes: int
    is_stored: bool = False
    """Whether a far tier has it, and will for the whole hour."""
    is_near: bool = False
    """Whether the near tier has it already."""


class Costs(msgspec.Struct, frozen=True, kw_only=True):
    """What things cost, in seconds of an engine's time."""

    make_s: float = 2.0
    """Making an answer and speaking it. A guess: about 100 tokens and three sentences on an edge node."""
    wait_s: float = 1.0
    """What it is worth that a person does not wait for that. A guess."""
    cloud_price: float = 0.0
    """Of a miss that the cloud answers, in any currency."""
    second_price: float = 0.00003
    """Of a second of an engine's time, in the same. A guess: a machine at 0.10 an hour."""
    idle_share: float = 0.5
    """What an idle second costs of a busy one: energy, and what it keeps from others. A guess."""
    far_s: float = 0.004
    """What a look in a far tier adds to a turn: Redis 0.5 ms, S3 5 ms; more is lost when they are away. A guess between."""
    load_s: float = 0.0002
    """What reading it in idle time takes of the node, many at once. A guess."""

    @property
    def miss_s(self) -> float:
        """What it costs that nobody has it."""
        return self.make_s + self.wait_s + self.cloud_price / self.second_price


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate, and what becomes of it."""

    content: str
    action: Action
    probability: float
    expected: float
    saving_s: float
    cost_s: float
    """Idle time at its price, and the worth of what the content pushes out of the near tier."""
    budget_s: float
    """Idle time it takes."""
    size_bytes: int
    why: str
    """For people: the reason it is chosen, or not."""

    @property
    def worth_s(self) -> float:
        """What is gained over doing nothing."""
        return self.saving_s - self.cost_s


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What to do in the hour's idle time, the most worth for its time first, and what not to do."""

    chosen: tuple[Choice, ...] = ()
    refused: tuple[Choice, ...] = ()

    @property
    def worth_s(self) -> float:
        """What the plan gains over doing nothing; never negative."""
        return sum(choice.worth_s for choice in self.chosen)

    @property
    def spent_s(self) -> float:
        """Idle time it takes."""
        return sum(choice.budget_s for choice in self.chosen)


def plan(
    candidates: Sequence[Candidate],
    *,
    budget_s: float,
    near_bytes: int,
    costs: Costs | None = None,
    min_confidence: float = MIN_CONFIDENCE,
) -> Plan:
    """Return what is worth making and loading with ``budget_s`` of idle time and ``near_bytes`` of room in the near tier.

    Candidates that are near already only take room. A content too poor for the near tier may still be made for the far ones.
    """
    prices = costs or Costs()
    room_price = _room_price(candidates, near_bytes, prices)
    wanted: list[Choice] = []
    refused: list[Choice] = []
    for candidate in candidates:
        if candidate.is_near and candidate.is_stored:
            continue
        choice, is_wanted = _weighed(candidate, prices, room_price, min_confidence)
        (wanted if is_wanted else refused).append(choice)
    wanted.sort(key=lambda choice: (-choice.worth_s / max(choice.budget_s, 1e-12), choice.content))
    chosen: list[Choice] = []
    left_s = budget_s
    for choice in wanted:
        if choice.budget_s <= left_s:
            left_s -= choice.budget_s
            chosen.append(choice)
        else:
            refused.append(
                _because(choice, f"no idle time left: takes {choice.budget_s:.4g} s of {max(left_s, 0):.4g} s")
            )
    return Plan(chosen=tuple(chosen), refused=tuple(refused))


def _room_price(candidates: Sequence[Candidate], near_bytes: int, costs: Costs) -> float:
    """Return what a byte of the near tier is worth: the saving by the best content for which there is no room, by its bytes."""
    worths = sorted(
        (
            (candidate.probability * costs.far_s / max(candidate.size_bytes, 1), candidate.size_bytes)
            for candidate in candidates
        ),
        reverse=True,
    )
    room = near_bytes
    for worth, size_bytes in worths:
        room -= size_bytes
        if room < 0:
            return worth
    return 0.0


def _weighed(candidate: Candidate, costs: Costs, room_price: float, min_confidence: float) -> tuple[Choice, bool]:
    """Return what the candidate saves and costs, and whether it is worth it."""
    near_saving_s = 0.0 if candidate.is_near else candidate.probability * costs.far_s
    room_s = 0.0 if candidate.is_near else candidate.size_bytes * room_price
    is_for_near = near_saving_s > costs.load_s * costs.idle_share + room_s
    if candidate.is_stored:
        saving_s, busy_s, action = near_saving_s, costs.load_s, "load"
    else:
        saving_s = candidate.probability * costs.miss_s + (near_saving_s if is_for_near else 0.0)
        busy_s, action = costs.make_s, "make"
    cost_s = busy_s * costs.idle_share + (room_s if is_for_near or candidate.is_stored else 0.0)
    choice = Choice(
        content=candidate.content,
        action="load" if action == "load" else "make",
        probability=candidate.probability,
        expected=candidate.expected,
        saving_s=saving_s,
        cost_s=cost_s,
        budget_s=busy_s,
        size_bytes=candidate.size_bytes,
        why=f"asked {candidate.expected:.2f} times, at all with {candidate.probability:.0%}: saves {saving_s:.4g} s for {cost_s:.4g} s",
    )
    if choice.worth_s <= 0:
        return _because(choice, f"doing nothing is cheaper: saves {saving_s:.4g} s for {cost_s:.4g} s"), False
    if action == "make" and candidate.probability <= min_confidence:
        return _because(
            choice, f"not sure enough: {candidate.probability:.0%}, must be over {min_confidence:.0%}"
        ), False
    return choice, True


def _because(choice: Choice, why: str) -> Choice:
    return msgspec.structs.replace(choice, why=why)
