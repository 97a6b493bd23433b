"""Spoken turns from the device's side: speech goes out in real time, and the clock starts when the last audible sample was said.

Three classes in turn, so that whatever else the machine does falls on all alike: an easy question for the edge, a hard one for the
cloud, a repeated one for the cache. Every turn is a conversation of its own, with a device of its own. A turn that another tier
answered than its class expects is counted as such and measured nowhere.
"""

from __future__ import annotations

import asyncio
import shlex
import sys
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Protocol

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.report import Engines, report_of, show, summary, table_of, write_json
from coordinator import wire
from coordinator.bus import Bus
from coordinator.nats_bus import NatsBus
from coordinator.turns import Tier, TurnRecord, decode_turn
from edge.simulator.bootstrap import Identity
from edge.simulator.client import connect
from edge.simulator.turn import TurnResult
from edge.simulator.voice import speaker, spoken
from models.errors import VoiceError

RSS_TARGET_MIB = 2560
"""What the edge's processes may hold together on a two-core machine with the starter models."""
RECORD_WAIT_S = 5.0
"""How long a turn's record may take after the device heard the end. A guess; it is published at once."""
STAGES = ("endpoint_wait", "transcript", "first_token", "first_sentence", "first_audio")
_MIB = 1 << 20

SENTENCES: Mapping[Tier, tuple[tuple[str, str], ...]] = {
    # About you and me, or today: never remembered, so every time is the first.
    Tier.EDGE: (
        ("zh", "你今天过得怎么样？"),
        ("en", "How are you doing today?"),
        ("zh", "我想吃点水果，你有什么建议？"),
        ("en", "What is your favourite colour?"),
        ("zh", "请你跟我说一句晚安吧。"),
        ("en", "Tell me something nice about you."),
    ),
    # Over the threshold of 0.7 with room for a misheard word, and about me, so never remembered.
    Tier.CLOUD: (
        ("zh", "请帮我详细分析并比较太阳能和风能的优点和缺点，再举例说明。"),
        ("en", "Explain to me in detail the differences and advantages of solar and wind power, with an example."),
        ("zh", "请为我设计一个学习计划，详细解释每一步的原因和优点。"),
        ("en", "Design a plan for me to learn music, explain the steps, and compare the advantages in detail."),
    ),
    # The same for everybody at any time: remembered after the first.
    Tier.CACHE: (
        ("zh", "一年有多少个月？"),
        ("en", "How many months are in a year?"),
        ("zh", "天空是什么颜色的？"),
        ("en", "What is the capital of France?"),
    ),
}
"""Language and sentence by the tier that should answer; taken in this order, languages taking turns."""


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One turn to hold."""

    tier: Tier
    language: str
    text: str
    device_id: str
    is_measured: bool = True
    """False for the first asking of what is to be repeated."""


class Measured(msgspec.Struct, frozen=True, kw_only=True):
    """One turn held."""

    case: Case
    turn: TurnResult | None = None
    """None when the device never got so far; ``error`` says why."""
    record: TurnRecord | None = None
    error: str = ""

    @property
    def route(self) -> Tier | None:
        """Where the answer came from; None when no record told."""
        return self.record.decisions[-1].tier if self.record and self.record.decisions else None


class Site(Protocol):
    """A running site, as ``manifests.local.site`` yields it."""

    @property
    def ota_url(self) -> str:
        """Where devices boot."""
        ...

    @property
    def nats_url(self) -> str:
        """Where records of turns are published; "" when out of reach."""
        ...

    def pids(self, role: str) -> list[int]:
        """Return the processes whose name begins with ``role``."""
        ...


@dataclass(frozen=True, slots=True)
class GivenSite:
    """A site that somebody else runs; its processes are not ours to look at."""

    ota_url: str
    nats_url: str

    def pids(self, _role: str) -> list[int]:
        """Return nothing."""
        return []


@dataclass(slots=True)
class Records:
    """Records of finished turns as they are published, by device."""

    by_device: dict[str, TurnRecord] = field(default_factory=dict)
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def collect(self, bus: Bus, ready: asyncio.Event) -> None:
        """Listen until cancelled; sets ``ready`` once subscribed."""
        async with bus.subscribe(wire.turn_subject("*")) as messages:
            ready.set()
            async for message in messages:
                try:
                    record = decode_turn(message.payload)
                except msgspec.MsgspecError:
                    continue
                self.by_device[record.device_id] = record
                self.news.set()

    async def of(self, device_id: str, timeout_s: float = RECORD_WAIT_S) -> TurnRecord | None:
        """Return the last record of the device, None when none comes in time."""
        try:
            async with asyncio.timeout(timeout_s):
                while device_id not in self.by_device:
                    self.news.clear()
                    await self.news.wait()
        except TimeoutError:
            return None
        return self.by_device[device_id]


def command(
    *,
    json: Annotated[Path | None, typer.Option(help="Write the report there.")] = None,
    turns: Annotated[int, typer.Option(min=1, help="Measured turns of each class.")] = 6,
    ota: Annotated[str, typer.Option(help="Measure the site whose devices boot here.")] = "",
    nats: Annotated[str, typer.Option(help="That site's NATS: routes and stages are read there.")] = "",
    engines: Annotated[str, typer.Option(help="real, or scripted for a dry run.")] = "real",
) -> None:
    """Hold spoken turns with a running site, or with one started for the purpose."""
    console = Console()
    started_at = datetime.now(UTC)
    kind: Engines = "scripted" if engines == "scripted" else "real"
    given = GivenSite(ota, nats) if ota else None
    measured, rss_mib = asyncio.run(measure(given, turns, kind, console))
    report = report_of(
        "turns",
        shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        engines=kind,
        results=results_of(measured, rss_mib),
        started_at=started_at,
        errors=errors_of(measured),
    )
    show(console, report, tables_of(report.results))
    if json is not None:
        write_json(report, json)
    if report.errors:
        raise typer.Exit(1)


async def measure(
    given: GivenSite | None, turns: int, engines: Engines, console: Console
) -> tuple[list[Measured], float | None]:
    """Hold ``turns`` turns of each class; return them and the most memory the edge's processes held together, in MiB."""
    plan = cases(turns)
    speech = await _speech_of(plan, console)
    async with AsyncExitStack() as stack:
        site = await stack.enter_async_context(_site(given, engines, console))
        records = await stack.enter_async_context(_records(site.nats_url)) if site.nats_url else None
        measured: list[Measured] = []
        peak_mib: float | None = None
        for case in plan:
            held = await _hold(case, speech[case.text], site.ota_url, records)
            measured.append(held)
            now_mib = rss_mib(site.pids("edge"))
            peak_mib = max(peak_mib or 0.0, now_mib) if now_mib else peak_mib
            console.print(_line_of(held), markup=False, highlight=False)
        return measured, peak_mib


