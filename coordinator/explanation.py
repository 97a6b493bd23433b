"""From the record of a turn to lines for a person: what was heard, who answered and why, and where the time went; pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import pairwise

from coordinator.routing.signals import read
from coordinator.turn_log import KeptTurn
from coordinator.turns import Marks, RoutingDecision, Tier, TurnRecord
from models.prompts import Message, Prompt

_BAR_CELLS = 40
_RULES = {"private", "picture", "real-time", "device-command", "asked-to-think"}
"""Reasons that come before any score."""
_MEANS = {
    "remembered": "the same was asked before; no model was asked",
    "gain-above-threshold": "the cloud would gain enough",
    "gain-below-threshold": "the cloud would gain too little",
    "complex": "it looks hard, by length, keywords and context",
    "below-threshold": "it looks easy, by length, keywords and context",
    "private": "the device's owner wants nothing to leave the edge",
    "picture": "a picture needs a model that sees",
    "real-time": "only the edge knows time and place",
    "device-command": "the device is told to do something",
    "asked-to-think": "the person asked to think hard",
    "budget": "the cloud would gain something, but not what it costs now",
    "pools-closed": "every pool that could be asked had failed too often",
    "cloud-unreachable": "the cloud was out of reach",
    "llm-overloaded": "who was asked first had too much to do",
    "llm-deadline": "who was asked first did not begin in time",
    "llm-failed": "who was asked first failed",
    "doubt": "the edge's model doubted its own first words",
}
"""What a reason means; one that is not here is shown alone."""
_OUTCOMES = {
    "answered": "answered",
    "silent": "nothing was heard, nothing answered",
    "interrupted": "interrupted while it was answered",
    "failed": "failed",
}


def explained(kept: KeptTurn) -> list[str]:
    """Return the whole turn as lines of text."""
    turn = kept.turn
    facts = {
        "when": _when(kept.at_s),
        "device": f"{turn.device_id}, edge {turn.edge_id}, session {turn.session_id}",
        "heard": _quoted(turn.heard) + (f" ({turn.language})" if turn.language and turn.heard else ""),
        "answer": _quoted(turn.answer),
        "model": turn.model or "-",
    }
    return [
        f"turn {turn.turn_id}: {_headline(turn)}",
        "",
        *(f"  {name:8}{_printable(text)}" for name, text in facts.items()),
        "",
        "Decisions",
        *_decision_lines(turn.decisions),
        *(["", "What the words look like", *_signal_lines(turn)] if turn.heard else []),
        "",
        "Time since the person stopped speaking",
        *_timeline(turn.marks),
    ]


def listed(turns: Sequence[KeptTurn]) -> list[str]:
    """Return one line for each turn, under a heading."""
    rows = [("ENDED", "TURN", "DEVICE", "OUTCOME", "BY", "WHY", "FIRST SOUND", "HEARD")]
    for kept in turns:
        turn = kept.turn
        last = turn.decisions[-1] if turn.decisions else None
        rows.append(
            (
                _when(kept.at_s),
                turn.turn_id,
                turn.device_id,
                turn.outcome,
                _place(last) if last else "-",
                last.reason if last else "-",
                _ms(_since_speech(turn.marks, turn.marks.first_audio_ms)),
                turn.heard or "-",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return [
        _printable("  ".join((*(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=True)), row[-1])))
        for row in rows
    ]


def _headline(turn: TurnRecord) -> str:
    words = _OUTCOMES.get(turn.outcome, turn.outcome)
    if turn.outcome == "answered" and turn.decisions:
        words += f" by the {_place(turn.decisions[-1])}"
    if turn.code:
        words += f" ({turn.code})"
    first_ms = _since_speech(turn.marks, turn.marks.first_audio_ms)
    if first_ms is not None:
        words += f", first sound {first_ms / 1000:.2f} s after the end of speech"
    return words


def _decision_lines(decisions: Sequence[RoutingDecision]) -> list[str]:
    if not decisions:
        return ["  none: no model was asked"]
    lines: list[str] = []
    for number, decision in enumerate(decisions, start=1):
        is_fallback = number > 1
        means = _MEANS.get(decision.reason, "")
        lines.append(
            f"  {number}. {'then ' if is_fallback else ''}{_place(decision)}: {decision.reason}"
            + (f" ({means})" if means else "")
        )
        lines.append(f"     {_figures(decision)}")
    return lines


def _signal_lines(turn: TurnRecord) -> list[str]:
    """Return what is read from the words, without the dialogue; a number that is 0 says nothing and is left out."""
    seen = read(Prompt(turn_id=turn.turn_id, messages=(Message(role="user", text=turn.heard),)))
    found = {name: value for name in seen.__struct_fields__ if (value := getattr(seen, name)) and name != "text"}
    shown = [f"{name.replace('_', ' ')} {_short(value)}" for name, value in found.items()]
    return [f"  {', '.join(shown)}"]


def _short(value: object) -> str:
    if isinstance(value, bool):
        return "yes"
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)


def _figures(decision: RoutingDecision) -> str:
    """Return score, threshold, gain, policy and arm of one decision."""
    sign = ">=" if decision.score >= decision.threshold else "<"
    parts = ["by a rule, before the score"] if decision.reason in _RULES else []
    parts += [f"score {decision.score:.3f} {sign} threshold {decision.threshold:.3f}"]
    if decision.gain:
        parts.append(f"gain {decision.gain:+.3f}")
    parts.append(f"policy {decision.policy}" if decision.policy else "policy of the edge's own settings")
    if decision.arm:
        parts.append(f"arm {decision.arm}")
    return ", ".join(parts)


def _place(decision: RoutingDecision) -> str:
    if decision.tier is Tier.CLOUD and decision.pool:
        return f"cloud pool {decision.pool}"
    return str(decision.tier)


def _timeline(marks: Marks) -> list[str]:
    """Return a line for each mark that was passed, with a bar from the mark before it."""
    passed = {
        "end of speech sure": 0.0,
        "words known": marks.transcript_ms,
        "first token": marks.first_token_ms,
        "first sentence": marks.first_sentence_ms,
        "first sound": marks.first_audio_ms,
        "ended": marks.ended_ms,
    }
    ends = [(name, marks.endpoint_wait_ms + ms) for name, ms in passed.items() if ms is not None]
    longest_ms = max(end for _, end in ends) or 1.0
    cells = [round(_BAR_CELLS * end / longest_ms) for _, end in ends]
    lines = []
    for (name, end_ms), (start, end) in zip(ends, pairwise([0, *cells]), strict=True):
        bar = " " * min(start, end) + "█" * max(end - start, 0)
        lines.append(f"  {name:20}{end_ms:8.0f} ms  {bar}".rstrip())
    return lines


def _since_speech(marks: Marks, ms: float | None) -> float | None:
    return None if ms is None else marks.endpoint_wait_ms + ms


def _ms(ms: float | None) -> str:
    return "-" if ms is None else f"{ms:.0f} ms"


def _when(at_s: float) -> str:
    return datetime.fromtimestamp(at_s, UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if at_s else "-"


def _quoted(text: str) -> str:
    return f"“{text}”" if text else "-"


def _printable(text: str) -> str:
    """Return the text without what could move a terminal's cursor: others wrote it."""
    return "".join(letter if letter.isprintable() else "·" for letter in text)
