from __future__ import annotations

import pytest

from coordinator.replay_report import replay_lines, spread
from coordinator.routing.replay import ChangedTurn, Replayed


def changed(number: int) -> ChangedTurn:
    return ChangedTurn(
        turn_id=f"t{number}",
        was="cloud/qwen-14b",
        was_reason="complex",
        now="edge",
        now_reason="gain-below-threshold",
        score=0.4,
        threshold=0.7,
    )


def replayed(turns: int, changes: int, unpriced: int = 0) -> Replayed:
    return Replayed(
        turns=turns,
        skipped=2,
        remembered=3,
        changed=tuple(changed(number) for number in range(changes)),
        cloud_share_before=0.5,
        cloud_share_after=0.125,
        price_before=1200,
        price_after=300.5,
        unpriced=unpriced,
        reasons={"gain-below-threshold": 7, "private": 1},
    )


def test_a_replay_is_told_before_and_after_with_examples() -> None:
    assert replay_lines(replayed(8, 2, unpriced=1), {"t0": "讲个\x1b故事"}, examples=10) == [
        "8 turns decided anew; left out: 3 answered from memory, 2 without words or decision",
        "",
        "                  RECORDED  NEW POLICY",
        "cloud calls         50.0 %      12.5 %",
        "price                 1200       300.5",
        "1 turns went to pools the new policy does not name; they count as free before",
        "",
        "Reasons now: gain-below-threshold 7, private 1",
        "",
        "2 turns would go elsewhere (25.0 %)",
        "TURN  WAS                       WOULD BE                     SCORE  THRESHOLD  HEARD",
        "t0    cloud/qwen-14b (complex)  edge (gain-below-threshold)  0.400  0.700      讲个·故事",
        "t1    cloud/qwen-14b (complex)  edge (gain-below-threshold)  0.400  0.700",
    ]


@pytest.mark.parametrize(("turns", "changes", "examples"), [(8, 2, 0), (8, 0, 10)])
def test_without_examples_there_is_no_table(turns: int, changes: int, examples: int) -> None:
    assert replay_lines(replayed(turns, changes), {}, examples=examples)[-1].startswith(
        f"{changes} turns would go elsewhere"
    )


def test_without_turns_only_what_was_left_out_is_told() -> None:
    assert len(replay_lines(replayed(0, 0), {}, examples=10)) == 1


@pytest.mark.parametrize(
    ("changes", "count", "shown"), [(10, 3, [0, 3, 6]), (3, 3, [0, 1, 2]), (2, 5, [0, 1]), (5, 0, []), (0, 3, [])]
)
def test_examples_are_spread_over_all_changes(changes: int, count: int, shown: list[int]) -> None:
    turns = tuple(changed(number) for number in range(changes))
    assert [turn.turn_id for turn in spread(turns, count)] == [f"t{number}" for number in shown]
