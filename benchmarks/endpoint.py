"""The end of a turn: how often each rule cuts somebody off in a pause, and how long it lets the others wait, in audio time.

Sentences of the starter voices get a pause inside a clause, two ways: "bare", silence put into a fluent sentence where its voice is lowest,
and "thinking", with a filler (嗯, um) said before the pause. The real Silero judges 60 ms frames, the product's segmenter and, where the
rule has one, the real Smart Turn decide as a session would. These voices do not hesitate as people do, least of all in a bare pause:
compare rules with one another, and measure on recordings of your own before you believe a rate.
"""

from __future__ import annotations

import asyncio
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.report import report_of, show, summary, table_of, write_json
from benchmarks.spoken import RATE_HZ, SENTENCES, Samples, Sentence, frames_of, hesitation, in_room, said, with_pause
from edge.brain.segmenter import Endpoint, Endpointing, Segmenter, SilenceBegan
from models.engines import TurnDetector, VoiceDetector
from models.silero import SileroDetector
from models.smart_turn import SmartTurnDetector
from models.speech import AudioFrame, Utterance
from models.store import locate

PAUSES_MS = (200, 400, 600, 800, 1000, 1200)
"""Each sentence is heard without a pause too: then only its true end should end it."""
BEFORE_MS, AFTER_MS = 500, 2_500
"""Silence around a sentence; behind it, more than the slowest rule waits."""
NOISE = 20.0
"""A quiet room, 64 dB below full scale. A guess."""
ASK_AFTER_MS, FALLBACK_MS = 200, 1_500
THRESHOLDS = (0.5, 0.9)
"""Upstream's, and one for those who would rather wait."""


Kind = Literal["whole", "bare", "thinking"]


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """A rule for the end of a turn."""

    name: str
    rules: Endpointing
    threshold: float | None = None
    """Probability of the turn detector that ends the turn when silence begins; None does not ask."""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A sentence, perhaps with a pause in it."""

    kind: Kind
    pause_ms: int
    """0 for ``whole``."""
    frames: list[AudioFrame]
    end_ms: float
    """Audio time at which the last audible sample was said."""


class Voiced(msgspec.Struct, frozen=True, kw_only=True):
    """A sentence as it was spoken: fluently, and in two parts with a filler at the end of the first."""

    whole: Samples
    first: Samples
    second: Samples


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How one rule ended one case."""

    kind: Kind
    pause_ms: int
    wait_ms: float | None
    """From the true end to the decision; None when the sentence was cut off or never ended."""
    is_cut: bool
    judge_ms: tuple[float, ...] = ()
    """Wall time of each question to the turn detector, not part of the wait: the audio goes on meanwhile."""


POLICIES = (
    *(
        Policy(name=f"silence {silence_ms} ms", rules=Endpointing(end_silence_ms=silence_ms))
        for silence_ms in (300, 500, 700, 1000)
    ),
    *(
        Policy(
            name=f"smart turn {threshold} at {ASK_AFTER_MS} ms, else {FALLBACK_MS} ms",
            rules=Endpointing(hint_silence_ms=ASK_AFTER_MS, end_silence_ms=FALLBACK_MS),
            threshold=threshold,
        )
        for threshold in THRESHOLDS
    ),
)


def command(
    *,
    json: Annotated[Path | None, typer.Option(help="Write the report there.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="A third of the sentences and half of the pauses.")] = False,
) -> None:
    """Measure false cut-offs and waits of each rule for the end of a turn."""
    console, started_at = Console(), datetime.now(UTC)
    results = measure(lambda line: console.print(line, markup=False, highlight=False), quick=quick)
    line = shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]])
    report = report_of("endpoint", line, engines="real", results=results, started_at=started_at)
    show(console, report, tables(results))
    if json is not None:
        write_json(report, json)


def measure(report: Callable[[str], None], *, quick: bool = False) -> dict[str, Any]:
    """Return what each rule did, by its name; blocks. Raises CatalogError naming the model to pull."""
    return asyncio.run(_measure(report, quick=quick))


async def _measure(report: Callable[[str], None], *, quick: bool) -> dict[str, Any]:
    sentences = SENTENCES[:4] if quick else SENTENCES
    voice, turn = SileroDetector(locate("silero-vad")["model"]), SmartTurnDetector(locate("smart-turn-v3.2")["model"])
    try:
        await turn.warm()
        report(f"speaking {len(sentences)} sentences")
        cases = cases_of(await _voiced(sentences), PAUSES_MS[::2] if quick else PAUSES_MS)
        report(f"listening to {len(cases)} cases")
        speech = await asyncio.gather(*(heard(voice, case) for case in cases))
        results: dict[str, Any] = {}
        for policy in POLICIES:
            outcomes = [
                await outcome_of(case, judged, policy, turn) for case, judged in zip(cases, speech, strict=True)
            ]
            results[policy.name] = results_of(outcomes)
            report(f"{policy.name}: {results[policy.name]['false_cutoff_rate']:.0%} cut off")
        return {"cases": len(cases), "policies": results}
    finally:
        await voice.close()
        turn.close()


