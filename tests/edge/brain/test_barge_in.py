from __future__ import annotations

from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.brain.barge_in import BargeIn, BargeInRules, Verdict

Step = tuple[str, float | str, float, Verdict | None]
"""What happened, its value, a second value (when, or how much speech), and the verdict expected."""


def play(steps: list[Step], *, is_asked: bool = False) -> BargeIn:
    judge = BargeIn(BargeInRules())
    for kind, value, more, expected in steps:
        verdict = {
            "voiced": partial(judge.voiced, value, more),
            "heard": partial(judge.heard, value, more, is_asked=is_asked),
            "over": partial(judge.over, value, is_asked=is_asked),
            "quiet": partial(judge.quiet, more),
        }[kind]()
        assert verdict == expected, (kind, value, more)
    return judge


HELD: list[Step] = [("voiced", 180, 0.18, None), ("voiced", 240, 0.24, "hold")]
TABLE: dict[str, list[Step]] = {
    "a-click-does-nothing": [("voiced", 60, 0.06, None), ("voiced", 0, 0.7, None), ("quiet", 0, 9, None)],
    "short-word-that-is-none": [("voiced", 180, 0.18, None), ("heard", "嗯", 180, None), ("over", "嗯", 0, None)],
    "short-stop": [("voiced", 180, 0.18, None), ("heard", "停", 180, "interrupt")],
    "backchannel-in-a-pause": [*HELD, ("heard", "嗯。", 240, "resume"), ("voiced", 0, 0.9, None), ("over", "嗯。", 0, None)],
    "noise": [*HELD, ("heard", "", 240, "resume")],
    "backchannel-known-late": [*HELD, ("voiced", 0, 0.9, None), ("over", "嗯", 0, "resume")],
    "words-in-a-pause": [*HELD, ("heard", "不对", 240, "interrupt")],
    "words-known-late": [*HELD, ("voiced", 0, 0.9, None), ("over", "不对", 0, "interrupt")],
    "stop-known-late": [*HELD, ("voiced", 0, 0.9, None), ("over", "停", 0, "interrupt")],
    "partial-words": [*HELD, ("voiced", 600, 0.6, None), ("heard", "换一首", 600, "interrupt")],
    "long-speech": [*HELD, ("voiced", 840, 0.84, None), ("voiced", 900, 0.9, "interrupt")],
    "long-backchannel": [
        *HELD, ("voiced", 660, 0.66, None), ("heard", "嗯嗯", 600, None), ("voiced", 1440, 1.4, None), ("voiced", 1500, 1.5, "interrupt"),
    ],
    "backchannel-then-more": [
        *HELD, ("heard", "嗯", 240, "resume"), ("voiced", 300, 1.0, None), ("voiced", 480, 1.2, "hold"), ("heard", "嗯不对", 480, "interrupt"),
    ],
    "silence-resumes-once": [*HELD, ("quiet", 0, 2.2, None), ("quiet", 0, 2.24, "resume"), ("quiet", 0, 9, None)],
    "words-after-silence-still-count": [*HELD, ("quiet", 0, 3, "resume"), ("voiced", 0, 3, None), ("over", "不对", 0, "interrupt")],
    "old-backchannel-under-new-speech": [*HELD, ("voiced", 0, 0.9, None), ("voiced", 240, 1.3, None), ("over", "嗯", 0, None)],
    "next-utterance-starts-anew": [
        *HELD, ("heard", "嗯", 240, "resume"), ("voiced", 0, 1, None), ("voiced", 180, 2, None), ("voiced", 240, 2, "hold"),
    ],
    "the-same-frame-twice": [*HELD, ("voiced", 240, 0.3, None)],
}  # fmt: skip


@pytest.mark.parametrize("steps", TABLE.values(), ids=TABLE.keys())
def test_judgement(steps: list[Step]) -> None:
    play(steps)


def test_backchannel_answers_a_question_once_it_is_over() -> None:
    judge = play([*HELD, ("heard", "好的", 240, None), ("voiced", 0, 0.9, None)], is_asked=True)
    assert judge.is_held
    assert judge.over("好的", is_asked=True) == "interrupt"
    assert play([*HELD, ("heard", "", 240, "resume")], is_asked=True).is_held is False


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("voiced"), st.floats(0, 3000)),
            st.tuples(st.sampled_from(["heard", "over"]), st.sampled_from(["", "嗯", "停", "不对"])),
            st.tuples(st.just("quiet"), st.floats(0, 10)),
        )
    )
)
def test_holds_and_resumes_alternate_and_no_hold_outlasts_silence(steps: list[tuple[str, float | str]]) -> None:
    judge, now_s, is_held = BargeIn(BargeInRules()), 0.0, False
    for kind, value in steps:
        if isinstance(value, str):
            verdict = judge.heard(value, 500) if kind == "heard" else judge.over(value)
        elif kind == "voiced":
            verdict = judge.voiced(value, now_s)
        else:
            now_s += value
            verdict = judge.quiet(now_s)
        assert not (verdict == "hold" and is_held)
        assert not (verdict == "resume" and not is_held)
        is_held = verdict == "hold" or (is_held and verdict is None)
        assert judge.is_held is is_held
    judge.quiet(judge.resume_at_s)
    assert not judge.is_held