def cases(turns: int) -> list[Case]:
    """Return every turn in the order to hold them: repeated questions once beforehand, then the classes by turns."""
    repeated = list(dict.fromkeys(_pick(Tier.CACHE, turn) for turn in range(turns)))
    plan = [(Tier.CACHE, *sentence, False) for sentence in repeated]
    plan += [(tier, *_pick(tier, turn), True) for turn in range(turns) for tier in SENTENCES]
    return [
        Case(tier=tier, language=language, text=text, is_measured=is_measured, device_id=_mac(number))
        for number, (tier, language, text, is_measured) in enumerate(plan)
    ]


def results_of(measured: Sequence[Measured], edge_rss_mib: float | None) -> dict[str, Any]:
    """Return the report's results; see the keys."""
    counted = [held for held in measured if held.case.is_measured]
    good = [held for held in counted if not _fault_of(held) and held.route in {None, held.case.tier}]
    gaps = [gap for held in measured if held.turn for gap in held.turn.gaps_ms]
    astray = {
        tier.value: sum(held.route not in {None, tier} for held in counted if held.case.tier is tier)
        for tier in SENTENCES
    }
    return {
        **{tier.value: _class_results([held for held in good if held.case.tier is tier]) for tier in SENTENCES},
        "stages": _stages(good),
        "errors": len(errors_of(measured)),
        "gaps": {
            "count": len(gaps),
            "stutters": sum(held.turn.stutters for held in measured if held.turn),
            "longest_ms": round(max(gaps, default=0.0), 1),
        },
        "routes": {
            "expected": sum(held.route is held.case.tier for held in counted),
            "unknown": sum(held.route is None for held in counted),
            "other": astray,
        },
        "edge_rss_mib": None if edge_rss_mib is None else round(edge_rss_mib),
        "edge_rss_target_mib": RSS_TARGET_MIB,
    }


def errors_of(measured: Sequence[Measured]) -> list[str]:
    """Return one line for every turn that failed, without what was said."""
    return [
        f"{held.case.tier} {held.case.language} {held.case.device_id}: {fault}"
        for held in measured
        if (fault := _fault_of(held))
    ]