async def _voiced(sentences: Sequence[Sentence]) -> list[Voiced]:
    """Return the sentences spoken."""
    texts = [(one.language, text) for one in sentences for text in (one.text, one.before + one.filler, one.after)]
    clips = iter(await said(texts))
    return [
        Voiced(whole=whole, first=first, second=second)
        for whole, first, second in zip(clips, clips, clips, strict=True)
    ]


def cases_of(sentences: Sequence[Voiced], pauses_ms: Sequence[int]) -> list[Case]:
    """Return every sentence without a pause and with each of ``pauses_ms``, bare and thinking."""
    return [
        _case(kind, pause_ms, sound, seed)
        for seed, voiced in enumerate(sentences)
        for kind, pause_ms, sound in [("whole", 0, voiced.whole), *_paused(voiced, pauses_ms)]
    ]


def _paused(voiced: Voiced, pauses_ms: Sequence[int]) -> list[tuple[Kind, int, Samples]]:
    at = hesitation(voiced.whole)
    bare, thinking = (voiced.whole[:at], voiced.whole[at:]), (voiced.first, voiced.second)
    return [
        *(("bare", pause_ms, with_pause(*bare, pause_ms)) for pause_ms in pauses_ms),
        *(("thinking", pause_ms, with_pause(*thinking, pause_ms)) for pause_ms in pauses_ms),
    ]


def _case(kind: Kind, pause_ms: int, sound: Samples, seed: int) -> Case:
    room = in_room(sound, before_ms=BEFORE_MS, after_ms=AFTER_MS, noise=NOISE, seed=seed)
    return Case(kind=kind, pause_ms=pause_ms, frames=frames_of(room), end_ms=BEFORE_MS + len(sound) * 1000 / RATE_HZ)


async def heard(voice: VoiceDetector, case: Case) -> list[float]:
    """Return the speech probability of each frame."""
    stream = voice.listen()
    return [await stream.detect(frame) for frame in case.frames]


async def outcome_of(case: Case, speech: Sequence[float], policy: Policy, turn: TurnDetector) -> Outcome:
    """Run one rule over one case."""
    took_ms: list[float] = []

    async def is_over(utterance: Utterance) -> bool:
        if policy.threshold is None:
            return False
        began_s = time.perf_counter()
        probability = await turn.finished(utterance)
        took_ms.append((time.perf_counter() - began_s) * 1000)
        return probability >= policy.threshold

    segmenter = Segmenter("benchmark", rules=policy.rules)
    segmenter.start("auto")
    ended_ms: float | None = None
    for frame, probability in zip(case.frames, speech, strict=True):
        for event in segmenter.feed(frame, probability):
            if isinstance(event, Endpoint) or (isinstance(event, SilenceBegan) and await is_over(event.utterance)):
                ended_ms = frame.start_ms + frame.duration_ms
        if ended_ms is not None:
            break
    is_cut = ended_ms is not None and ended_ms < case.end_ms
    wait_ms = None if ended_ms is None or is_cut else ended_ms - case.end_ms
    return Outcome(kind=case.kind, pause_ms=case.pause_ms, wait_ms=wait_ms, is_cut=is_cut, judge_ms=tuple(took_ms))


def results_of(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Return rates in [0, 1] over the cases with a pause put in, and the waits of all that were not cut off."""
    paused = [one for one in outcomes if one.kind != "whole"]
    pauses = sorted({one.pause_ms for one in paused})
    judged = [took_ms for one in outcomes for took_ms in one.judge_ms]
    return {
        "false_cutoff_rate": _rate(paused),
        "false_cutoff_rate_by_kind": {
            kind: _rate([one for one in outcomes if one.kind == kind]) for kind in get_args(Kind)
        },
        "false_cutoff_rate_by_pause_ms": {
            str(pause_ms): _rate([one for one in paused if one.pause_ms == pause_ms]) for pause_ms in pauses
        },
        "wait_ms": summary([one.wait_ms for one in outcomes if one.wait_ms is not None]),
        "never_ended": sum(one.wait_ms is None and not one.is_cut for one in outcomes),
    } | ({"judge_ms": summary(judged)} if judged else {})


def tables(results: Mapping[str, Any]) -> list[Table]:
    """Return the rules beside one another."""
    policies: Mapping[str, Any] = results["policies"]
    kinds, pauses = (list(next(iter(policies.values()))[f"false_cutoff_rate_by_{by}"]) for by in ("kind", "pause_ms"))
    rows = [
        [
            name,
            *(_percent(one["false_cutoff_rate_by_kind"][kind]) for kind in kinds),
            one["wait_ms"]["p50"],
            one["wait_ms"]["p95"],
            one["never_ended"],
        ]
        for name, one in policies.items()
    ]
    by_pause = [
        [name, *(_percent(one["false_cutoff_rate_by_pause_ms"][pause]) for pause in pauses)]
        for name, one in policies.items()
    ]
    columns = ["rule", *(f"cut: {kind}" for kind in kinds), "wait p50 ms", "wait p95 ms", "never ended"]
    return [
        table_of(f"End of turn, {results['cases']} cases", columns, rows),
        table_of("Cut off by length of the pause", ["rule", *(f"{pause} ms" for pause in pauses)], by_pause),
    ]


def _rate(outcomes: Sequence[Outcome]) -> float:
    return round(sum(one.is_cut for one in outcomes) / max(len(outcomes), 1), 4)


def _percent(rate: float) -> str:
    return f"{rate:.0%}"
