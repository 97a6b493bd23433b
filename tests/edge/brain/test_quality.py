from __future__ import annotations

from itertools import pairwise

import pytest

from edge.brain.quality import LEVELS, QualityController, Rules

RULES = Rules()


class Clock:
    def __init__(self) -> None:
        self.at_s = 100.0

    def __call__(self) -> float:
        return self.at_s


def work(controller: QualityController, clock: Clock, seconds: float, *, lag: float, share: float) -> list[int]:
    """Encode ten seconds of speech a second for so long; return the level after each second."""
    levels = []
    for _ in range(round(seconds)):
        clock.at_s += 1.0
        controller.took(10.0, wall_s=10.0 * lag, busy_s=share)
        levels.append(controller.level)
    return levels


@pytest.mark.parametrize(
    ("lag", "share", "level"),
    [
        (0.01, 0.01, 0),
        (0.29, 0.01, 0),
        (0.4, 0.01, len(LEVELS) - 1),
        (0.01, 0.13, 0),
        (0.01, 0.3, len(LEVELS) - 1),
    ],
)
def test_quality_falls_only_beyond_the_high_marks(lag: float, share: float, level: int) -> None:
    clock = Clock()
    assert work(QualityController(now=clock), clock, 60, lag=lag, share=share)[-1] == level


def test_steps_down_one_by_one_with_time_between_them() -> None:
    clock = Clock()
    levels = work(QualityController(now=clock), clock, 10, lag=1.0, share=0.0)
    assert levels == [0, 1, 1, 2, 2, 3, 3, 3, 3, 3]


def test_between_the_marks_nothing_moves_in_either_direction() -> None:
    clock = Clock()
    controller = QualityController(now=clock)
    assert work(controller, clock, 4, lag=1.0, share=0.0)[-1] == 2
    assert set(work(controller, clock, 300, lag=0.2, share=0.0)[8:]) == {3}
    assert set(work(controller, clock, 300, lag=0.0, share=0.1)) == {3}


def test_quality_comes_back_step_by_step_after_calm_even_without_work() -> None:
    clock = Clock()
    controller = QualityController(now=clock)
    work(controller, clock, 20, lag=1.0, share=1.0)
    seen = []
    for _ in range(120):
        clock.at_s += 1.0
        seen.append(controller.level)
    assert seen == sorted(seen, reverse=True)
    assert seen[-1] == 0
    assert seen.count(2) == seen.count(1) == RULES.up_after_s
    assert seen.count(3) >= RULES.up_after_s


def test_level_that_a_better_one_would_break_is_reached_once_and_kept() -> None:
    """The better level costs twice as much, as complexity 5 does against 1: no swinging between the two."""
    clock = Clock()
    controller = QualityController(now=clock)
    levels = []
    for _ in range(600):
        clock.at_s += 1.0
        controller.took(10.0, wall_s=0.1, busy_s=0.2 if controller.level == 0 else 0.1)
        levels.append(controller.level)
    assert sum(a != b for a, b in pairwise(levels)) == 1
    assert levels[-1] == 1


def test_levels_get_cheaper_and_have_names_of_their_own() -> None:
    assert [level.name for level in LEVELS] == ["32k-c5", "32k-c1", "24k-c1", "16k-c1"]
    costs = [(level.bitrate, level.complexity) for level in LEVELS]
    assert costs == sorted(costs, reverse=True)
