from __future__ import annotations

import msgspec
import pytest

from coordinator.explanation import explained, listed
from coordinator.turn_log import KeptTurn
from coordinator.turns import Marks, RoutingDecision, Tier, TurnRecord

CLOUD = RoutingDecision(
    turn_id="t1",
    tier=Tier.CLOUD,
    reason="gain-above-threshold",
    score=0.82,
    threshold=0.7,
    pool="qwen-14b",
    gain=0.31,
    policy=4,
    arm="b",
)
EDGE = msgspec.structs.replace(CLOUD, tier=Tier.EDGE, reason="llm-deadline", pool="")
TURN = TurnRecord(
    turn_id="t1",
    session_id="s1",
    device_id="aa:bb",
    edge_id="edge-1",
    outcome="answered",
    heard="法国的首都是哪个城市？",
    language="zh",
    answer="巴黎。",
    model="small",
    decisions=(CLOUD, EDGE),
    marks=Marks(
        endpoint_wait_ms=500,
        transcript_ms=100,
        first_token_ms=1100,
        first_sentence_ms=1300,
        first_audio_ms=1500,
        ended_ms=3500,
    ),
)
KEPT = KeptTurn(at_s=1795420800.0, turn=TURN)
CUT = msgspec.structs.replace


def explained_turn(**changes: object) -> list[str]:
    return explained(CUT(KEPT, turn=CUT(TURN, **changes)))


def test_a_turn_is_explained_whole() -> None:
    assert explained(KEPT) == [
        "turn t1: answered by the edge, first sound 2.00 s after the end of speech",
        "",
        "  when    2026-11-23 08:00:00 UTC",
        "  device  aa:bb, edge edge-1, session s1",
        "  heard   “法国的首都是哪个城市？” (zh)",
        "  answer  “巴黎。”",
        "  model   small",
        "",
        "Decisions",
        "  1. cloud pool qwen-14b: gain-above-threshold (the cloud would gain enough)",
        "     score 0.820 >= threshold 0.700, gain +0.310, policy 4, arm b",
        "  2. then edge: llm-deadline (who was asked first did not begin in time)",
        "     score 0.820 >= threshold 0.700, gain +0.310, policy 4, arm b",
        "",
        "What the words look like",
        "  kind fact, language zh, units 10, chinese share 1, clauses 1, questions 1, fact 3",
        "",
        "Time since the person stopped speaking",
        "  end of speech sure       500 ms  █████",
        "  words known              600 ms       █",
        "  first token             1600 ms        ██████████",
        "  first sentence          1800 ms                  ██",
        "  first sound             2000 ms                    ██",
        "  ended                   4000 ms                      ████████████████████",
    ]


@pytest.mark.parametrize(
    ("decision", "figures"),
    [
        (CUT(CLOUD, tier=Tier.EDGE, reason="private", pool=""), "by a rule, before the score, score 0.820"),
        (CUT(CLOUD, score=0.2, threshold=0.7), "score 0.200 < threshold 0.700"),
        (CUT(CLOUD, gain=-0.1), "gain -0.100"),
        (CUT(CLOUD, policy=0), "policy of the edge's own settings"),
        (CUT(CLOUD, reason="something-new"), "score 0.820 >= threshold 0.700, gain"),
    ],
)
def test_each_kind_of_decision_shows_what_it_went_by(decision: RoutingDecision, figures: str) -> None:
    lines = explained_turn(decisions=(decision,))
    place = next(number for number, line in enumerate(lines) if line.startswith("  1. "))
    assert decision.reason in lines[place]
    assert figures in lines[place + 1]


def test_a_turn_without_words_or_decisions_is_explained_as_well() -> None:
    lines = explained(
        KeptTurn(turn=TurnRecord(turn_id="t", session_id="s", device_id="d", edge_id="e", outcome="silent"))
    )
    assert lines[0] == "turn t: nothing was heard, nothing answered"
    assert "  when    -" in lines
    assert "  heard   -" in lines
    assert "  none: no model was asked" in lines
    assert lines[-1].split() == ["end", "of", "speech", "sure", "0", "ms"]


@pytest.mark.parametrize(
    ("changes", "headline"),
    [
        ({"outcome": "failed", "code": "llm-failed", "marks": Marks()}, "turn t1: failed (llm-failed)"),
        ({"outcome": "interrupted", "marks": Marks()}, "turn t1: interrupted while it was answered"),
        ({"outcome": "unheard-of", "marks": Marks()}, "turn t1: unheard-of"),
        ({"decisions": (CLOUD,), "marks": Marks()}, "turn t1: answered by the cloud pool qwen-14b"),
    ],
)
def test_the_headline_says_how_it_ended(changes: dict[str, object], headline: str) -> None:
    assert explained_turn(**changes)[0] == headline


def test_what_people_said_cannot_move_the_terminals_cursor() -> None:
    lines = explained_turn(heard="a\x1b[2Jb\nc\r\u202e", device_id="d\x07") + listed(
        [CUT(KEPT, turn=CUT(TURN, heard="\x1b[2J"))]
    )
    assert all(letter.isprintable() for line in lines for letter in line)


def test_turns_are_listed_one_a_line() -> None:
    silent = KeptTurn(turn=TurnRecord(turn_id="t22", session_id="s", device_id="d", edge_id="e", outcome="silent"))
    assert listed([KEPT, silent]) == [
        "ENDED                    TURN  DEVICE  OUTCOME   BY    WHY           FIRST SOUND  HEARD",
        "2026-11-23 08:00:00 UTC  t1    aa:bb   answered  edge  llm-deadline  2000 ms      法国的首都是哪个城市？",
        "-                        t22   d       silent    -     -             -            -",
    ]