def tables_of(results: Mapping[str, Any]) -> list[Table]:
    """Return the results for people."""
    marks = ("p50", "p95", "max", "n")
    classes = [(tier.value, *(results[tier.value]["first_audio_ms"][mark] for mark in marks)) for tier in SENTENCES]
    stages = [(name, *(results["stages"][name][mark] for mark in marks)) for name in STAGES]
    gaps, routes = results["gaps"], results["routes"]
    others = [
        ("errors", results["errors"]),
        ("answered by another tier than expected", sum(routes["other"].values())),
        ("route unknown", routes["unknown"]),
        ("gaps in the speech", gaps["count"]),
        ("gaps over 120 ms", gaps["stutters"]),
        ("longest gap, ms", gaps["longest_ms"]),
        (f"edge memory, MiB (target {results['edge_rss_target_mib']})", results["edge_rss_mib"]),
    ]
    return [
        table_of("First audio, ms after the end of speech, wait included", ("answered by", *marks), classes),
        table_of("Stages, ms after the end was known (endpoint_wait: until then)", ("stage", *marks), stages),
        table_of("And", ("what", "value"), others),
    ]


def rss_mib(pids: Sequence[int]) -> float:
    """Return the resident memory of the processes together in MiB; those that have ended count nothing."""
    import psutil

    total_bytes = 0
    for pid in pids:
        try:
            total_bytes += psutil.Process(pid).memory_info().rss
        except psutil.Error:
            continue
    return total_bytes / _MIB


async def _speech_of(plan: Sequence[Case], console: Console) -> dict[str, bytes]:
    """Return every sentence of the plan spoken once, s16le mono at 16 kHz."""
    said: dict[str, bytes] = {}
    for language in sorted({case.language for case in plan}):
        texts = dict.fromkeys(case.text for case in plan if case.language == language)
        console.print(f"speaking {len(texts)} sentences, language {language}", highlight=False)
        async with speaker(language) as voice:
            for text in texts:
                said[text] = await spoken(text, voice, language)
    return said


async def _hold(case: Case, pcm: bytes, ota_url: str, records: Records | None) -> Measured:
    identity = Identity(device_id=case.device_id, language="zh-CN" if case.language == "zh" else "en-US")
    try:
        async with connect(ota_url, identity=identity) as device:
            turn = await device.ask(pcm)
            record = await records.of(case.device_id) if records else None
    except VoiceError as error:
        return Measured(case=case, error=str(error))
    return Measured(case=case, turn=turn, record=record)


@asynccontextmanager
async def _site(given: GivenSite | None, engines: Engines, console: Console) -> AsyncGenerator[Site, None]:
    if given is not None:
        yield given
        return
    from manifests import local

    async with local.site(engines=engines, report=lambda line: console.print(line, markup=False)) as site:
        yield site


@asynccontextmanager
async def _records(nats_url: str) -> AsyncGenerator[Records, None]:
    records, ready = Records(), asyncio.Event()
    async with NatsBus.connect(nats_url, name="benchmark") as bus:
        listener = asyncio.create_task(records.collect(bus, ready), name="records")
        try:
            await ready.wait()
            yield records
        finally:
            listener.cancel()
            await asyncio.wait([listener])


def _pick(tier: Tier, turn: int) -> tuple[str, str]:
    return SENTENCES[tier][turn % len(SENTENCES[tier])]


def _mac(number: int) -> str:
    return f"02:00:00:00:{number >> 8 & 0xFF:02x}:{number & 0xFF:02x}"


def _fault_of(held: Measured) -> str:
    """Return why a turn counts as failed, "" when it does not."""
    if held.turn is None:
        return held.error
    if held.turn.outcome != "answered":
        return held.turn.outcome
    if held.turn.unheard_ms:
        return f"answered {held.turn.unheard_ms:.0f} ms before the end of the sentence"
    return ""


def _class_results(held: Sequence[Measured]) -> dict[str, Any]:
    turns = [each.turn for each in held if each.turn]
    return {
        "first_audio_ms": summary([turn.first_audio_ms for turn in turns if turn.first_audio_ms is not None]),
        "transcript_ms": summary([turn.transcript_ms for turn in turns if turn.transcript_ms is not None]),
        "stages": _stages(held),
    }


def _stages(held: Sequence[Measured]) -> dict[str, Any]:
    marks = [each.record.marks for each in held if each.record]
    values = {name: [getattr(mark, f"{name}_ms") for mark in marks] for name in STAGES}
    return {name: summary([value for value in found if value is not None]) for name, found in values.items()}


def _line_of(held: Measured) -> str:
    kind = held.case.tier if held.case.is_measured else "first asking"
    if held.turn is None or held.turn.first_audio_ms is None:
        return f"{kind} {held.case.language}: {_fault_of(held)}"
    route = held.route or "unknown"
    return f"{kind} {held.case.language}: first audio {held.turn.first_audio_ms:.0f} ms, route {route} {_fault_of(held)}".rstrip()
